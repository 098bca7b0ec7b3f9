"""Refuses what may not be stored before anything of it is downloaded."""

from crawlers.part import CrawlPart
from crawlers.query import matches
from crawlers.verdict import Verdict
from dataset.policy import drop_reason


class PolicyPipeline(CrawlPart):
    """Applies the policy and checks the search again on our side."""

    def process_item(self, item: Verdict) -> Verdict:
        """Gives a post that may not be stored its reason."""
        spider = self.spider
        excluded = spider.site.excluded_tags
        item.reason = drop_reason(item.post, spider.takedowns, excluded=excluded)
        if item.reason is None and spider.ledger.is_taken_down(item.post.md5):
            item.reason = "takedown"
        if item.reason is None and not matches(item.query, item.post):
            item.reason = "not_asked_for"
        return item
