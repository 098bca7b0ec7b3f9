"""The rate limit of a host on a made clock: intervals, requested waits, and their survival."""

import datetime as dt
import heapq
import math
import random
from collections.abc import Callable
from email.utils import format_datetime
from pathlib import Path

import pytest

from crawlers.ledger import Ledger
from crawlers.rate_limit import BreakerLimits, RateLimiter, Wait, check_waits, host_of
from crawlers.responses import longest_retry_after
from crawlers.sites import load_sites
from dataset.errors import CrawlError

EPOCH = dt.datetime(2026, 11, 21, 10, 0, 0, tzinfo=dt.UTC)
HOST = "konachan.net"
SLOWEST_S = 3.0  # that an answer takes to come
INTERVALS_S = {"api": 1.0, "media": 0.5}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limiter_with(clock: Clock, **limits: float) -> RateLimiter:
    return RateLimiter(
        INTERVALS_S,
        BreakerLimits(**limits),  # type: ignore[arg-type]
        clock=clock,
        rng=random.Random(0),
    )


def test_the_interval_of_the_api_runs_from_the_answer(clock: Clock) -> None:
    limiter = limiter_with(clock)
    permit = limiter.acquire(HOST, "api")
    clock.now_s = 5.0
    assert limiter.wait_s(HOST, "api") == math.inf  # one at a time
    limiter.record_response(permit, 200)
    assert limiter.wait_s(HOST, "api") == 1.0
    clock.now_s = 6.0
    assert limiter.wait_s(HOST, "api") == 0.0


def test_pictures_have_an_interval_of_their_own_and_may_overlap(clock: Clock) -> None:
    limiter = limiter_with(clock)
    limiter.acquire(HOST, "api")
    assert limiter.wait_s(HOST, "media") == 0.0
    limiter.acquire(HOST, "media")
    assert limiter.wait_s(HOST, "media") == 0.5
    clock.now_s = 0.5
    assert limiter.wait_s(HOST, "media") == 0.0


def test_a_wait_for_one_kind_of_request_holds_all_of_the_host_and_no_other(
    clock: Clock,
) -> None:
    limiter = limiter_with(clock)
    limiter.record_response(limiter.acquire(HOST, "media"), 429, 30.0)
    assert 30.0 <= limiter.wait_s(HOST, "api") <= 31.0
    assert 30.0 <= limiter.wait_s(HOST, "media") <= 31.0
    assert limiter.wait_s("files.yande.re", "media") == 0.0


def test_a_later_and_shorter_wait_does_not_shorten_the_first(clock: Clock) -> None:
    limiter = limiter_with(clock)
    one, other = limiter.acquire(HOST, "api"), limiter.acquire(HOST, "media")
    limiter.record_response(one, 503, 60.0)
    limiter.record_response(other, 429, 1.0)
    assert limiter.wait_s(HOST, "api") >= 60.0


def test_a_throttle_without_a_time_is_waited_out_for_longer_each_time(clock: Clock) -> None:
    limiter = limiter_with(clock)
    for least_s in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        limiter.record_response(limiter.acquire(HOST, "api"), 429)
        wait_s = limiter.wait_s(HOST, "api")
        assert least_s <= wait_s <= least_s * 1.25 + 1.0
        clock.now_s += wait_s
    limiter.record_response(limiter.acquire(HOST, "api"), 200)
    clock.now_s += 1.0
    limiter.record_response(limiter.acquire(HOST, "api"), 429)
    assert limiter.wait_s(HOST, "api") < 3.0


def test_throttles_are_no_failures_and_do_not_open_the_breaker(clock: Clock) -> None:
    limiter = limiter_with(clock, failures=2)
    for status, retry_after_s in [(429, None), (421, 1.0), (503, 1.0), (429, None), (500, 2.0)]:
        clock.now_s += 1000
        limiter.record_response(limiter.acquire(HOST, "api"), status, retry_after_s)
    clock.now_s += 1000
    assert limiter.wait_s(HOST, "api") == 0.0


def test_a_crawl_delay_lengthens_every_interval_and_never_shortens_one(clock: Clock) -> None:
    limiter = limiter_with(clock)
    limiter.set_min_interval(HOST, 0.7)
    limiter.acquire(HOST, "media")
    assert limiter.wait_s(HOST, "media") == 0.7
    limiter.record_response(limiter.acquire(HOST, "api"), 200)
    assert limiter.wait_s(HOST, "api") == 1.0


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://konachan.net/post.json", "konachan.net"),
        ("https://KONACHAN.net:443/x", "konachan.net"),
        ("http://127.0.0.1:4650/x", "127.0.0.1:4650"),
        ("http://127.0.0.1/x", "127.0.0.1"),
        ("https://127.0.0.1:80/x", "127.0.0.1:80"),
    ],
)
def test_a_host_is_named_with_its_port_unless_that_is_the_usual(url: str, host: str) -> None:
    assert host_of(url) == host


