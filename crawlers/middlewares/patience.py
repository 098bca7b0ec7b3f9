"""Asks again after errors that pass (5xx, 429, a broken line), after the wait the board wants."""

import asyncio
import datetime as dt
import random
import time
from typing import Any, Self

from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.retry import get_retry_request
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    ResponseDataLossError,
)
from scrapy.http import Request, Response
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.web.client import ResponseFailed

from crawlers.answers import PASSING, retry_after
from crawlers.spiders.board import BoardSpider

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 120.0  # a board that wants more gets its wish: the request is given up

BROKEN_LINE = (
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


class PatienceMiddleware:
    """Waits, then asks again, RETRY_TIMES at most; a throttled slot waits as a whole."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._answered = False
        self._not_before: dict[str, float] = {}  # slot -> moment of time.monotonic()

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Makes the middleware."""
        return cls(crawler)

    async def process_request(self, request: Request) -> None:
        """Holds a request back while its slot is asked to wait."""
        slot = str(request.meta.get("download_slot", ""))
        await self._sleep(self._not_before.get(slot, 0.0) - time.monotonic())

    async def process_response(self, request: Request, response: Response) -> Request | Response:
        """Asks again after a status that passes."""
        self._answered = True
        if response.status not in PASSING or not request.meta.get("kind"):
            return response
        header = response.headers.get("Retry-After")
        asked = retry_after(header.decode("latin-1") if header else None, dt.datetime.now(dt.UTC))
        again = await self._again(request, f"status {response.status}", asked)
        return again or response

    async def process_exception(self, request: Request, exception: Exception) -> Request | None:
        """Asks again after a line that broke."""
        if not isinstance(exception, BROKEN_LINE) or not request.meta.get("kind"):
            return None
        return await self._again(request, type(exception).__name__, None)

    async def _again(self, request: Request, reason: str, asked_s: float | None) -> Request | None:
        spider: Any = self._crawler.spider
        assert isinstance(spider, BoardSpider)
        if spider.stopping or (asked_s or 0.0) > LONGEST_WAIT_S:
            return None
        again = get_retry_request(
            request,
            spider=spider,
            reason=reason,
            # A board that has never answered is not there: say so soon.
            max_retry_times=None if self._answered else 1,
            give_up_log_level="DEBUG",
        )
        if again is None:
            return None
        wait_s = asked_s if asked_s is not None else backoff_s(again.meta["retry_times"])
        if asked_s is not None:
            slot = str(request.meta.get("download_slot", ""))
            until = time.monotonic() + asked_s
            self._not_before[slot] = max(until, self._not_before.get(slot, 0.0))
        await self._sleep(wait_s)
        return again

    async def _sleep(self, seconds: float) -> None:
        """Sleeps, but no longer than until the crawl is stopped."""
        spider = self._crawler.spider
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if isinstance(spider, BoardSpider) and spider.stopping:
                return
            await asyncio.sleep(min(left, 0.25))


def backoff_s(times: int) -> float:
    """Returns the wait before the `times`-th repetition: doubling, with a jitter of 25 %."""
    return FIRST_WAIT_S * 2.0 ** (times - 1) * random.uniform(0.75, 1.25)
