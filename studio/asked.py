"""Checks the plain values that people ask with; each fault is one sentence."""

from collections.abc import Sequence

from dataset.errors import UsageError, nearest
from studio.faults import quoted

_EXACT = 2**53  # beyond it a float may stand for another whole number


def whole(value: object, what: str, *, low: int, high: int) -> int:
    """Returns a whole number from low to high; 3.0, as pages send it, is 3. Raises UsageError."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise UsageError(f"{what} is {quoted(value)}; a whole number from {low} to {high} is wanted")


def number(value: object, what: str, *, low: float, high: float, meaning: str = "") -> float:
    """Returns a number from low to high; raises UsageError, which tells also its meaning."""
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return float(value)
    told = f", {meaning}" if meaning else ""
    raise UsageError(
        f"{what} is {quoted(value)}; a number from {low:g} to {high:g} is wanted{told}"
    )


def one_of(value: object, what: str, known: Sequence[str]) -> str:
    """Returns a word of `known`; raises UsageError with the nearest one."""
    if isinstance(value, str) and value in known:
        return value
    near = nearest(value, known) if isinstance(value, str) and len(value) < 100 else ""
    raise UsageError(f"{what} is {quoted(value)}; one of {', '.join(known)} is wanted{near}")
