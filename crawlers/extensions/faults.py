"""Counts posts that a fault of ours kept from being settled; the run fails for them."""

from typing import Self

from scrapy import signals
from scrapy.crawler import Crawler


class Faults:
    """Counts into the stat omokage/faults what Scrapy only logs."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        crawler.signals.connect(self.item_failed, signal=signals.item_error)
        crawler.signals.connect(self.spider_failed, signal=signals.spider_error)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Makes the extension."""
        return cls(crawler)

    def item_failed(self) -> None:
        """Counts a post that never reached the recorder."""
        self._count()

    def spider_failed(self) -> None:
        """Counts a page that could not be read to its end."""
        self._count()

    def _count(self) -> None:
        if self._crawler.stats is not None:
            self._crawler.stats.inc_value("omokage/faults")
