"""Stops the whole site at once when it says no (401, 403), and lets nothing out once stopping."""

from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response

from crawlers.answers import BLOCKED, refusal
from crawlers.part import CrawlPart
from crawlers.secrets import bare


class Stopping(IgnoreRequest):
    """The crawl is being stopped: the request was not sent and its post stays pending."""


class StopMiddleware(CrawlPart):
    """First to see a request, last to see an answer."""

    def process_request(self, request: Request) -> None:
        """Holds back every request of a crawl that is being stopped."""
        if self.spider.stopping:
            raise Stopping(f"stopping: {bare(request.url)} was not asked")

    def process_response(self, request: Request, response: Response) -> Response:
        """Stops the crawl at a 401 or 403 from the API or the media host."""
        if response.status in BLOCKED and request.meta.get("kind"):
            shown = str(request.meta.get("shown_url", request.url))
            self.spider.stop(
                refusal(
                    self.spider.site, shown, status=response.status, body=response.body[:10_000]
                )
            )
            raise Stopping(f"stopping: {response.status}")
        return response
