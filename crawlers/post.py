"""A post in the same shape for every board, its outcome, and the quarantine of bad records."""

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from dataset.media import Media
from dataset.store import Store

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


class BadRecord(NamedTuple):
    """A record of a board that cannot be used: its id (None: unknown), why, and its text."""

    post_id: int | None
    reason: str
    raw: str


class Page(NamedTuple):
    """What an answer of a board holds: its posts, and the records that cannot be used."""

    posts: list[Post]
    bad: list[BadRecord]

    @property
    def ids(self) -> set[int]:
        """The ids of all records that have one."""
        bad = {record.post_id for record in self.bad if record.post_id is not None}
        return bad.union(post.post_id for post in self.posts)

    @property
    def size(self) -> int:
        """The number of all records."""
        return len(self.posts) + len(self.bad)

    def among(self, ids: Collection[int]) -> "Page":
        """Returns the records with these ids, and the bad ones without any."""
        wanted = {None, *ids}
        return Page(
            [post for post in self.posts if post.post_id in wanted],
            [record for record in self.bad if record.post_id in wanted],
        )


_FIELDS = tuple(field.name for field in dataclasses.fields(Post))


def same_content(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tells whether two records of a post differ in nothing that a decision rests on."""
    passing = {"score", "fetched_at", "updated_at"}
    return all(one[key] == other.get(key) for key in one if key not in passing)


NOT_ASKED_FOR = "not_asked_for"  # the reason of a post that `matches` not
_METATAG = re.compile(r"-?[a-z_]{2,}:\S+")


def is_checked(word: str) -> bool:
    """Tells whether `matches` looks for a word of a search: only if it is a plain tag."""
    return not (_METATAG.fullmatch(word) or word.startswith("~") or "*" in word)


def matches(words: str, post: Post) -> bool:
    """Tells whether a post has the plain tags of a search, and none of its `-tags`.

    Metatags (`id:`, `rating:` …), alternatives (`~tag`) and patterns (`tag*`) are the board's own
    business; rating and state are checked by the policy anyway.
    """
    tags = post.tags
    for word in words.lower().split():
        if not is_checked(word):
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


QUARANTINE = "quarantine.jsonl"
OLD_QUARANTINE = "quarantine.old.jsonl"
MAX_QUARANTINE_BYTES = 10_000_000  # of each of both files
MAX_RAW = 4_000  # letters of a record that are kept; a post has some 1,500 to 3,000
MAX_REASON = 300


class Quarantine:
    """The bad records of a board in `quarantine.jsonl` of a home, a JSON line each.

    A full file becomes the old one, in place of the one before. hidden: takes credentials out.
    """

    def __init__(self, store: Store, board: str, hidden: Callable[[str], str]) -> None:
        self._folder = store.state
        self._board = board
        self._hidden = hidden
        self._known: set[int] | None = None  # hashes
        self._torn = False  # the file ends within a line: the disk was full

    def add(self, records: Iterable[BadRecord], *, moment: dt.datetime) -> int:
        """Writes the records that are not in the file yet, by id or text; returns how many."""
        lines = {}
        for record in records:
            line = {
                "board": self._board,
                "post_id": record.post_id,
                "reason": self._hidden(record.reason)[:MAX_REASON],
                "raw": self._hidden(record.raw)[:MAX_RAW],
                "met_at": moment.isoformat(),
            }
            lines[_key(line)] = line
        if not lines:
            return 0
        if self._known is None:
            self._known = set(self._read())
        new = {key: line for key, line in lines.items() if key not in self._known}
        self._known |= new.keys()
        content = "".join(f"{json.dumps(line)}\n" for line in new.values()).encode()
        if new:
            content, self._torn = (b"\n" if self._torn else b"") + content, False
            path = self._folder.local(QUARANTINE)
            if self._folder.exists(QUARANTINE) and (
                path.stat().st_size + len(content) > MAX_QUARANTINE_BYTES
            ):
                path.replace(self._folder.local(OLD_QUARANTINE))
            self._folder.append_bytes(QUARANTINE, content)
        return len(new)

    def _read(self) -> Iterator[int]:
        if not self._folder.exists(QUARANTINE):
            return
        content = self._folder.read_bytes(QUARANTINE)
        self._torn = not content.endswith(b"\n")
        for text in content.splitlines():
            try:
                line = json.loads(text)
                if line["board"] == self._board:
                    yield _key(line)
            except (ValueError, KeyError, TypeError):  # cut by a kill, or edited by a person
                continue


def _key(line: dict[str, Any]) -> int:
    number = line["post_id"]
    return hash((number, line["raw"] if number is None else line["reason"]))
