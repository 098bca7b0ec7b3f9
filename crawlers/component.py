"""What the middlewares, item pipelines and extensions share: the crawl that each is a part of."""

from typing import Self

from scrapy.crawler import Crawler
from scrapy.statscollectors import StatsCollector

from crawlers.spiders import BoardSpider


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
