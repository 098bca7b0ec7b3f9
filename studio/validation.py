"""Limits of what may be requested, and checks that name every fault of a value."""

import math
from collections.abc import Sequence

import numpy as np

from dataset.errors import UsageError, listed, nearest
from models.io.safe_io import shown

MAX_PICTURES = 64  # a draw
MAX_SEED = 2**53 - 1  # the largest whole number that a browser holds exactly
PSI_MAX = 2.0
UPLOAD_MAX_BYTES = 10 * 2**20
UPLOAD_MAX_PIXELS = 4_000_000
SIDE_MIN_PX = 8  # of any result
SIDE_MAX_PX = 4096  # of any result
# Of a link behind its question mark. The latent of an inverted picture has 8,227 characters at 128
# px, 10,969 at 512 and 12,340 at 1024 (18 layers of 512); all else takes fewer than 4,000. The
# page's own server reads 64 KiB of a request's head; a proxy before it must read as much as this.
QUERY_MAX_CHARS = 16_384
VARIATION_MAX = 2.0  # of one variation: nine tenths of the latent are then the variation's
VARIATIONS_MAX = 16
SLIDER_MAX = 10.0  # standard deviations
SLIDERS_MAX = 64
FRAMES_MAX = 300  # of a film
FPS_MIN, FPS_MAX = 1, 60
SECONDS_MAX = 30.0  # of a film
STEPS_MAX = 20  # pictures of a morph's strip
MAX_CHARACTERS = 9  # that wander in one film


class FaultsError(UsageError):
    """A request that has faults; `faults` holds each as a sentence without its dot."""

    def __init__(self, what: str, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        if len(self.faults) == 1:
            super().__init__(f"{what}: {self.faults[0]}")
        else:
            super().__init__(f"{what}: {len(self.faults)} faults\n{listed(list(self.faults))}")


def quoted(value: object) -> str:
    """Returns a value between quotation marks, printable and short."""
    return f'"{shown(f"{value:g}" if isinstance(value, float) else str(value))}"'


def is_number(value: object) -> bool:
    """Whether a value is a finite number; True and False are none."""
    is_real = isinstance(value, int | float | np.integer | np.floating)
    return is_real and not isinstance(value, bool) and math.isfinite(float(str(value)))


_EXACT = 2**53  # beyond it a float may stand for another whole number


def check_whole(value: object, what: str, *, low: int, high: int) -> int:
    """Returns a whole number from low to high; 3.0, as pages send it, is 3. Raises UsageError."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise UsageError(f"{what} is {quoted(value)}; a whole number from {low} to {high} is wanted")


def check_number(value: object, what: str, *, low: float, high: float, meaning: str = "") -> float:
    """Returns a number from low to high; raises UsageError, which tells also its meaning."""
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return float(value)
    suffix = f", {meaning}" if meaning else ""
    raise UsageError(
        f"{what} is {quoted(value)}; a number from {low:g} to {high:g} is wanted{suffix}"
    )


def check_choice(value: object, what: str, known: Sequence[str]) -> str:
    """Returns a word of `known`; raises UsageError with the nearest one."""
    if isinstance(value, str) and value in known:
        return value
    near = nearest(value, known) if isinstance(value, str) and len(value) < 100 else ""
    raise UsageError(f"{what} is {quoted(value)}; one of {', '.join(known)} is wanted{near}")
