"""The item pipelines before and after the download: the policy, and the record in the ledger."""

from crawlers.extensions import CrawlComponent
from crawlers.ledger import Ledger
from crawlers.post import NOT_ASKED_FOR, STOPPING, Outcome
from dataset.errors import OmokageError


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
