"""Asks again after errors that pass (5xx, 429, a broken line), RETRY_TIMES at most."""

import asyncio
import time

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

from crawlers.answers import PASSING
from crawlers.backoff import backoff_s
from crawlers.pace import host_of
from crawlers.part import CrawlPart

TICK_S = 0.25  # how long a stop may go unheard by a request that waits

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


class PatienceMiddleware(CrawlPart):
    """Waits longer with each repetition; what the host itself asks for is the pace's business."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._answered: set[str] = set()  # hosts
        self._first_wait_s = crawler.settings.getfloat("FIRST_WAIT_S")

    async def process_response(self, request: Request, response: Response) -> Request | Response:
        """Asks again after a status that passes."""
        self._answered.add(host_of(request.url))
        if response.status not in PASSING or not request.meta.get("kind"):
            return response
        return await self._again(request, f"status {response.status}") or response

    async def process_exception(self, request: Request, exception: Exception) -> Request | None:
        """Asks again after a line that broke."""
        if not isinstance(exception, BROKEN_LINE) or not request.meta.get("kind"):
            return None
        return await self._again(request, type(exception).__name__)

    async def _again(self, request: Request, reason: str) -> Request | None:
        if self.spider.stopping:
            return None
        again = get_retry_request(
            request,
            spider=self.spider,
            reason=reason,
            # A host that has never answered is not there: say so soon.
            max_retry_times=None if host_of(request.url) in self._answered else 1,
            give_up_log_level="DEBUG",
        )
        if again is not None:
            times = again.meta["retry_times"]
            await self._sleep(backoff_s(times, first_s=self._first_wait_s))
        return again

    async def _sleep(self, seconds: float) -> None:
        """Sleeps, but no longer than until the crawl is stopped."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.spider.stopping:
            await asyncio.sleep(min(left, TICK_S))
