"""Counts the requests that really went out, and the bytes of pictures that came in."""

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.http import Request, Response

from crawlers.part import CrawlPart


class Traffic(CrawlPart):
    """Counts into the stats omokage/api_requests, omokage/media_requests and omokage/bytes."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        crawler.signals.connect(self.sent, signal=signals.request_reached_downloader)
        crawler.signals.connect(self.came, signal=signals.response_downloaded)

    def sent(self, request: Request) -> None:
        """Counts a request; those for robots.txt have no kind and do not count."""
        kind = request.meta.get("kind")
        if kind is not None:
            self.stats.inc_value(f"omokage/{kind}_requests")

    def came(self, response: Response, request: Request) -> None:
        """Counts the bytes of a picture."""
        if request.meta.get("kind") == "media":
            self.stats.inc_value("omokage/bytes", len(response.body))
