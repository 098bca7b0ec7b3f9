"""The rate limit of each host: intervals, Retry-After, our own backoff, and a circuit breaker.

Knows nothing of Scrapy, and the time only from the clock that it is given.
"""

import dataclasses
import datetime as dt
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from crawlers.responses import THROTTLED, is_server_failure
from crawlers.sites import Site
from dataset.errors import CrawlError

FIRST_THROTTLE_S = 1.0  # wait of a throttled host that does not say for how long; doubles
MAX_THROTTLE_S = 60.0
JITTER = 0.25  # of a wait that we chose ourselves
MAX_JITTER_S = 1.0  # on top of Retry-After: later than the host says, never sooner

_DEFAULT_PORTS = {"http": 80, "https": 443}


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


@dataclasses.dataclass(frozen=True, slots=True)
class Permit:
    """A request in flight; it is returned with its response or failure."""

    host: str
    kind: str
    ticket: int


class RateLimiter:
    """Tells for each host when the next request may be sent; responses adjust it.

    `intervals_s`: least seconds between two requests of a kind to one host. Requests of the kinds
    in `one_at_a_time` go one after the other, and their interval runs from the answer: however
    long a connection takes, the host never sees two of them closer together.
    """

    def __init__(
        self,
        intervals_s: Mapping[str, float],
        limits: BreakerLimits,
        *,
        clock: Callable[[], float],
        one_at_a_time: frozenset[str] = frozenset({"api"}),
        rng: random.Random | None = None,
    ) -> None:
        self._intervals_s = intervals_s
        self._limits = limits
        self._clock = clock
        self._one_at_a_time = one_at_a_time
        self._rng = rng or random.Random()
        self._hosts: dict[str, _Host] = {}

    def wait_s(self, host: str, kind: str) -> float:
        """Returns the seconds to wait before asking again whether a request may go; 0: now."""
        known = self._host(host)
        queue = known.queue(kind)
        if queue.busy:
            return math.inf
        until = max(known.not_before, queue.not_before)
        return max(0.0, until - self._clock(), known.breaker.wait_s())

    def acquire(self, host: str, kind: str) -> Permit:
        """Records that a request is sent now; only if `wait_s` has just returned 0."""
        known = self._host(host)
        queue = known.queue(kind)
        ticket = known.breaker.sent()
        queue.busy = kind in self._one_at_a_time
        queue.not_before = self._clock() + self._interval_s(known, kind)
        return Permit(host, kind, ticket)

    def record_response(
        self, permit: Permit, status: int, retry_after_s: float | None = None
    ) -> None:
        """Notes an answer; `retry_after_s`: its Retry-After, for the whole host."""
        known = self._release(permit)
        # Who says when to come back, or that we are too many, is not down.
        known.breaker.answer(
            permit.ticket, failed=is_server_failure(status) and retry_after_s is None
        )
        if status in THROTTLED:
            known.throttles += 1
            throttle_s = min(FIRST_THROTTLE_S * 2.0 ** (known.throttles - 1), MAX_THROTTLE_S)
            self.delay(
                permit.host,
                max(retry_after_s or 0.0, throttle_s * self._rng.uniform(1, 1 + JITTER)),
            )
        elif retry_after_s is not None:
            self.delay(permit.host, retry_after_s)
        elif status < 400:
            known.throttles = 0

    def record_failure(self, permit: Permit) -> None:
        """Records that no response came."""
        self._release(permit).breaker.failure(permit.ticket)

    def delay(self, host: str, wait_s: float) -> None:
        """Delays all requests to a host by `wait_s` seconds from now, plus a little jitter."""
        known = self._host(host)
        late_s = self._rng.uniform(0, min(wait_s * JITTER, MAX_JITTER_S))
        known.not_before = max(known.not_before, self._clock() + wait_s + late_s)

    def set_min_interval(self, host: str, interval_s: float) -> None:
        """Sets the minimum interval of a host, for every kind of request."""
        known = self._host(host)
        known.min_interval_s = max(known.min_interval_s, interval_s)

    def has_responded(self, host: str) -> bool:
        """Tells whether a host has ever answered."""
        return self._host(host).breaker.answered

    def is_given_up(self, host: str) -> bool:
        """Tells whether a host has been down for so long that it gets no more requests."""
        return self._host(host).breaker.state == "given_up"

    def _release(self, permit: Permit) -> "_Host":
        known = self._host(permit.host)
        queue = known.queue(permit.kind)
        if permit.kind in self._one_at_a_time:
            queue.busy = False
            queue.not_before = self._clock() + self._interval_s(known, permit.kind)
        return known

    def _interval_s(self, known: "_Host", kind: str) -> float:
        return max(self._intervals_s.get(kind, 0.0), known.min_interval_s)

    def _host(self, host: str) -> "_Host":
        if host not in self._hosts:
            self._hosts[host] = _Host(Breaker(self._limits, self._clock))
        return self._hosts[host]


