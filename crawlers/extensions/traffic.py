"""Counts the requests that really went out, and the bytes of pictures that came in."""

from typing import Self

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.http import Request, Response


class Traffic:
    """Counts into the stats omokage/api_requests, omokage/media_requests and omokage/bytes."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        crawler.signals.connect(self.sent, signal=signals.request_reached_downloader)
        crawler.signals.connect(self.came, signal=signals.response_downloaded)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Makes the extension."""
        return cls(crawler)

    def sent(self, request: Request) -> None:
        """Counts a request; those for robots.txt have no kind and do not count."""
        kind = request.meta.get("kind")
        if kind is not None and self._crawler.stats is not None:
            self._crawler.stats.inc_value(f"omokage/{kind}_requests")

    def came(self, response: Response, request: Request) -> None:
        """Counts the bytes of a picture."""
        if request.meta.get("kind") == "media" and self._crawler.stats is not None:
            self._crawler.stats.inc_value("omokage/bytes", len(response.body))
