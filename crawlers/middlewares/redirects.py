"""Follows redirects as Scrapy does, and tells those apart that lead nowhere."""

from scrapy.downloadermiddlewares.redirect import RedirectMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response
from scrapy.spiders import Spider

from crawlers.broken import RedirectLoop
from crawlers.middlewares.hosts import HostNotAllowed


class RedirectsMiddleware(RedirectMiddleware):
    """Scrapy's own middleware, but for what would pass for a fault of ours or for robots.txt."""

    def process_response(
        self, request: Request, response: Response, spider: Spider | None = None
    ) -> Request | Response:
        """Returns the request that a redirect asks for, or the answer if it is none.

        Raises RedirectLoop after REDIRECT_MAX_TIMES, HostNotAllowed for an address that breaks it.
        """
        try:
            followed: Request | Response = super().process_response(request, response)
        except IgnoreRequest as error:
            times = len(request.meta.get("redirect_urls", ())) + 1
            raise RedirectLoop(f"redirected {times} times") from error
        except ValueError as error:
            raise HostNotAllowed(f"a redirect cannot be read: {error}") from error
        return followed
