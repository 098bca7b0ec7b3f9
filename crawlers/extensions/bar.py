"""Shows how far the crawl is."""

import contextlib

from scrapy import signals
from scrapy.crawler import Crawler

from crawlers.part import CrawlPart
from crawlers.verdict import STOPPING, Verdict
from dataset.progress import Advance, progress


class ProgressBar(CrawlPart):
    """A bar that appears with the first settled post: a crawl with nothing new shows none."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._stack = contextlib.ExitStack()
        self._advance: Advance | None = None
        crawler.signals.connect(self.settled, signal=signals.item_scraped)
        crawler.signals.connect(self.close, signal=signals.spider_closed)

    def settled(self, item: Verdict) -> None:
        """Moves the bar by one post."""
        if item.put_off == STOPPING:
            return
        if self._advance is None:
            bar = progress(f"crawl {self.spider.site.name}", self.spider.expected, unit="posts")
            self._advance = self._stack.enter_context(bar)
        self._advance(1)

    def close(self) -> None:
        """Ends the bar."""
        self._stack.close()
