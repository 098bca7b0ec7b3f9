"""How long to wait before asking again of our own accord."""

import random


def backoff_s(times: int, *, first_s: float) -> float:
    """Returns the wait before the `times`-th repetition: doubling, with a jitter of 25 %."""
    return first_s * 2.0 ** (times - 1) * random.uniform(0.75, 1.25)
