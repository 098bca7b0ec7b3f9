"""The cursor of a search: the range of post ids seen so far, which grows at both ends.

The newest page opens the range. From then on a crawl first goes up, to what was posted since,
then down, to what is older, so every post is taken exactly once and a stopped crawl resumes. A
`Recheck` goes over the same range again, for what its board has changed since.
"""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from crawlers.post import Post
from dataset.errors import CrawlError

RECHECK_DAYS = 30  # posts of so many days are read again by every crawl,
RECHECK_FRAC = 1 / 30  # and this share of the others per day,
MIN_RECHECKED_POSTS = 5_000  # but at least so many posts in each crawl: 25 pages of Danbooru


@dataclasses.dataclass(frozen=True, slots=True)
class PageRequest:
    """The next page to ask for: the newest posts, or those above or below the id `edge`."""

    side: Literal["newest", "above", "below"]
    edge: int = 0

    def includes(self, post_id: int) -> bool:
        """Tells whether a post belongs to this page."""
        if self.side == "above":
            return post_id > self.edge
        return self.side == "newest" or post_id < self.edge


@dataclasses.dataclass(frozen=True, slots=True)
class Cursor:
    """Ids `low` to `high` have been seen (None: none yet); `bottomed`: there are none below."""

    low: int | None = None
    high: int | None = None
    bottomed: bool = False

    def next_request(self, *, caught_up: bool) -> PageRequest | None:
        """Returns the next page to ask for; None when there is nothing left above and below.

        `caught_up`: this crawl has already found that there is nothing above.
        """
        if self.low is None or self.high is None:
            return None if caught_up else PageRequest("newest")
        if not caught_up:
            return PageRequest("above", self.high)
        return None if self.bottomed else PageRequest("below", self.low)

    def after(self, request: PageRequest, taken: Collection[int]) -> "Cursor":
        """Returns the cursor once the posts `taken` of a page are in the ledger."""
        if not taken:
            return dataclasses.replace(self, bottomed=True) if request.side == "below" else self
        if request.side == "above":
            return dataclasses.replace(self, high=max(taken))
        if request.side == "below":
            return dataclasses.replace(self, low=min(taken))
        return dataclasses.replace(self, low=min(taken), high=max(taken))

    def merged(self, other: "Cursor") -> "Cursor":
        """Returns what both cursors have seen if they meet, else the upper one of them."""
        lower, upper = sorted((self, other), key=lambda one: (one.high or 0, one.low or 0))
        if upper.low is None or lower.high is None or lower.low is None:
            return upper
        if lower.high < upper.low:  # between them lies what neither has seen
            return upper
        lowest = min(lower.low, upper.low)
        bottomed = any(one.bottomed and one.low == lowest for one in (lower, upper))
        return Cursor(lowest, upper.high, bottomed)


@dataclasses.dataclass(frozen=True, slots=True)
class Recheck:
    """The way of one crawl through the ids of a search that were taken, page by page downwards.

    First come all ids above `recent`. Then comes the rolling walk, `pages` pages of the ids from
    `recent` down to `last`: it resumes where the last crawl stopped, goes on at `recent` once it is
    through, and ends at the latest where it began.
    """

    edge: int  # the next page is below it
    last: int
    recent: int
    pages: int
    begun: int  # below it the rolling walk of this crawl begins
    is_walking: bool = False
    has_wrapped: bool = False

    @classmethod
    def begin(
        cls, *, newest: int, last: int, recent: int, mark: int | None, pages: int
    ) -> "Recheck":
        """Returns the way from the newest id; `mark`: where the walk stopped (None: it is new)."""
        if mark is None or not last < mark <= recent:
            mark = recent + 1
        return cls(newest + 1, last, recent, pages, mark)._passing()

    def next_request(self) -> PageRequest | None:
        """Returns the next page to read again; None at the end of the way."""
        if not self.is_walking:
            return PageRequest("below", self.edge) if self.edge > self.last else None
        is_round = self.has_wrapped and self.edge <= self.begun
        return None if is_round or self.pages < 1 else PageRequest("below", self.edge)

    def after(self, bottom: int) -> "Recheck":
        """Returns the way once all ids from `bottom` up to the edge have been read."""
        pages = self.pages - self.is_walking
        return dataclasses.replace(self, edge=bottom, pages=pages)._passing()

    def _passing(self) -> "Recheck":
        """Begins the rolling walk at the end of the recent ids, and goes on at its top."""
        way = self
        if not way.is_walking and way.last < way.edge <= way.recent + 1:
            begun, recent = min(way.begun, way.edge), way.edge - 1  # the last page may reach below
            way = dataclasses.replace(way, is_walking=True, begun=begun, edge=begun, recent=recent)
        if way.is_walking and not way.has_wrapped and way.edge <= way.last:
            way = dataclasses.replace(way, has_wrapped=True, edge=way.recent + 1)
        return way


class PageSizes:
    """The sizes to ask pages with: the full one, or fewer posts where one of them spoils its page.

    It is found by bisection: if a page of n is spoilt, half of it either is, too, or can be read,
    and then the other half is to blame. So each page has half the size of the one before, down to a
    single post, twice, as the halves of odd sizes are rounded up.
    """

    def __init__(self, full: int) -> None:
        self._full = full
        self._halves: list[int] = []

    @property
    def are_halved(self) -> bool:
        """Whether a post that spoils its page is being looked for."""
        return bool(self._halves)

    def halve(self, size: int) -> None:
        """Begins to look for the post that spoils a page of this size."""
        while size > 1:
            size = (size + 1) // 2
            self._halves.append(size)
        self._halves.append(1)

    def take(self) -> int:
        """Returns the size of the next page."""
        return self._halves.pop(0) if self._halves else self._full


def in_order(request: PageRequest, ids: Iterable[int]) -> list[int]:
    """Returns ids in the order to visit: those next to the cursor first."""
    return sorted(ids, reverse=request.side != "above")


def select(request: PageRequest, posts: Sequence[Post]) -> list[Post]:
    """Returns the requested posts of a page, those next to the cursor first.

    Raises CrawlError if the board ignored which posts were requested: words that a board
    does not know are ignored without a sound, and going on would miss posts or never end.
    """
    wanted = {post.post_id: post for post in posts if request.includes(post.post_id)}
    if posts and not wanted:
        raise CrawlError(
            f"the board answered with post {posts[0].post_id:,}, but posts {request.side} "
            f"{request.edge:,} were requested: it ignores the search by id"
        )
    return [wanted[post_id] for post_id in in_order(request, wanted)]


def check_order(request: PageRequest, posts: Sequence[Post]) -> None:
    """Raises CrawlError unless a full page is in the requested order.

    For boards that take a page out of an ordered search: in another order, the rest of the
    search would be skipped.
    """
    ids = [post.post_id for post in posts]
    if ids != sorted(ids, reverse=request.side != "above"):
        way = "ascending" if request.side == "above" else "descending"
        raise CrawlError(
            f"the board did not answer in {way} order of ids ({ids[0]:,}, {ids[1]:,}, …): "
            "leave order: and sort: out of the search words"
        )
