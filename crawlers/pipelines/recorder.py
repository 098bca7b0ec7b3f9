"""Writes into the ledger what became of each post, and counts it."""

from typing import Self

from scrapy.crawler import Crawler

from crawlers.ledger import Ledger
from crawlers.spiders.board import BoardSpider
from crawlers.verdict import STOPPING, Verdict
from dataset.errors import OmokageError


class RecorderPipeline:
    """The end of the pipelines: every post gets its state here."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Makes the pipeline."""
        return cls(crawler)

    def process_item(self, item: Verdict) -> Verdict:
        """Settles the post, or leaves it pending if its picture could not be fetched."""
        spider = self._crawler.spider
        assert isinstance(spider, BoardSpider)
        try:
            self._record(spider.ledger, item)
        except OmokageError as error:  # the ledger cannot be written: nothing can go on
            spider.stop(error)
        return item

    def _record(self, ledger: Ledger, item: Verdict) -> None:
        if item.put_off == STOPPING:
            return  # as it was: pending
        if item.put_off is not None:
            if ledger.postpone(item.post, item.put_off):
                self._count("put_off")
            else:
                item.reason = "unavailable"
                self._count_drop(item.reason)
        elif item.media is not None:
            ledger.keep(item.post, item.media)
            self._count("kept")
        else:
            assert item.reason is not None
            ledger.refuse(item.post, item.reason)
            self._count_drop(item.reason)

    def _count_drop(self, reason: str) -> None:
        self._count(f"drop/{reason}")

    def _count(self, name: str) -> None:
        assert self._crawler.stats is not None
        self._crawler.stats.inc_value(f"omokage/{name}")
