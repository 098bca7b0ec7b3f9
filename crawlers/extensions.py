"""Scrapy extensions and item pipelines.

Credentials out of the log, counters of traffic and errors, progress bar; the policy before the
download, and the record in the ledger after it. And what these share with middlewares: the crawl
that each is a part of.
"""

import contextlib
import logging
from typing import Self

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.http import Request, Response
from scrapy.statscollectors import StatsCollector

from crawlers.ledger import Ledger
from crawlers.post import NOT_ASKED_FOR, STOPPING, Outcome
from crawlers.sites import Secrets
from crawlers.spiders import BoardSpider
from dataset.errors import OmokageError
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


_FORMATTER = logging.Formatter()


class SecretsFilter(logging.Filter):
    """Hides credentials in log records, also in the tracebacks that come with them."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record; lets every one pass."""
        record.msg = self._secrets.hidden(record.getMessage())
        record.args = ()
        if record.exc_info and not record.exc_text:
            record.exc_text = _FORMATTER.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._secrets.hidden(record.exc_text)
        return True


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


class RecorderPipeline(CrawlComponent):
    """The end of the pipelines: every post gets its state here."""

    def process_item(self, item: Outcome) -> Outcome:
        """Settles the post, or leaves it pending if its picture could not be fetched."""
        try:
            self._record(self.spider.ledger, item)
        except OmokageError as error:  # the ledger cannot be written: nothing can go on
            self.spider.stop(error)
        return item

    def _record(self, ledger: Ledger, item: Outcome) -> None:
        if item.deferred == STOPPING:
            return  # as it was: pending
        if item.deferred is not None:
            if ledger.postpone(item.post, item.deferred):
                self._count("put_off")
            else:
                item.reason = "unavailable"
                self._count_drop(item.reason)
        elif item.media is not None:
            ledger.keep(item.post, item.media)
            self._count("kept")
        else:
            assert item.reason is not None
            cause = self.spider.judge.cause(item.reason, item.query)
            ledger.refuse(item.post, item.reason, cause=cause)
            self._count_drop(item.reason)
            if item.reason == NOT_ASKED_FOR:  # by an alias, perhaps, of one of their tags
                shared = self.stats.get_value("omokage/shared_tags", item.post.tags)
                self.stats.set_value("omokage/shared_tags", shared & item.post.tags)

    def _count_drop(self, reason: str) -> None:
        self._count(f"drop/{reason}")

    def _count(self, name: str) -> None:
        self.stats.inc_value(f"omokage/{name}")


class PolicyPipeline(CrawlComponent):
    """Applies the policy and checks the search again on our side."""

    def process_item(self, item: Outcome) -> Outcome:
        """Gives a post that may not be stored its reason."""
        item.reason = self.spider.judge.reason(item.post, item.query)
        return item
