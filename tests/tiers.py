"""The two tiers: what is proved once in the fast tier and for every case in the slow one."""

from collections.abc import Iterable

import pytest


def all_slow_but(values: Iterable[str], *fast: str) -> list[object]:
    """Returns the values for a parametrisation; those not named in `fast` are marked slow."""
    return [
        value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values
    ]
