"""The item pipelines before and after the download: the policy, and the record in the ledger."""

from crawlers.component import CrawlComponent
from crawlers.ledger import Ledger
from crawlers.post import STOPPING, Outcome, matches
from dataset.errors import OmokageError
from dataset.policy import drop_reason


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
            ledger.refuse(item.post, item.reason)
            self._count_drop(item.reason)

    def _count_drop(self, reason: str) -> None:
        self._count(f"drop/{reason}")

    def _count(self, name: str) -> None:
        self.stats.inc_value(f"omokage/{name}")


class PolicyPipeline(CrawlComponent):
    """Applies the policy and checks the search again on our side."""

    def process_item(self, item: Outcome) -> Outcome:
        """Gives a post that may not be stored its reason."""
        spider = self.spider
        excluded = spider.site.excluded_tags
        item.reason = drop_reason(item.post, spider.takedowns, excluded=excluded)
        if item.reason is None and spider.ledger.is_taken_down(item.post.md5):
            item.reason = "takedown"
        if item.reason is None and not matches(item.query, item.post):
            item.reason = "not_asked_for"
        return item
