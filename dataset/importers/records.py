"""What every reader yields: entries and faults, each with its place in the user's files."""

import dataclasses
import datetime as dt
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

TAG_KINDS = ("general", "character", "copyright", "artist", "meta")
RATINGS = ("general", "sensitive", "questionable", "explicit")

# "s" is not among them: what it means depends on who wrote it, and when.
_RATING_WORDS = {
    **{word: word for word in RATINGS},
    "safe": "general",
    "g": "general",
    "q": "questionable",
    "e": "explicit",
}
_ESCAPED = re.compile(r"\\([()\[\]{}])")
_SHOWN_CHARACTERS = 60


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: a file, and a line or another mark in it ("": the whole file)."""

    file: str
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.file}, {self.mark}" if self.mark else self.file


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """A record that cannot be used: its place, the field at fault ("": all of it), and why."""

    place: Place
    field: str
    text: str

    def __str__(self) -> str:
        return (
            f"{self.place}: {self.field} {self.text}"
            if self.field
            else f"{self.place}: {self.text}"
        )

    def as_json(self) -> dict[str, str]:
        """Returns the fault as JSON values."""
        return {
            "file": self.place.file,
            "place": self.place.mark,
            "field": self.field,
            "fault": self.text,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One picture and what its set says of it; what is not said is None.

    file: its name in the set's files, None if the picture is not there; rating: spelt out (see
    RATINGS); md5: that of the original, which the picture may be a smaller copy of; times are UTC.
    """

    place: Place
    file: str | None
    tags: Mapping[str, tuple[str, ...]]
    rating: str | None = None
    post_id: int | None = None
    md5: str | None = None
    ext: str | None = None
    source: str | None = None
    score: int | None = None
    created_at: dt.datetime | None = None
    updated_at: dt.datetime | None = None
    deleted: bool = False
    banned: bool = False
    pending: bool = False
    flagged: bool = False


Read = Entry | Fault


class BadField(Exception):
    """A field that cannot be read; a reader makes a Fault of it, with its place."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field} {text}")
        self.field = field
        self.text = text

    def at(self, place: Place) -> Fault:
        """Returns the fault of the record at `place`."""
        return Fault(place, self.field, self.text)


def rating_of(word: str, *, field: str, s_means: str = "sensitive") -> str | None:
    """Returns the rating that a word or letter stands for, None for an empty one.

    s_means: what the letter s stands for. Raises BadField for a word that is none.
    """
    plain = word.strip().lower()
    if not plain:
        return None
    found = s_means if plain == "s" else _RATING_WORDS.get(plain)
    if found is None:
        raise BadField(field, f"is {shown(word)}; one of {', '.join(RATINGS)} wanted")
    return found


@functools.lru_cache(maxsize=100_000)  # a dump has millions of tags, most of them often
def tag_of(text: str) -> str:
    """Returns a tag as it is written everywhere here: small letters, `_` for blanks."""
    return "_".join(_ESCAPED.sub(r"\1", whole(text)).lower().split())


def split_tags(text: str) -> Iterator[str]:
    """Yields the tags of a text: parted by line ends, commas or semicolons, else by blanks."""
    parts = re.split(r"[\n,;]", text) if re.search(r"[\n,;]", text.strip()) else text.split()
    yield from filter(None, map(tag_of, parts))


def by_kind(tags: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Returns the tags of each kind, sorted and without doubles; absent kinds are empty."""
    return {kind: tuple(sorted(set(tags.get(kind, ())))) for kind in TAG_KINDS}


def whole(text: str) -> str:
    """Returns a text without half surrogate pairs, which neither SQLite nor Parquet can hold."""
    return text.encode("utf-8", "replace").decode()


def shown(value: Any) -> str:
    """Returns a value as it is shown in a fault, cut short where it is long."""
    try:
        text = f'"{whole(value)}"' if isinstance(value, str) else repr(value)
    except (RecursionError, ValueError):  # nested beyond measure, or a number of 5,000 digits
        return f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
