"""Scrapy extensions: credentials out of the log, counters of traffic and errors, progress bar.

And what they share with middlewares and item pipelines: the crawl that each is a part of.
"""

import contextlib
import logging
from typing import Self

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.http import Request, Response
from scrapy.statscollectors import StatsCollector

from crawlers.post import STOPPING, Outcome
from crawlers.secrets import Secrets, SecretsFilter
from crawlers.spiders import BoardSpider
from dataset.progress import Advance, progress


class CrawlComponent:
    """A part that Scrapy makes from its crawler, with the crawl's spider and stats at hand."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Makes the part; Scrapy calls it."""
        return cls(crawler)

    @property
    def spider(self) -> BoardSpider:
        """The spider of this crawl."""
        spider = self._crawler.spider
        assert isinstance(spider, BoardSpider)
        return spider

    @property
    def stats(self) -> StatsCollector:
        """The counts of this crawl."""
        assert self._crawler.stats is not None
        return self._crawler.stats


class ProgressBar(CrawlComponent):
    """A bar that appears with the first settled post: a crawl with nothing new shows none."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._stack = contextlib.ExitStack()
        self._advance: Advance | None = None
        crawler.signals.connect(self.settled, signal=signals.item_scraped)
        crawler.signals.connect(self.close, signal=signals.spider_closed)

    def settled(self, item: Outcome) -> None:
        """Moves the bar by one post."""
        if item.deferred == STOPPING:
            return
        if self._advance is None:
            bar = progress(f"crawl {self.spider.site.name}", self.spider.expected, unit="posts")
            self._advance = self._stack.enter_context(bar)
        self._advance(1)

    def close(self) -> None:
        """Ends the bar."""
        self._stack.close()


class RedactionExtension(CrawlComponent):
    """Puts a filter before every handler of the root logger for as long as the crawl runs."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._filter: SecretsFilter | None = None
        # Only by then has Scrapy put its own handler in place, and no request has been sent.
        crawler.signals.connect(self.begin, signal=signals.spider_opened)
        crawler.signals.connect(self.end, signal=signals.engine_stopped)

    def begin(self) -> None:
        """Begins to hide."""
        self._filter = SecretsFilter(Secrets(self.spider.site))
        for handler in logging.getLogger().handlers:
            handler.addFilter(self._filter)

    def end(self) -> None:
        """Takes the filter away again."""
        if self._filter is not None:
            for handler in logging.getLogger().handlers:
                handler.removeFilter(self._filter)


class ErrorCounter(CrawlComponent):
    """Counts into the stat omokage/faults what Scrapy only logs."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        # A post that never reached the recorder, and a page that could not be read to its end.
        crawler.signals.connect(self.failed, signal=signals.item_error)
        crawler.signals.connect(self.failed, signal=signals.spider_error)

    def failed(self) -> None:
        """Counts one error."""
        self.stats.inc_value("omokage/faults")


class TrafficCounter(CrawlComponent):
    """Counts into the stats omokage/api_requests, omokage/media_requests and omokage/bytes."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        crawler.signals.connect(self.sent, signal=signals.request_reached_downloader)
        crawler.signals.connect(self.came, signal=signals.response_downloaded)

    def sent(self, request: Request) -> None:
        """Counts a request; those for robots.txt have no kind and do not count."""
        kind = request.meta.get("kind")
        if kind is not None:
            self.stats.inc_value(f"omokage/{kind}_requests")

    def came(self, response: Response, request: Request) -> None:
        """Counts the bytes of a picture."""
        if request.meta.get("kind") == "media":
            self.stats.inc_value("omokage/bytes", len(response.body))