@dataclasses.dataclass(slots=True)
class _Queue:
    """The requests of one kind to one host."""

    not_before: float = -math.inf
    busy: bool = False  # one is on its way, and must come back first


@dataclasses.dataclass(slots=True)
class _Host:
    breaker: Breaker
    not_before: float = -math.inf
    throttles: int = 0  # in a row
    min_interval_s: float = 0.0
    queues: dict[str, _Queue] = dataclasses.field(default_factory=dict)

    def queue(self, kind: str) -> _Queue:
        return self.queues.setdefault(kind, _Queue())


def host_of(url: str) -> str:
    """Returns the host of an address, with its port where that is not the usual."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)):
        return host
    return f"{host}:{parts.port}"


MAX_WAIT_S = 120.0  # a crawl waits so long; when a host wants more, it ends and says until when


class Wait(NamedTuple):
    """A host lets us wait until `not_before` (UTC), by a Retry-After of `retry_after_s` seconds."""

    host: str
    not_before: dt.datetime
    retry_after_s: float

    @classmethod
    def until(cls, host: str, retry_after_s: float, now: dt.datetime) -> "Wait":
        """Returns the wait that an answer of this moment asks for."""
        return cls(host, now + dt.timedelta(seconds=retry_after_s), retry_after_s)

    def left_s(self, now: dt.datetime) -> float:
        """Returns the seconds that are left; never more than Retry-After said.

        (Else a clock that was set back would lengthen the wait.)
        """
        return min(max(0.0, (self.not_before - now).total_seconds()), self.retry_after_s)

    @property
    def is_long(self) -> bool:
        """Whether a crawl ends instead of waiting."""
        return self.retry_after_s > MAX_WAIT_S


def check_waits(site: Site, waits: Iterable[Wait], now: dt.datetime) -> None:
    """Raises CrawlError if a host of the site sent a long Retry-After that is not over yet."""
    scheme = "http" if site.is_loopback else "https"
    for wait in waits:
        ours = site.allows(f"{scheme}://{wait.host}/")
        if ours and wait.is_long and wait.left_s(now) > 0:
            raise wait_error(site, wait, now)


def wait_error(site: Site, wait: Wait, now: dt.datetime) -> CrawlError:
    """Returns the error of a crawl that would have to wait for too long."""
    own = wait.host == host_of(site.api)
    who = site.name if own else f"{site.name} (its host {wait.host})"
    return CrawlError(
        f"{who} asks us to wait until {_moment(wait.not_before, now)} UTC "
        f"(Retry-After {wait.retry_after_s:.0f} s): run again then"
    )


def _moment(moment: dt.datetime, now: dt.datetime) -> str:
    """Writes a moment down to the minute, rounded up: at the minute named, it is over."""
    up = (moment + dt.timedelta(seconds=59, microseconds=999_999)).replace(second=0, microsecond=0)
    return f"{up:%H:%M}" if up.date() == now.date() else f"{up:%Y-%m-%d %H:%M}"


def backoff_s(times: int, *, first_s: float) -> float:
    """Returns the wait before the `times`-th repetition: doubling, with a jitter of 25 %."""
    return first_s * 2.0 ** (times - 1) * random.uniform(0.75, 1.25)
