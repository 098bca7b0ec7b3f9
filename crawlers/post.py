"""A post in the same shape for every board, whether a search matches it, and its outcome."""

import dataclasses
import datetime as dt
import re
from typing import Any

from dataset.media import Media

TAG_KINDS = ("general", "character", "copyright", "artist", "meta")
_TAG_FIELDS = tuple(f"tags_{kind}" for kind in TAG_KINDS)
_TIMES = ("created_at", "updated_at", "fetched_at")


@dataclasses.dataclass(frozen=True, slots=True)
class Post:
    """One record of a board; times are UTC, sizes pixels, `rating` is spelt out.

    `rating`: general, sensitive, questionable or explicit. `md5` and `file_url` are None where the
    board withholds the picture.
    """

    board: str
    post_id: int
    md5: str | None
    ext: str | None
    width: int | None
    height: int | None
    rating: str
    tags_general: tuple[str, ...]
    tags_character: tuple[str, ...]
    tags_copyright: tuple[str, ...]
    tags_artist: tuple[str, ...]
    tags_meta: tuple[str, ...]
    source: str | None
    score: int | None
    created_at: dt.datetime | None
    updated_at: dt.datetime | None
    fetched_at: dt.datetime
    file_url: str | None
    deleted: bool = False
    banned: bool = False
    pending: bool = False
    flagged: bool = False
    cropped: bool = False  # its picture is a face already, as the one who imported it said

    @property
    def tags(self) -> frozenset[str]:
        """All tags of all kinds."""
        return frozenset().union(*(getattr(self, name) for name in _TAG_FIELDS))

    def to_record(self) -> dict[str, Any]:
        """Returns the post as JSON values; `from_record` is its inverse."""
        # Not `asdict`, which copies every tag: that was a twentieth of a whole crawl's time.
        record = {name: getattr(self, name) for name in _FIELDS}
        for name in _TAG_FIELDS:
            record[name] = list(record[name])
        for name in _TIMES:
            record[name] = record[name].isoformat() if record[name] else None
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Post":
        """Reads what `to_record` gave."""
        values = dict(record)
        for name in _TAG_FIELDS:
            values[name] = tuple(values[name])
        for name in _TIMES:
            values[name] = dt.datetime.fromisoformat(values[name]) if values[name] else None
        return cls(**values)


_FIELDS = tuple(field.name for field in dataclasses.fields(Post))


def same_content(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tells whether two records of a post differ in nothing that a decision rests on."""
    passing = {"score", "fetched_at", "updated_at"}
    return all(one[key] == other.get(key) for key in one if key not in passing)


_METATAG = re.compile(r"-?[a-z_]{2,}:\S+")


def matches(words: str, post: Post) -> bool:
    """Tells whether a post has the plain tags of a search, and none of its `-tags`.

    Metatags (`id:`, `rating:` …), alternatives (`~tag`) and patterns (`tag*`) are the board's own
    business; rating and state are checked by the policy anyway.
    """
    tags = post.tags
    for word in words.lower().split():
        if _METATAG.fullmatch(word) or word.startswith("~") or "*" in word:
            continue
        negated = word.startswith("-") and len(word) > 1
        if negated == (word.removeprefix("-") in tags if negated else word in tags):
            return False
    return True


STOPPING = "stopping"  # deferred because the crawl is being stopped: the post stays as it was


@dataclasses.dataclass(slots=True)
class Outcome:
    """A post on its way: refused for `reason`, kept as `media`, or `deferred` (why)."""

    post: Post
    query: str  # the search that brought it
    reason: str | None = None
    media: Media | None = None
    deferred: str | None = None  # why the picture could not be fetched this time
    is_large: bool = False  # the picture is too large to be fetched beside others
