"""Downloader middlewares that wait: the rate limit of each host, and retries of failures."""

import asyncio
import datetime as dt
import time

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    ResponseDataLossError,
)
from scrapy.http import Request, Response
from scrapy.robotstxt import RobotParser
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.web.client import ResponseFailed

from crawlers.extensions import CrawlComponent
from crawlers.middlewares import Stopping
from crawlers.rate_limit import (
    MAX_WAIT_S,
    BreakerLimits,
    Permit,
    RateLimiter,
    Wait,
    backoff_s,
    check_waits,
    host_of,
    wait_error,
)
from crawlers.responses import BLOCKED, TRANSIENT, longest_retry_after
from dataset.errors import BoardDownError, CrawlError, OmokageError

TICK_S = 0.25  # how long a stop may go unheard by a request that waits
CONNECTION_ERRORS = (
    CannotResolveHostError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    ResponseDataLossError,
    ConnectError,
    ConnectionLost,
    ResponseFailed,
    OSError,
)


class RateLimitMiddleware(CrawlComponent):
    """Sees every request as the last one and every answer as the first one.

    Raises CrawlError when made if a host of the site sent an earlier crawl a long Retry-After.
    """

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        site, settings = self.spider.site, crawler.settings
        self._limiter = RateLimiter(
            {"api": site.interval_s, "media": site.media_interval_s, "robots": site.interval_s},
            BreakerLimits(
                failures=settings.getint("BREAKER_FAILURES"),
                open_s=settings.getfloat("BREAKER_OPEN_S"),
                openings=settings.getint("BREAKER_OPENINGS"),
            ),
            clock=time.monotonic,
        )
        now = dt.datetime.now(dt.UTC)
        waits = self.spider.ledger.waits(now)
        check_waits(site, waits, now)
        for wait in waits:
            self._limiter.delay(wait.host, wait.left_s(now))
        crawler.signals.connect(self.robots_read, signal=signals.robots_parsed)

    async def process_request(self, request: Request) -> None:
        """Holds a request back until it may go; raises Stopping once the crawl is stopped."""
        host, kind = host_of(request.url), str(request.meta.get("kind", "robots"))
        while True:
            if self._limiter.is_given_up(host) and not self.spider.stopping:
                self.spider.stop(self._down_error(host))
            if self.spider.stopping:
                raise Stopping(f"stopping: {host} was not requested")
            wait_s = self._limiter.wait_s(host, kind)
            if wait_s <= 0:
                break
            await asyncio.sleep(min(wait_s, TICK_S))
        request.meta["permit"] = self._limiter.acquire(host, kind)

    def process_response(self, request: Request, response: Response) -> Response:
        """Learns from an answer; ends the crawl if the host asks for a long wait."""
        permit: Permit | None = request.meta.pop("permit", None)
        if permit is None:
            return response
        wait = self._wait_of(permit.host, response)
        self._limiter.record_response(permit, response.status, wait.retry_after_s if wait else None)
        if wait is not None:
            self._store_wait(wait)
            if wait.is_long and response.status not in BLOCKED:  # these have their own words
                self.spider.stop(wait_error(self.spider.site, wait, dt.datetime.now(dt.UTC)))
                raise Stopping(f"stopping: {permit.host} asks us to wait")
        return response

    def process_exception(self, request: Request, exception: Exception) -> None:
        """Learns that no answer came."""
        permit: Permit | None = request.meta.pop("permit", None)
        if permit is None:
            return
        if isinstance(exception, DownloadCancelledError):  # an answer that was too large
            self._limiter.record_response(permit, 200)
        else:
            self._limiter.record_failure(permit)

    def robots_read(self, robotparser: RobotParser, request: Request) -> None:
        """Heeds the Crawl-delay of a host where it is longer than our own interval."""
        site = self.spider.site
        delay_s = robotparser.crawl_delay(self._crawler.settings["ROBOTSTXT_USER_AGENT"])
        if delay_s is None:
            return
        host = host_of(request.url)
        if delay_s > MAX_WAIT_S:
            self.spider.stop(
                CrawlError(
                    f"{site.name}: the robots.txt of {host} asks for {delay_s:g} s between two "
                    f"requests, more than the {MAX_WAIT_S:g} s that a crawl waits"
                )
            )
        self._limiter.set_min_interval(host, delay_s)

    def _wait_of(self, host: str, response: Response) -> Wait | None:
        if response.status < 300:
            return None  # it has what we requested, and means nothing there
        now = dt.datetime.now(dt.UTC)
        values = [value.decode("latin-1") for value in response.headers.getlist("Retry-After")]
        date = response.headers.get("Date")
        retry_after_s = longest_retry_after(
            values, date=date.decode("latin-1") if date else None, now=now
        )
        return None if retry_after_s is None else Wait.until(host, retry_after_s, now)

    def _store_wait(self, wait: Wait) -> None:
        try:
            self.spider.ledger.note_wait(wait)
        except OmokageError as error:  # the next crawl would not know: end at once
            self.spider.stop(error)

    def _down_error(self, host: str) -> BoardDownError:
        name = self.spider.site.name
        if not self._limiter.has_responded(host):
            return BoardDownError(
                f"{name}: {host} cannot be reached: no request to it has got an answer. Is the "
                "network there? Run again later"
            )
        return BoardDownError(
            f"{name}: {host} is down, and still was after several waits: run again later"
        )


class RetryMiddleware(CrawlComponent):
    """Retries with exponential backoff; RateLimitMiddleware handles Retry-After."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._responded: set[str] = set()  # hosts
        self._first_wait_s = crawler.settings.getfloat("FIRST_WAIT_S")

    async def process_response(self, request: Request, response: Response) -> Request | Response:
        """Retries after a transient status."""
        self._responded.add(host_of(request.url))
        if response.status not in TRANSIENT or not request.meta.get("kind"):
            return response
        return await self._retry(request, f"status {response.status}") or response

    async def process_exception(self, request: Request, exception: Exception) -> Request | None:
        """Retries after a connection error."""
        if not isinstance(exception, CONNECTION_ERRORS) or not request.meta.get("kind"):
            return None
        return await self._retry(request, type(exception).__name__)

    async def _retry(self, request: Request, reason: str) -> Request | None:
        if self.spider.stopping:
            return None
        retry = get_retry_request(
            request,
            spider=self.spider,
            reason=reason,
            # A host that has never answered is not there: say so soon.
            max_retry_times=None if host_of(request.url) in self._responded else 1,
            give_up_log_level="DEBUG",
        )
        if retry is not None:
            times = retry.meta["retry_times"]
            await self.spider.pause(backoff_s(times, first_s=self._first_wait_s))
        return retry
