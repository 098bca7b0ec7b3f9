"""Which posts of a search have been seen: a window of ids that grows at both ends.

The newest page opens the window. From then on a crawl first goes up, to what was posted since,
then down, to what is older, so every post is seen exactly once and a stopped crawl goes on where
it was.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from crawlers.post import Post
from dataset.errors import CrawlError


@dataclasses.dataclass(frozen=True, slots=True)
class Ask:
    """The next page to ask for: the newest posts, or those above or below the id `edge`."""

    side: Literal["newest", "above", "below"]
    edge: int = 0

    def wants(self, post_id: int) -> bool:
        """Tells whether a post belongs to this page."""
        if self.side == "above":
            return post_id > self.edge
        return self.side == "newest" or post_id < self.edge


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """Ids `low` to `high` have been seen (None: none yet); `bottomed`: there are none below."""

    low: int | None = None
    high: int | None = None
    bottomed: bool = False

    def ask(self, *, caught_up: bool) -> Ask | None:
        """Returns the next page to ask for; None when there is nothing left above and below.

        `caught_up`: this crawl has already found that there is nothing above.
        """
        if self.low is None or self.high is None:
            return None if caught_up else Ask("newest")
        if not caught_up:
            return Ask("above", self.high)
        return None if self.bottomed else Ask("below", self.low)

    def after(self, ask: Ask, taken: Sequence[int]) -> "Window":
        """Returns the window once the posts `taken` of a page are in the ledger."""
        if not taken:
            return dataclasses.replace(self, bottomed=True) if ask.side == "below" else self
        if ask.side == "above":
            return dataclasses.replace(self, high=max(taken))
        if ask.side == "below":
            return dataclasses.replace(self, low=min(taken))
        return dataclasses.replace(self, low=min(taken), high=max(taken))

    def joined(self, other: "Window") -> "Window":
        """Returns what both windows have seen if they meet, else the upper one of them."""
        lower, upper = sorted((self, other), key=lambda window: (window.high or 0, window.low or 0))
        if upper.low is None or lower.high is None or lower.low is None:
            return upper
        if lower.high < upper.low:  # between them lies what neither has seen
            return upper
        lowest = min(lower.low, upper.low)
        bottomed = any(one.bottomed and one.low == lowest for one in (lower, upper))
        return Window(lowest, upper.high, bottomed)


def take(ask: Ask, posts: Sequence[Post]) -> list[Post]:
    """Returns the posts of a page that were asked for, those next to the window first.

    Raises CrawlError if the board did not heed which posts were asked for: words that a board
    does not know are ignored without a sound, and going on would miss posts or never end.
    """
    wanted = {post.post_id: post for post in posts if ask.wants(post.post_id)}
    if posts and not wanted:
        raise CrawlError(
            f"the board answered with post {posts[0].post_id:,}, but posts {ask.side} "
            f"{ask.edge:,} were asked for: it ignores the search by id"
        )
    ordered = sorted(wanted, reverse=ask.side != "above")
    return [wanted[post_id] for post_id in ordered]


def check_order(ask: Ask, posts: Sequence[Post]) -> None:
    """Raises CrawlError unless a full page is in the order that was asked for.

    For boards that take a page out of an ordered search: in another order, the rest of the
    search would be skipped.
    """
    ids = [post.post_id for post in posts]
    if ids != sorted(ids, reverse=ask.side != "above"):
        way = "ascending" if ask.side == "above" else "descending"
        raise CrawlError(
            f"the board did not answer in {way} order of ids ({ids[0]:,}, {ids[1]:,}, …): "
            "leave order: and sort: out of the search words"
        )
