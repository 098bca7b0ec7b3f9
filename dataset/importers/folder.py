"""A folder or zip of pictures: with a table of tags, with sidecar files, or without any tags."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dataset.errors import UsageError
from dataset.importers.files import UNREADABLE, Files
from dataset.importers.lines import open_text
from dataset.importers.records import Entry, Place, Read, by_kind
from dataset.importers.sidecars import read_sidecar
from dataset.importers.tables import read_table_of_tags

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
