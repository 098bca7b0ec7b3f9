"""A folder or zip of pictures: with a table of tags, with sidecar files, or without any tags."""

import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from dataset.errors import UsageError
from dataset.importers.danbooru import read_record
from dataset.importers.files import UNREADABLE, Files, open_text, read
from dataset.importers.records import (
    TAGS,
    BadField,
    Entry,
    Place,
    Read,
    by_kind,
    cells_read,
    json_cells,
    shown,
    split_tags,
)
from dataset.importers.tables import read_table_of_tags

MAX_BYTES = 2**20

# Boards whose letter s is their only word for safe; elsewhere it may mean sensitive.
_S_IS_SAFE = frozenset({"konachan", "yandere"})


def read_sidecar(picture: str, files: Files) -> Read | None:
    """Returns what the sidecar of a picture says; None if it has none.

    `a.jpg.json`, `a.json` and `a-danbooru.json` go before `a.jpg.txt` and `a.txt`. One that cannot
    be read is a fault: it may hold a tag for which the picture is refused.
    """
    name = _sidecar_of(picture, files)
    if name is None:
        return None
    try:
        text = _text(files, name)
        if name.endswith(".json"):
            return _json_entry(picture, name, text)
        return Entry(place=Place(name), file=picture, tags=by_kind({"general": split_tags(text)}))
    except BadField as bad:
        return bad.at(Place(name))


def _sidecar_of(picture: str, files: Files) -> str | None:
    stem = posixpath.splitext(picture)[0]
    jsons = (f"{picture}.json", f"{stem}.json", f"{stem}-danbooru.json")
    names = (*jsons, f"{picture}.txt", f"{stem}.txt")
    return next((name for name in names if files.size(name) is not None), None)


def _text(files: Files, name: str) -> str:
    try:
        content = read(files, name, greatest=MAX_BYTES)
        if len(content) > MAX_BYTES:
            raise BadField("", f"is larger than {MAX_BYTES:,} bytes: no list of tags")
        return content.decode("utf-8-sig")
    except UNREADABLE as error:
        raise BadField("", f"cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise BadField("", f"is not UTF-8 at byte {error.start}") from error


def _json_entry(picture: str, name: str, text: str) -> Entry:
    place = Place(name)
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadField("", f"is not JSON: {error}") from error
    if not isinstance(values, Mapping):
        raise BadField("", f"is {shown(values)}, a JSON object wanted")
    if _is_danbooru(values):
        read_in = read_record(values, place, nested_s="general", flat_s="sensitive", numbered=False)
        return replace(read_in, file=picture, ext=None)
    s_means = "general" if values.get("category") in _S_IS_SAFE else "sensitive"
    tags, rating = cells_read(_cells(values), s_means=s_means)
    return Entry(place=place, file=picture, tags=tags, rating=rating)


def _cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a downloader's record: all its tags, as lists by kind, and its rating."""
    given = json_cells({key: values[key] for key in values if key.startswith("tags")})
    lists = {
        key: list(split_tags(value)) if isinstance(value, str) else value
        for key, value in given.items()
    }
    kinds = [value for key, value in lists.items() if key != TAGS and isinstance(value, list)]
    if kinds and isinstance(lists.get(TAGS), list):  # the same once more, without their kinds
        known = [tag for kind in kinds for tag in kind]
        lists[TAGS] = [tag for tag in lists[TAGS] if tag not in known]
    return {**lists, "rating": values.get("rating")}


def _is_danbooru(values: Mapping[str, Any]) -> bool:
    tags = values.get("tags")
    nested = isinstance(tags, list) and bool(tags) and isinstance(tags[0], Mapping)
    return nested or any(key.startswith("tag_string") for key in values)


TABLES = ("tags.csv", "tags.json", "tags.jsonl")

# Formats that can be blobs, and others that are named as refused rather than passed over.
_PICTURES = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "avif"})
_OTHERS = frozenset({"bmp", "tif", "tiff", "heic", "heif", "jxl", "jp2", "psd", "mp4", "webm"})


@dataclass(frozen=True)
class Collection:
    """A set that was looked at: its files, its table's name (None: it has none), and their count.

    outside: the table is this file, not one of the set's; count: rows or pictures, for progress.
    """

    files: Files
    table: str | None
    outside: Path | None
    count: int


def look_at(files: Files, *, tags: str = "") -> Collection:
    """Finds the table of a set; tags: its name in the set, or a file elsewhere ("": as found).

    Raises UsageError if it is not there, or if there is more than one.
    """
    table = _table(files, tags)
    outside = None if table or not tags else Path(tags)
    if outside is not None:
        with open_text(outside) as file:
            return Collection(files, outside.name, outside, _lines(file))
    if table is None:
        return Collection(files, None, None, sum(map(_is_picture, files.names())))
    try:
        with files.open(table) as file:
            return Collection(files, table, None, _lines(file))
    except UNREADABLE as error:
        raise UsageError(f"{table} in {files.name} cannot be read: {error}") from error


def read_collection(found: Collection) -> Iterator[Read]:
    """Yields an entry or a fault for each picture, or for each row of the set's table."""
    yield from found.files.faults()
    if found.outside is not None:
        with open_text(found.outside) as file:
            yield from read_table_of_tags(file, found.outside.name, found.files)
    elif found.table is not None:
        beside = posixpath.dirname(found.table)
        with found.files.open(found.table) as file:
            yield from read_table_of_tags(file, found.table, found.files, beside=beside)
    else:
        for name in filter(_is_picture, found.files.names()):
            entry = read_sidecar(name, found.files)
            yield entry or Entry(place=Place(name), file=name, tags=by_kind({}))


def _is_picture(name: str) -> bool:
    return name.rpartition(".")[2].lower() in _PICTURES | _OTHERS


def _table(files: Files, tags: str) -> str | None:
    if tags:
        if files.size(tags) is not None:
            return tags
        if Path(tags).is_file():
            return None
        raise UsageError(f"--tags: {tags} is neither in {files.name} nor a file elsewhere")
    for name in TABLES:
        if files.size(name) is not None:
            return name
    found = [name for name in files.names() if posixpath.basename(name) in TABLES]
    if len(found) > 1:
        raise UsageError(
            f"{files.name} has more than one table: {', '.join(found[:5])}; say which by --tags"
        )
    return found[0] if found else None


def _lines(file: IO[bytes]) -> int:
    count = 0
    while chunk := file.read(2**20):
        count += chunk.count(b"\n")
    return count
