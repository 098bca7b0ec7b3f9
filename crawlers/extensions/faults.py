"""Counts posts that a fault of ours kept from being settled; the run fails for them."""

from scrapy import signals
from scrapy.crawler import Crawler

from crawlers.part import CrawlPart


class Faults(CrawlPart):
    """Counts into the stat omokage/faults what Scrapy only logs."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        crawler.signals.connect(self.item_failed, signal=signals.item_error)
        crawler.signals.connect(self.spider_failed, signal=signals.spider_error)

    def item_failed(self) -> None:
        """Counts a post that never reached the recorder."""
        self._count()

    def spider_failed(self) -> None:
        """Counts a page that could not be read to its end."""
        self._count()

    def _count(self) -> None:
        self.stats.inc_value("omokage/faults")
