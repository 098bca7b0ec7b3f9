"""Downloader middlewares: which requests may go out, and which responses can be used.

And the resolver of host names, so that no board leads a request to an address inside.
"""

import ipaddress
import struct
import urllib.request
import zlib
from collections.abc import Sequence
from typing import Self
from urllib.parse import urlsplit

from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.httpcompression import HttpCompressionMiddleware
from scrapy.downloadermiddlewares.redirect import RedirectMiddleware
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response
from scrapy.resolver import CachingThreadedResolver
from scrapy.robotstxt import RobotParser
from scrapy.spiders import Spider
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError

from crawlers.extensions import CrawlComponent
from crawlers.responses import (
    BLOCKED,
    TRANSIENT,
    RedirectLoop,
    TooLarge,
    UnreadableEncoding,
    refusal,
)
from crawlers.sites import is_loopback
from crawlers.spiders import BoardSpider
from dataset.errors import bare

ENCODINGS = ("gzip", "deflate")
_UNDONE = {*ENCODINGS, "x-gzip", "identity", ""}
_BROKEN = (OSError, EOFError, struct.error, zlib.error)  # what the decoders say of broken data


class RobotsUnknownError(OSError):
    """The robots.txt cannot be read just now: nobody knows what it would allow."""


class UnknownRobots(RobotParser):
    """Stands for a robots.txt that could not be read; allows nothing."""

    def __init__(self, status: int) -> None:
        self.status = status

    @classmethod
    def from_crawler(cls, crawler: Crawler, robotstxt_body: bytes) -> Self:
        """Makes it whatever the text is: an error page says nothing of what is allowed."""
        return cls(0)

    def allowed(self, url: str | bytes, user_agent: str | bytes) -> bool:
        """Fails if no address may be requested."""
        return False


class RobotsMiddleware(RobotsTxtMiddleware):
    """Scrapy's own middleware with the registry's exemptions.

    And a robots.txt of a host in trouble allows nothing until it can be read (RFC 9309, 2.3.1.4).
    """

    async def process_request(self, request: Request, spider: Spider | None = None) -> None:
        """Raises IgnoreRequest for an address that robots.txt disallows."""
        if request.meta.get("dont_obey_robotstxt"):  # it is the request for robots.txt itself
            return
        crawling = self.crawler.spider
        assert isinstance(crawling, BoardSpider)
        # For an exempt path too: its Crawl-delay holds for the API as well.
        parser = await self.robot_parser(request)
        if crawling.site.is_exempt_from_robots(request.url):
            return
        if isinstance(parser, UnknownRobots):
            netloc = urlsplit(request.url).netloc
            if self._parsers.get(netloc) is parser:  # the next request asks anew
                del self._parsers[netloc]
            raise RobotsUnknownError(f"robots.txt of {netloc} answers {parser.status}")
        await super().process_request(request)

    async def _parse_robots(self, response: Response, netloc: str, request: Request) -> None:
        if response.status not in TRANSIENT:
            await super()._parse_robots(response, netloc, request)
            return
        waiting = self._parsers[netloc]
        assert isinstance(waiting, Deferred)
        self._parsers[netloc] = unknown = UnknownRobots(response.status)
        waiting.callback(unknown)


class Stopping(IgnoreRequest):
    """The crawl is being stopped: the request was not sent and its post stays pending."""


class StopMiddleware(CrawlComponent):
    """First to see a request, last to see an answer."""

    def process_request(self, request: Request) -> None:
        """Holds back every request of a crawl that is being stopped."""
        if self.spider.stopping:
            raise Stopping(f"stopping: {bare(request.url)} was not requested")

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


class HostNotAllowed(IgnoreRequest):
    """The address is not one of the site's hosts, or is not https."""


class HostsMiddleware(CrawlComponent):
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


class EncodingMiddleware(HttpCompressionMiddleware):
    """Scrapy's own middleware, whose errors would else pass for faults of ours."""

    def process_request(self, request: Request, spider: Spider | None = None) -> None:
        """Says which encodings we take."""
        request.headers.setdefault("Accept-Encoding", ", ".join(ENCODINGS))

    def process_response(
        self, request: Request, response: Response, spider: Spider | None = None
    ) -> Request | Response:
        """Raises TooLarge or UnreadableEncoding."""
        said = b",".join(response.headers.getlist("Content-Encoding")).decode("latin-1")
        if not {word.strip().lower() for word in said.split(",")} <= _UNDONE:
            raise UnreadableEncoding(f"the answer is encoded as {said}, which was not requested")
        try:
            decoded: Request | Response = super().process_response(request, response)
        except IgnoreRequest as error:  # beyond DOWNLOAD_MAXSIZE
            raise TooLarge(f"{len(response.body):,} bytes grow too large when decoded") from error
        except _BROKEN as error:
            raise UnreadableEncoding(f"the {said} of the answer is broken: {error}") from error
        return decoded


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


class PublicResolver(CachingThreadedResolver):
    """Scrapy's own resolver, which also sees addresses written as such, with a gate behind it.

    A name of this machine stands for this machine only, every other name for a public address. The
    user's own proxies may lie where they like.
    """

    def __init__(self, reactor: ReactorBase, cache_size: int, timeout: float) -> None:
        super().__init__(reactor, cache_size, timeout)
        self._proxies = _proxy_hosts()

    def getHostByName(  # noqa: N802 - Twisted's name
        self, name: str, timeout: Sequence[int] = ()
    ) -> "Deferred[str]":
        """Returns the address of a name; DNSLookupError where it may not be connected to."""
        found: Deferred[str] = super().getHostByName(name, timeout)
        return found if name in self._proxies else found.addCallback(self._checked, name)

    @staticmethod
    def _checked(address: str, name: str) -> str:
        if not may_stand_for(name, address):
            raise DNSLookupError(f"{name} stands for {address}, which is no public address")
        return address


def may_stand_for(name: str, address: str) -> bool:
    """Tells whether a host name may be connected to at this address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if is_loopback(name):
        return found.is_loopback
    # 224.0.0.0/4 counts as global for Python
    return found.is_global and not found.is_multicast


def _proxy_hosts() -> frozenset[str]:
    urls = (url if "//" in url else f"//{url}" for url in urllib.request.getproxies().values())
    return frozenset(host for url in urls if (host := urlsplit(url).hostname))
