"""The boards' dialects: addresses to ask and parsers of the answers, pure functions a family."""

from typing import Protocol

from crawlers.boards import danbooru, gelbooru02, moebooru
from crawlers.cursor import PageRequest
from crawlers.post import Page
from crawlers.sites import Site


class Board(Protocol):
    """What every dialect can do; each module of this folder is one."""

    # Whether a page comes out of a search ordered by id, so that its order can be checked.
    ORDERED_PAGES: bool
    # The search that lists all posts that the board still has, of every rating and state.
    ALL_POSTS: str

    def page_url(self, site: Site, words: str, request: PageRequest, *, limit: int) -> str:
        """Returns the address of a page of at most `limit` posts of the search `words`."""
        ...

    def second_url(self, url: str) -> str:
        """Returns where to ask for a page again whose answer was broken: in another format."""
        ...

    def count_url(self, site: Site, words: str) -> str | None:
        """Returns the address that tells how many posts a search has; None if there is none."""
        ...

    def parse(self, body: bytes, site: Site) -> Page:
        """Reads a page; raises CrawlError if it is not one, BrokenPage for a part of one."""
        ...

    def parse_count(self, body: bytes) -> int | None:
        """Reads the answer of `count_url`; None if the board does not know."""
        ...


BOARDS: dict[str, Board] = {
    "danbooru": danbooru,
    "moebooru": moebooru,
    "gelbooru02": gelbooru02,
}