class World:
    """A board that throttles at random, and crawls of it that are killed and started again."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.site = load_sites()["konachan"]
        self.skew_s = self.chance.uniform(-9e4, 9e4)  # of the board's clock against ours
        self.not_before: list[float] = []  # moments of ours before which nothing may come
        self.sent = self.refused = self.throttled = 0
        self.last_api_s = -math.inf
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self.process = 0  # which one is at work; what belongs to another is dead
        self.limiter = limiter_with(self.clock)

    def run(self, requests: int) -> None:
        self.start_process()
        while self.sent < requests:
            self.clock.now_s, _, event = heapq.heappop(self._events)
            event()

    def later(self, wait_s: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.clock.now_s + wait_s, self._number, event))

    def now(self) -> dt.datetime:
        return EPOCH + dt.timedelta(seconds=self.clock.now_s)

    def start_process(self) -> None:
        """As RateLimitMiddleware begins: refuses, or heeds what is left of shorter waits."""
        self.process += 1
        waits = self.ledger.waits(self.now())
        try:
            check_waits(self.site, waits, self.now())
        except CrawlError:
            # A wait runs from when the answer is in; a Date header knows only whole seconds.
            assert max(self.not_before) + SLOWEST_S + 1 > self.clock.now_s
            self.refused += 1
            self.later(self.chance.choice([1.0, 60.0, 3e3, 1e5, 1e9]), self.start_process)
            return
        self.limiter = limiter_with(self.clock)
        for wait in waits:
            self.limiter.delay(wait.host, wait.left_s(self.now()))
        for kind in ("api", "media", "media", "media"):
            self.later(self.chance.uniform(0, 1), self.worker(kind, self.process))
        self.later(self.chance.uniform(1, 200), self.killer(self.process))

    def killer(self, process: int) -> Callable[[], None]:
        def kill() -> None:
            if process == self.process:
                self.process += 1
                self.later(self.chance.uniform(0, 30), self.start_process)

        return kill

    def worker(self, kind: str, process: int) -> Callable[[], None]:
        def attempt() -> None:
            if process != self.process:
                return
            wait_s = self.limiter.wait_s(HOST, kind)
            if wait_s > 0:
                self.later(min(wait_s, 0.25), attempt)
                return
            permit = self.limiter.acquire(HOST, kind)
            self.check(kind)
            latency_s = self.chance.choice([0.01, 0.2, SLOWEST_S])
            status, values, date, moment = self.answer()

            def come_back() -> None:
                if process != self.process:
                    return  # nobody hears it
                if moment is not None:
                    self.not_before.append(moment)
                retry_after_s = longest_retry_after(values, date=date, now=self.now())
                self.limiter.record_response(permit, status, retry_after_s)
                if retry_after_s is not None:
                    wait = Wait.until(HOST, retry_after_s, self.now())
                    self.ledger.note_wait(wait)
                    if wait.is_long:  # the crawl ends
                        self.process += 1
                        self.later(self.chance.uniform(0, 3), self.start_process)
                        return
                self.later(self.chance.uniform(0, 0.5), attempt)

            self.later(latency_s, come_back)

        return attempt

    def check(self, kind: str) -> None:
        self.sent += 1
        assert all(self.clock.now_s >= moment for moment in self.not_before), (
            "Retry-After was undercut"
        )
        if kind == "api":
            assert self.clock.now_s - self.last_api_s >= 1.0 or self.is_after_a_kill()
            self.last_api_s = self.clock.now_s

    def is_after_a_kill(self) -> bool:
        return self.process > 1

    def answer(self) -> tuple[int, list[str], str | None, float | None]:
        """Returns status, Retry-After headers, Date header, and the moment they mean, of ours."""
        if self.chance.random() < 0.7:
            return 200, [], None, None
        self.throttled += 1
        status = self.chance.choice([429, 421, 503, 502, 301, 404])
        seconds = self.chance.choice([0, 1, 7, 45, 119, 120, 121, 900, 86_400])
        if self.chance.random() < 0.02:
            seconds = 10**9
        way = self.chance.choice(["seconds", "date", "date alone", "past", "garbage", "two"])
        if way == "seconds":
            return status, [str(seconds)], None, self.clock.now_s + seconds
        if way == "two":
            return status, ["1", str(seconds)], None, self.clock.now_s + max(1, seconds)
        if way == "garbage":
            word = self.chance.choice(["soon", "-5", "", "1.5", "Mon, 99 Foo 2026", "१२"])
            return status, [word], None, None
        skew_s = self.skew_s if way == "date" else 0.0  # without Date both clocks must be right
        theirs = self.now() + dt.timedelta(seconds=skew_s)
        if way == "past":
            return status, [http_date(theirs - dt.timedelta(hours=3))], None, None
        wanted = (theirs + dt.timedelta(seconds=seconds)).replace(microsecond=0)
        date = http_date(theirs.replace(microsecond=0)) if way == "date" else None
        left_s = (wanted - theirs).total_seconds()
        return status, [http_date(wanted)], date, self.clock.now_s + left_s


def http_date(moment: dt.datetime) -> str:
    return format_datetime(moment.astimezone(dt.UTC), usegmt=True)


@pytest.mark.parametrize("seed", range(100))
def test_under_throttling_no_request_undercuts_retry_after(seed: int, tmp_path: Path) -> None:
    world = World(seed, tmp_path)
    world.run(requests=150)
    assert world.throttled > 20
    assert world.refused > 0
    assert world.process > 5
