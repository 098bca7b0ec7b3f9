"""An error that carries all faults of what was asked, and a value as an error may show it."""

from collections.abc import Sequence

from dataset.errors import UsageError, listed
from models.io.safe_io import shown


class Faulty(UsageError):
    """Something asked for that has faults; `faults` holds each as a sentence without its dot."""

    def __init__(self, what: str, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        if len(self.faults) == 1:
            super().__init__(f"{what}: {self.faults[0]}")
        else:
            super().__init__(f"{what}: {len(self.faults)} faults\n{listed(list(self.faults))}")


def quoted(value: object) -> str:
    """Returns a value between quotation marks, printable and short."""
    return f'"{shown(f"{value:g}" if isinstance(value, float) else str(value))}"'
