"""Entries and faults that every reader yields, and the typed fields of a record."""

import dataclasses
import datetime as dt
import functools
import html
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from dataset.policy import EXCLUDED_TAGS
from dataset.store import Store

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
# Tags that are a rating: of taggers that write it among the tags, and of sites that have no other.
RATING_TAGS = {
    **{word: word for word in RATINGS[1:]},
    **{f"rating_{word}": rating for word, rating in _RATING_WORDS.items()},
    "suggestive": "questionable",
    **dict.fromkeys(("r-18", "r-18g", "r18", "r18g", "nsfw"), "explicit"),
}
# The namespaces of tags, as Hydrus and Grabber write them.
NAMESPACES = {
    **{kind: kind for kind in TAG_KINDS},
    "creator": "artist",
    "series": "copyright",
}
_ESCAPED = re.compile(r"\\([()\[\]{}])")
_SHOWN_CHARACTERS = 60
SHOWN_FAULTS = 10


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
    RATINGS); md5, width and height (pixels): those of the original, which the picture may be a
    smaller copy of; times are UTC.
    """

    place: Place
    file: str | None
    tags: Mapping[str, tuple[str, ...]]
    rating: str | None = None
    post_id: int | None = None
    md5: str | None = None
    ext: str | None = None
    width: int | None = None
    height: int | None = None
    source: str | None = None
    score: int | None = None
    created_at: dt.datetime | None = None
    updated_at: dt.datetime | None = None
    deleted: bool = False
    banned: bool = False
    pending: bool = False
    flagged: bool = False


class FaultLog:
    """The faults of an import: how many, the first few, and all of them in a temporary `file`."""

    def __init__(self, file: IO[bytes]) -> None:
        self.count = 0
        self.shown: list[str] = []
        self._file = file

    def add(self, fault: Fault) -> None:
        """Adds a fault."""
        self.count += 1
        if len(self.shown) < SHOWN_FAULTS:
            self.shown.append(str(fault))
        self._file.write(json.dumps(fault.as_json(), ensure_ascii=True).encode() + b"\n")

    def write(self, store: Store, path: str) -> None:
        """Writes all faults, a JSON line each; removes the list of an earlier import if none."""
        if not self.count:
            store.remove(path)
            return
        self._file.seek(0)
        with store.writing(path) as target:
            shutil.copyfileobj(self._file, target)


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
    found = s_means if plain == "s" else _RATING_WORDS.get(plain) or RATING_TAGS.get(plain)
    if found is None:
        raise BadField(field, f"is {shown(word)}; one of {', '.join(RATINGS)} wanted")
    return found


def least_safe(*ratings: str | None) -> str | None:
    """Returns the rating that is the least safe of those that are said."""
    return max(filter(None, ratings), key=RATINGS.index, default=None)


@functools.lru_cache(maxsize=100_000)  # a dump has millions of tags, most of them often
def tag_of(text: str) -> str:
    """Returns a tag as it is written everywhere here: small letters, `_` for blanks."""
    return "_".join(_ESCAPED.sub(r"\1", whole(text)).lower().split())


# A mark with a blank behind it parts the tags of a list; `,_` is within a tag.
_LISTED = re.compile(r"(?<=[^\W_]|\))[,;](?=\s|$)")
_COMMA, _SEMICOLON = r",(?!_)", r"(?<=[^\W_]|\));(?!_)"
# A word that only a text with blanks between its tags has: 1girl, blonde_hair, ;)
_OF_BOARD = re.compile(r"[1-6]\+?(girl|boy|other)s?|solo|[^,;]+_[^,;]+|;[^;]+", re.IGNORECASE)
_LONGEST_TAG = 5  # words; a line of more is no tag


def split_tags(text: str, *, cell: bool = False) -> Iterator[str]:
    """Yields the tags of a text, line by line; and every excluded tag that another rule would find.

    A line that has more words of a board's than `, ` or `; ` is a board's: blanks part its tags,
    whose marks are their own (`steins;gate`, `;)`). Else `, ` and `; ` part tags; without them
    commas, or, in the only line of a text or in a long one, blanks; else the line is one tag.
    cell: of a table, where `;` parts and blanks do not.
    """
    text = _without_entities(text)
    lines = list(filter(str.strip, text.splitlines()))
    for line in lines:
        yield from filter(None, map(tag_of, _parts(line, alone=len(lines) == 1, cell=cell)))
    yield from excluded_in(text)


def _parts(line: str, *, alone: bool, cell: bool) -> list[str]:
    line = re.sub(r"\s+([,;])(?=\s|$)", r"\1", line)
    words, listed = line.split(), len(_LISTED.findall(line))
    if len(words) > 1 and sum(map(bool, map(_OF_BOARD.fullmatch, words))) > listed:
        return [_LISTED.sub("", word) for word in words]
    if listed:
        return re.split(rf"{_COMMA}|{_SEMICOLON}(?=\s|$)", line)
    marks = f"{_COMMA}|{_SEMICOLON}" if cell else _COMMA
    if re.search(marks, line):
        return re.split(marks, line)
    namespaces = sum(":" in word[1:-1] for word in words)
    if not cell and (alone or len(words) > _LONGEST_TAG or namespaces > 1):
        return words
    return [line]


_EXCLUDED_FORMS = "|".join(re.escape(tag).replace("_", r"[_\s]+") for tag in sorted(EXCLUDED_TAGS))
_EXCLUDED_WORDS = frozenset(re.split("[_-]", tag)[0] for tag in EXCLUDED_TAGS)
_EXCLUDED = re.compile(rf"(?<![\w-])(?:{_EXCLUDED_FORMS})(?![\w-])")


def _without_entities(text: str) -> str:
    """Some boards send `&gt;_&lt;`, some downloaders leave it."""
    return re.sub(r"&#?\w+;", lambda found: html.unescape(found[0]), text) if "&" in text else text


@functools.lru_cache(maxsize=100_000)
def tags_of(text: str) -> tuple[str, ...]:
    """Returns the tag that an item of a list is; and the excluded ones that it may be besides."""
    plain = _without_entities(text)
    return tuple(filter(None, (tag_of(plain), *excluded_in(plain))))


def excluded_in(text: str) -> Iterator[str]:
    """Yields the excluded tags that stand anywhere in a text, in whatever way it is split.

    It may be one too many, as the photo of `holding photo`: no rule of splitting can hide a tag.
    """
    plain = _ESCAPED.sub(r"\1", text).lower()
    # Almost no text has the first word of one: this takes a tenth of the time of the search.
    if not _EXCLUDED_WORDS.isdisjoint(re.findall("[a-z0-9]+", plain)):
        for found in _EXCLUDED.findall(plain):
            yield re.sub(r"[_\s]+", "_", found)


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


def parse_json(content: bytes, place: Place) -> Any:
    """Returns a JSON value, or the Fault of a record at `place` that is none."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        return Fault(place, "", f"is not JSON: {error}")


