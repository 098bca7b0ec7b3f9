"""Lets each request out when its host may be asked again, and learns from every answer.

Stands next to the downloader, whose own queues are left empty: what has passed here is sent at
once, so that no wait that a host asks for can be undercut by a request that was queued before.
"""

import asyncio
import datetime as dt
import time

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import DownloadCancelledError
from scrapy.http import Request, Response
from scrapy.robotstxt import RobotParser

from crawlers.answers import BLOCKED, asked_wait
from crawlers.breaker import BreakerLimits
from crawlers.middlewares.stop import Stopping
from crawlers.pace import Pace, Turn, host_of
from crawlers.part import CrawlPart
from crawlers.waits import LONGEST_WAIT_S, Wait, refuse_to_undercut, too_soon
from dataset.errors import CrawlError, OmokageError

TICK_S = 0.25  # how long a stop may go unheard by a request that waits


class PaceMiddleware(CrawlPart):
    """Sees every request as the last one and every answer as the first one.

    Raises CrawlError when it is made if a host of the site asked an earlier crawl for a long wait.
    """

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        site, settings = self.spider.site, crawler.settings
        self._pace = Pace(
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
        refuse_to_undercut(site, waits, now)
        for wait in waits:
            self._pace.hold(wait.host, wait.left_s(now))
        crawler.signals.connect(self.robots_read, signal=signals.robots_parsed)

    async def process_request(self, request: Request) -> None:
        """Holds a request back until it may go; raises Stopping once the crawl is stopped."""
        host, kind = host_of(request.url), str(request.meta.get("kind", "robots"))
        while True:
            if self._pace.is_given_up(host) and not self.spider.stopping:
                self.spider.stop(self._down(host))
            if self.spider.stopping:
                raise Stopping(f"stopping: {host} was not asked")
            wait_s = self._pace.wait_s(host, kind)
            if wait_s <= 0:
                break
            await asyncio.sleep(min(wait_s, TICK_S))
        request.meta["turn"] = self._pace.take(host, kind)

    def process_response(self, request: Request, response: Response) -> Response:
        """Learns from an answer; ends the crawl if the host asks for a long wait."""
        turn: Turn | None = request.meta.pop("turn", None)
        if turn is None:
            return response
        wait = self._wait_of(turn.host, response)
        self._pace.answered(turn, response.status, wait.asked_s if wait else None)
        if wait is not None:
            self._write_down(wait)
            if wait.is_long and response.status not in BLOCKED:  # these have their own words
                self.spider.stop(too_soon(self.spider.site, wait, dt.datetime.now(dt.UTC)))
                raise Stopping(f"stopping: {turn.host} asks us to wait")
        return response

    def process_exception(self, request: Request, exception: Exception) -> None:
        """Learns that no answer came."""
        turn: Turn | None = request.meta.pop("turn", None)
        if turn is None:
            return
        if isinstance(exception, DownloadCancelledError):  # an answer that was too large
            self._pace.answered(turn, 200)
        else:
            self._pace.broke(turn)

    def robots_read(self, robotparser: RobotParser, request: Request) -> None:
        """Heeds the Crawl-delay of a host where it is longer than our own interval."""
        site = self.spider.site
        delay_s = robotparser.crawl_delay(self._crawler.settings["ROBOTSTXT_USER_AGENT"])
        if delay_s is None:
            return
        host = host_of(request.url)
        if delay_s > LONGEST_WAIT_S:
            self.spider.stop(
                CrawlError(
                    f"{site.name}: the robots.txt of {host} asks for {delay_s:g} s between two "
                    f"requests, more than the {LONGEST_WAIT_S:g} s that a crawl waits"
                )
            )
        self._pace.slow(host, delay_s)

    def _wait_of(self, host: str, response: Response) -> Wait | None:
        if response.status < 300:
            return None  # it has what we asked for, and means nothing there
        now = dt.datetime.now(dt.UTC)
        values = [value.decode("latin-1") for value in response.headers.getlist("Retry-After")]
        date = response.headers.get("Date")
        asked_s = asked_wait(values, date=date.decode("latin-1") if date else None, now=now)
        return None if asked_s is None else Wait.asked(host, asked_s, now)

    def _write_down(self, wait: Wait) -> None:
        try:
            self.spider.ledger.note_wait(wait)
        except OmokageError as error:  # the next crawl would not know: end at once
            self.spider.stop(error)

    def _down(self, host: str) -> CrawlError:
        name = self.spider.site.name
        if not self._pace.has_answered(host):
            return CrawlError(
                f"{name}: {host} cannot be reached: no request to it has got an answer. Is the "
                "network there? Run again later"
            )
        return CrawlError(
            f"{name}: {host} is down, and still was after several waits: run again later"
        )
