"""The spider of the Moebooru family of boards."""

from crawlers.spiders.board import BoardSpider


class MoebooruSpider(BoardSpider):
    """Crawls a site of the Moebooru family: scrapy crawl moebooru -a site=…"""

    name = "moebooru"
    family = "moebooru"