_MD5 = re.compile(r"[0-9a-f]{32}")
_EXT = re.compile(r"[0-9a-z]{1,5}")
# 1 and 0 are equal to True and False, and found as them; databases write the words.
FLAGS: dict[object, bool] = {
    True: True,
    False: False,
    None: False,
    **dict.fromkeys(("1", "1.0", "t", "true", "y", "yes"), True),
    **dict.fromkeys(("", "0", "0.0", "f", "false", "n", "no", "null", "none"), False),
}


class Fields:
    """One record; what is absent, null or empty is None.

    Every method raises the error that `fault` makes of a field that cannot be read.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) not in (None, "")

    def raw(self, key: str) -> Any:
        """Returns a value as it is."""
        return self.values.get(key)

    def integer(self, key: str, *, greatest: int = 2**31 - 1) -> int | None:
        """Returns a whole number, also one written as text."""
        value = self.values.get(key)
        if value is None or value == "":
            return None
        number = whole_number(value)
        if number is None or abs(number) > greatest:
            raise self.fault(key, f"a whole number of at most {greatest:,}")
        return number

    def text(self, key: str) -> str | None:
        """Returns a text."""
        value = self.values.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise self.fault(key, "text")
        return whole(value)

    def flag(self, key: str) -> bool:
        """Returns whether a flag is up, also one in words or figures; an absent one is down."""
        value = self.values.get(key)
        word = value.strip().lower() if isinstance(value, str) else value
        if not isinstance(word, bool | int | float | str | None) or word not in FLAGS:
            raise self.fault(key, "true or false")
        return FLAGS[word]

    def md5(self, key: str) -> str | None:
        """Returns an md5 in small letters."""
        value = self.text(key)
        if value is not None and not _MD5.fullmatch(value.lower()):
            raise self.fault(key, "an md5 of 32 hex digits")
        return value.lower() if value else None

    def ext(self, key: str) -> str | None:
        """Returns a file's extension in small letters, without a dot."""
        value = self.text(key)
        if value is not None and not _EXT.fullmatch(value.lower()):
            raise self.fault(key, "an extension such as jpg")
        return value.lower() if value else None

    def time(self, key: str) -> dt.datetime | None:
        """Returns a moment in UTC, written as ISO 8601 (or with UTC behind it) or in seconds."""
        value = self.values.get(key)
        if value is None or value == "":
            return None
        seconds = whole_number(value)
        try:
            if seconds is not None:
                return dt.datetime.fromtimestamp(seconds, dt.UTC)
            text = str(value).removesuffix(" UTC")
            moment = dt.datetime.fromisoformat(text)
            return moment.replace(tzinfo=moment.tzinfo or dt.UTC).astimezone(dt.UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise self.fault(key, "a time as in ISO 8601") from error

    def fault(self, key: str, wanted: str) -> Exception:
        """Returns the error of a field; `wanted` says what it should be."""
        return BadField(key, f"is {shown(self.values.get(key))}; {wanted} wanted")


def whole_number(value: Any) -> int | None:
    """Returns a whole number of at most 18 digits, also one written as text, or as 4.0; else None.

    As a float it has at most 15 digits, which is what a float holds exactly.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        text = str(value)
    except ValueError:  # of more digits than Python writes out
        return None
    found = re.fullmatch(r"(-?[0-9]{1,18})|(-?[0-9]{1,15})\.0+", text)
    return int(found[1] or found[2]) if found else None
