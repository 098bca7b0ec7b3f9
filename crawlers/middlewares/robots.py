"""Obeys robots.txt, but for the API paths that the site registry names (and says why)."""

from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.http import Request
from scrapy.spiders import Spider

from crawlers.spiders.board import BoardSpider


class RobotsMiddleware(RobotsTxtMiddleware):
    """Scrapy's own middleware with the registry's exemptions."""

    async def process_request(self, request: Request, spider: Spider | None = None) -> None:
        """Raises IgnoreRequest for an address that robots.txt disallows."""
        crawling = self.crawler.spider
        assert isinstance(crawling, BoardSpider)
        if crawling.site.is_exempt_from_robots(request.url):
            await self.robot_parser(request)  # for its Crawl-delay, which holds for the API too
            return
        await super().process_request(request)
