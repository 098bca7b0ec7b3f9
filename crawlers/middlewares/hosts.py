"""Lets requests out only to the site's own API and media hosts, by https outside loopback."""

from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request

from crawlers.part import CrawlPart
from crawlers.secrets import bare


class HostNotAllowed(IgnoreRequest):
    """The address is not one of the site's hosts, or is not https."""


class HostsMiddleware(CrawlPart):
    """Sees every request before it is sent; redirects and retries are requests again."""

    def process_request(self, request: Request) -> None:
        """Refuses an address that the registry does not allow.

        An API request, which may carry credentials, is for the API's own host only.
        """
        site = self.spider.site
        kind = request.meta.get("kind")
        if not (site.is_api(request.url) if kind == "api" else site.allows(request.url)):
            hosts = [site.api_host] if kind == "api" else site.media_hosts
            raise HostNotAllowed(
                f"{bare(request.url)} is not on the hosts of {site.name}: {', '.join(hosts)}"
            )
