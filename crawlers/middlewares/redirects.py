"""Follows redirects as Scrapy does; one that cannot be read leads nowhere that is allowed."""

from scrapy.downloadermiddlewares.redirect import RedirectMiddleware
from scrapy.http import Request, Response
from scrapy.spiders import Spider

from crawlers.middlewares.hosts import HostNotAllowed


class RedirectsMiddleware(RedirectMiddleware):
    """Scrapy's own middleware, but for addresses that break it: the board's fault, not ours."""

    def process_response(
        self, request: Request, response: Response, spider: Spider | None = None
    ) -> Request | Response:
        """Returns the request that a redirect asks for, or the answer if it is none."""
        try:
            followed: Request | Response = super().process_response(request, response)
        except ValueError as error:
            raise HostNotAllowed(f"a redirect cannot be read: {error}") from error
        return followed
