"""Lets requests out only to the site's own API and media hosts, by https outside loopback."""

from typing import Self

from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request

from crawlers.spiders.board import BoardSpider


class HostNotAllowed(IgnoreRequest):
    """The address is not one of the site's hosts, or is not https."""


class HostsMiddleware:
    """Sees every request before it is sent; redirects and retries are requests again."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Makes the middleware."""
        return cls(crawler)

    def process_request(self, request: Request) -> None:
        """Refuses an address that the registry does not allow."""
        spider = self._crawler.spider
        assert isinstance(spider, BoardSpider)
        if not spider.site.allows(request.url):
            raise HostNotAllowed(
                f"{request.url} is not on the hosts of {spider.site.name}: "
                f"{', '.join(spider.site.media_hosts)}"
            )
