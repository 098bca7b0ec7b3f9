"""Follows redirects; one too many is a broken answer."""

from scrapy.downloadermiddlewares.redirect import RedirectMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response
from scrapy.spiders import Spider

from crawlers.broken import RedirectLoop


class RedirectsMiddleware(RedirectMiddleware):
    """Scrapy's own middleware, whose error could not be told from that of robots.txt."""

    def process_response(
        self, request: Request, response: Response, spider: Spider | None = None
    ) -> Request | Response:
        """Raises RedirectLoop after REDIRECT_MAX_TIMES."""
        try:
            followed: Request | Response = super().process_response(request, response)
        except IgnoreRequest as error:
            times = len(request.meta.get("redirect_urls", ())) + 1
            raise RedirectLoop(f"redirected {times} times") from error
        return followed
