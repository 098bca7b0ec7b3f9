"""The demo that all workers share: its drawings are the board's here too."""

from tests.pipeline.conftest import demo

__all__ = ["demo"]
