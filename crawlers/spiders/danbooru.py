"""The spider of the Danbooru family of boards."""

from crawlers.spiders.board import BoardSpider


class DanbooruSpider(BoardSpider):
    """Crawls a site of the Danbooru family: scrapy crawl danbooru -a site=…"""

    name = "danbooru"
    family = "danbooru"
