"""Writes into the ledger what became of each post, and counts it."""

from crawlers.ledger import Ledger
from crawlers.part import CrawlPart
from crawlers.verdict import STOPPING, Verdict
from dataset.errors import OmokageError


class RecorderPipeline(CrawlPart):
    """The end of the pipelines: every post gets its state here."""

    def process_item(self, item: Verdict) -> Verdict:
        """Settles the post, or leaves it pending if its picture could not be fetched."""
        try:
            self._record(self.spider.ledger, item)
        except OmokageError as error:  # the ledger cannot be written: nothing can go on
            self.spider.stop(error)
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
        self.stats.inc_value(f"omokage/{name}")
