"""The spider of the Gelbooru family of boards."""

from crawlers.spiders.board import BoardSpider


class GelbooruSpider(BoardSpider):
    """Crawls a site of the Gelbooru family: scrapy crawl gelbooru02 -a site=…"""

    name = "gelbooru02"
    family = "gelbooru02"
