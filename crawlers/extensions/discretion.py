"""Keeps the site's credentials out of the log, whoever writes to it."""

import logging

from scrapy import signals
from scrapy.crawler import Crawler

from crawlers.part import CrawlPart
from crawlers.secrets import Secrets, SecretsFilter


class Discretion(CrawlPart):
    """Puts a filter before every handler of the root logger for as long as the crawl runs."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._filter: SecretsFilter | None = None
        # Only by then has Scrapy put its own handler in place, and nothing has been asked.
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
