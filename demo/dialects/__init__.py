"""The boards' dialects: pure functions from entries to records, and how each reads a search."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from demo.collection import Entry

Record = dict[str, Any]
SizeOf = Callable[[Entry, str], int]


class RefusedError(Exception):
    """The board answers with an error: its HTTP status and its JSON body."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


def is_gone(entry: Entry) -> bool:
    """Whether boards without Danbooru's bans count the post as deleted."""
    return entry.status == "deleted" or entry.banned


def status_word(entry: Entry) -> str:
    """The status as such boards write it: active, pending, flagged or deleted."""
    return "deleted" if is_gone(entry) else entry.status


def as_int(text: str | None, default: int) -> int:
    """A parameter as the boards read numbers: what is no number counts as not given."""
    # 18 digits are more than any id has, and few enough for int().
    if text is None or not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", text):
        return default
    return int(text)


def page_of(items: list[Entry], number: int, size: int) -> list[Entry]:
    """The `number`-th page, counted from 0, of `size` items."""
    return items[number * size : (number + 1) * size]


def shard(md5: str) -> str:
    """The two folders that boards sort files into: `ab/cd`."""
    return f"{md5[:2]}/{md5[2:4]}"
