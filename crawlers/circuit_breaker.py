"""The breaker of one host: after failures in a row no request for a while, then a single probe."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "probing", "given_up"]


@dataclasses.dataclass(frozen=True)
class BreakerLimits:
    """When a host counts as down, and how long it is waited for."""

    failures: int = 8  # in a row, to open
    open_s: float = 30.0  # before the first probe; doubles with each probe that fails
    openings: int = 4  # 30 + 60 + 120 + 240 s: after these the host is given up


class Breaker:
    """Lets requests out while a host works; `clock` tells seconds that only ever grow.

    closed ──failures in a row──▶ open ──its time is over──▶ probing ──answer──▶ closed
    probing ──failure──▶ open, for twice as long; after the last opening ──▶ given_up.
    A host that has never answered is given up instead of being opened: it is not there.
    """

    def __init__(self, limits: BreakerLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._state: State = "closed"
        self._answered = False
        self._failures = 0  # in a row
        self._openings = 0  # in a row
        self._until = -math.inf
        self._generation = 0  # what was sent before the last opening no longer counts

    @property
    def state(self) -> State:
        """What the host counts as now."""
        return self._state

    @property
    def answered(self) -> bool:
        """Whether the host has ever answered, be it with an error."""
        return self._answered

    def wait_s(self) -> float:
        """Returns the seconds until a request may go; infinite while a probe is on its way."""
        if self._state == "closed":
            return 0.0
        if self._state == "open":
            return max(0.0, self._until - self._clock())
        return math.inf

    def sent(self) -> int:
        """Notes that a request goes out; returns the ticket to give back with its outcome."""
        assert self.wait_s() == 0, "a request went out through an open breaker"
        if self._state == "open":
            self._state = "probing"
        return self._generation

    def answer(self, ticket: int, *, failed: bool) -> None:
        """Notes that an answer came; `failed`: it says that the host is in trouble."""
        self._answered = True
        if failed:
            self.failure(ticket)
        elif ticket == self._generation and self._state in ("closed", "probing"):
            self._state = "closed"
            self._failures = self._openings = 0

    def failure(self, ticket: int) -> None:
        """Notes that no answer came, or one of a host in trouble."""
        if ticket != self._generation or self._state not in ("closed", "probing"):
            return  # sent before the breaker opened
        self._failures += 1
        if self._state == "probing" or self._failures >= self._limits.failures:
            self._open()

    def _open(self) -> None:
        self._generation += 1
        self._openings += 1
        if not self._answered or self._openings > self._limits.openings:
            self._state = "given_up"
            return
        self._state = "open"
        self._until = self._clock() + self._limits.open_s * 2.0 ** (self._openings - 1)
