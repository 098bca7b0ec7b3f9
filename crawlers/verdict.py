"""What travels along the item pipelines: a post and what has been decided about it so far."""

import dataclasses

from crawlers.post import Post
from dataset.media import Media

STOPPING = "stopping"  # put off because the crawl is being stopped: the post stays as it was


@dataclasses.dataclass(slots=True)
class Verdict:
    """A post on its way: refused for `reason`, kept as `media`, or put off for `put_off`."""

    post: Post
    query: str  # the search that brought it
    reason: str | None = None
    media: Media | None = None
    put_off: str | None = None  # why the picture could not be fetched this time
    alone: bool = False  # the picture is too large to be fetched beside others
