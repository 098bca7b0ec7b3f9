"""Obeys robots.txt, but for the API paths that the site registry names (and says why)."""

from typing import Self
from urllib.parse import urlsplit

from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.http import Request, Response
from scrapy.robotstxt import RobotParser
from scrapy.spiders import Spider
from twisted.internet.defer import Deferred

from crawlers.answers import PASSING
from crawlers.spiders.board import BoardSpider


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
        """Tells that no address may be asked."""
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
        if response.status not in PASSING:
            await super()._parse_robots(response, netloc, request)
            return
        waiting = self._parsers[netloc]
        assert isinstance(waiting, Deferred)
        self._parsers[netloc] = unknown = UnknownRobots(response.status)
        waiting.callback(unknown)
