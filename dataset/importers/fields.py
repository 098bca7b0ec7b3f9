"""Reads the fields of JSON records and the columns of tables; a bad one is a BadField."""

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from dataset.importers.records import (
    TAG_KINDS,
    BadField,
    by_kind,
    rating_of,
    shown,
    split_tags,
    tag_of,
    whole,
)

_MD5 = re.compile(r"[0-9a-f]{32}")
_EXT = re.compile(r"[0-9a-z]{1,5}")
# 1 and 0 are equal to True and False, and found as them.
_FLAGS: dict[object, bool] = {True: True, False: False, None: False, "true": True, "false": False}


class Fields:
    """One record; what is absent, null or empty is None. Every method raises BadField."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) not in (None, "")

    def raw(self, key: str) -> Any:
        """Returns a value as it is."""
        return self._values.get(key)

    def integer(self, key: str, *, greatest: int = 2**31 - 1) -> int | None:
        """Returns a whole number, also one written as text."""
        value = self._values.get(key)
        if value is None or value == "":
            return None
        number = whole_number(value)
        if number is None or abs(number) > greatest:
            raise self._bad(key, f"a whole number of at most {greatest:,}")
        return number

    def text(self, key: str) -> str | None:
        """Returns a text."""
        value = self._values.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise self._bad(key, "text")
        return whole(value)

    def flag(self, key: str) -> bool:
        """Returns whether a flag is up; an absent one is down."""
        value = self._values.get(key)
        if not isinstance(value, bool | int | str | None) or value not in _FLAGS:
            raise self._bad(key, "true or false")
        return _FLAGS[value]

    def md5(self, key: str) -> str | None:
        """Returns an md5 in small letters."""
        value = self.text(key)
        if value is not None and not _MD5.fullmatch(value.lower()):
            raise self._bad(key, "an md5 of 32 hex digits")
        return value.lower() if value else None

    def ext(self, key: str) -> str | None:
        """Returns a file's extension in small letters, without a dot."""
        value = self.text(key)
        if value is not None and not _EXT.fullmatch(value.lower()):
            raise self._bad(key, "an extension such as jpg")
        return value.lower() if value else None

    def time(self, key: str) -> dt.datetime | None:
        """Returns a moment in UTC, written as ISO 8601 (or with UTC behind it) or in seconds."""
        value = self._values.get(key)
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
            raise self._bad(key, "a time as in ISO 8601") from error

    def _bad(self, key: str, wanted: str) -> BadField:
        return BadField(key, f"is {shown(self._values.get(key))}; {wanted} wanted")


def whole_number(value: Any) -> int | None:
    """Returns a whole number of at most 18 digits, also one written as text; None otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        text = str(value)
    except ValueError:  # of more digits than Python writes out
        return None
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


FILE, RATING, TAGS = "file", "rating", "tags"

# Fields of other programs' records that hold no tags.
_NO_TAGS = frozenset(
    {FILE, RATING, "caption", "id", "md5", "source", "score", "width", "height", "size", "url"}
    | {"train_resolution", "created_at", "updated_at", "filename", "extension", "category"}
)


def cells_read(
    cells: Mapping[str, Any], *, s_means: str = "sensitive"
) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """Returns the tags by kind and the rating (None: not said) of a row; raises BadField.

    A column named after a kind of tags holds such, any other holds general ones: a text with `;` or
    `,` between the tags, or a list of texts. A blank inside a tag becomes `_`; only in a column
    `tags` of a JSON row, a text with neither is a board's, with blanks between the tags.
    """
    tags: dict[str, list[str]] = {kind: [] for kind in TAG_KINDS}
    for column, cell in cells.items():
        if column in _NO_TAGS or cell is None:
            continue
        kind = column.removeprefix("tags_")
        tags[kind if kind in TAG_KINDS else "general"].extend(_tags(column, cell))
    rating = cells.get(RATING)
    if rating is not None and not isinstance(rating, str):
        raise BadField(RATING, f"is {shown(rating)}; a text wanted")
    return by_kind(tags), rating_of(rating or "", field=RATING, s_means=s_means)


def cell_tags(cell: str) -> list[str]:
    """Returns the tags of one cell: parted by `;` or `,`, a blank inside a tag becomes `_`."""
    return [tag for part in cell.replace(",", ";").split(";") if (tag := tag_of(part))]


def _tags(column: str, cell: Any) -> list[str]:
    if isinstance(cell, str):
        return cell_tags(cell)
    if isinstance(cell, list) and all(isinstance(one, str) for one in cell):
        return [tag for one in cell if (tag := tag_of(one))]
    raise BadField(column, f"is {shown(cell)}; a text or a list of texts wanted")


def json_cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns of a JSON row, with a text of all tags taken apart.

    `tags` may also be an object of lists by kind.
    """
    cells = dict(values)
    tags = cells.get(TAGS)
    if isinstance(tags, str):
        cells[TAGS] = list(split_tags(tags))
    elif isinstance(tags, Mapping):
        del cells[TAGS]
        cells |= {f"tags_{kind}": value for kind, value in tags.items()}
    return cells
