"""A folder or zip of pictures: with a table of tags, with sidecar files, or without any tags."""

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from dataset.errors import UsageError
from dataset.importers.danbooru import read_record
from dataset.importers.files import UNREADABLE, Files, is_picture, open_text, read, spellings
from dataset.importers.records import (
    BadField,
    Entry,
    Place,
    Read,
    by_kind,
    least_safe,
    shown,
    split_tags,
)
from dataset.importers.tables import (
    ADULT,
    CAPTION,
    RATING,
    TAGS,
    cells_read,
    json_cells,
    read_table_of_tags,
)
from dataset.policy import EXCLUDED_TAGS

MAX_BYTES = 2**20

_SIDECARS = (".json", ".txt", ".caption")
_PROBE_BYTES = 4096
_DEEPEST = 2  # levels of records within a sidecar's

# Boards whose letter s is their only word for safe; elsewhere it may mean sensitive.
_S_IS_SAFE = frozenset({"konachan", "konachan_net", "yandere", "yande"})


class Sidecars:
    """The files of a set that stand beside its pictures and bear their names."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._by_picture: dict[str, list[str]] = defaultdict(list)
        for name in files.names(hidden=True):
            for spelled in () if is_picture(name) else spellings(name):
                for picture in _pictures_of(spelled):
                    self._by_picture[picture].append(name)

    def read(self, picture: str) -> Read | None:
        """Returns what the sidecars of a picture say; None if it has none.

        Of several, JSON has its tags before text; an excluded tag or a rating counts in any. One
        that cannot be read or understood is a fault: it may hold what the picture is refused for.
        """
        spelled = spellings(picture)
        keys = spelled | set(map(_stem, spelled))
        names = {name for key in keys for name in self._by_picture.get(key, ())}
        found: list[Entry] = []
        for name in sorted(names, key=_rank):
            try:
                found += _entries(picture, name, self._files)
            except BadField as bad:
                return bad.at(Place(name))
        return _joined(found) if len(found) > 1 else next(iter(found), None)


def _pictures_of(name: str) -> Iterator[str]:
    """Yields the names, with or without ending, of pictures whose sidecar a file may be."""
    folder, base = posixpath.split(name)
    if hidden := re.fullmatch(r"\.(.+)_meta\.json", base):  # waifuc's
        yield posixpath.join(folder, hidden[1])
    elif not base.startswith("."):
        stem = _stem(name)
        yield stem
        shorter = re.sub(r"(-danbooru|\.tags)$", "", stem)
        if shorter != stem:
            yield shorter


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _rank(name: str) -> tuple[bool, bool, str]:
    """Sorts the sidecars of a picture: JSON first, and `a.jpg.json` before `a.json`."""
    return not name.lower().endswith(".json"), not is_picture(_stem(name)), name


def _entries(picture: str, name: str, files: Files) -> list[Entry]:
    """What one sidecar says: nothing, if it is no text."""
    place = Place(name)
    suffix = posixpath.splitext(name)[1].lower()
    if suffix not in _SIDECARS and not _is_text(files, name):
        return []
    if suffix not in _SIDECARS:
        raise BadField("", f"is not understood; sidecars end in {', '.join(_SIDECARS)}")
    text = _text(files, name)
    if suffix == ".json":
        return _json_entries(picture, place, text)
    tags, rating = cells_read({TAGS: list(split_tags(text))})
    return [Entry(place=place, file=picture, tags=tags, rating=rating)]


def _is_text(files: Files, name: str) -> bool:
    """Tells whether a file begins as a text: others, such as a .kra or .npz, are no sidecars."""
    try:
        with files.open(name) as file:
            start = file.read(_PROBE_BYTES)
            return bool(start) and b"\0" not in start
    except UNREADABLE as error:
        raise BadField("", f"cannot be read: {error}") from error


def _joined(entries: list[Entry]) -> Entry:
    """The first that has tags, with whatever the others refuse the picture for."""
    first = next((one for one in entries if any(one.tags.values())), entries[0])
    tags = {tag for one in entries for kind in one.tags.values() for tag in kind}
    general = (*first.tags["general"], *(tags & EXCLUDED_TAGS))
    return replace(
        first,
        md5=next(filter(None, (one.md5 for one in entries)), None),
        tags=by_kind({**first.tags, "general": general}),
        rating=least_safe(*(one.rating for one in entries)),
        deleted=any(one.deleted for one in entries),
        banned=any(one.banned for one in entries),
        pending=any(one.pending for one in entries),
        flagged=any(one.flagged for one in entries),
    )


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


def _json_entries(picture: str, place: Place, text: str) -> list[Entry]:
    """Reads the records of a JSON sidecar: itself, and those that it has under other names.

    So waifuc has a board's record in it (`danbooru`), and Hydrus whatever its user chose.
    """
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadField("", f"is not JSON: {error}") from error
    if isinstance(values, list) and all(isinstance(one, str) for one in values):
        values = {TAGS: values}
    if not isinstance(values, Mapping):
        raise BadField("", f"is {shown(values)}, a JSON object or a list of tags wanted")
    site = values.get("category")
    records = [(site, values), *_within(values, _DEEPEST)]
    records.sort(key=lambda one: not _has_kinds(one[1]))
    found = [
        _json_entry(picture, place, record, site) for site, record in records if _tells(record)
    ]
    if not found:
        raise BadField(
            "", f"has no {TAGS}, tag_string, {CAPTION} or {RATING}: it is not understood"
        )
    return found


def _within(values: Mapping[str, Any], depth: int) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    for key, value in values.items():
        if depth and isinstance(value, Mapping) and not key.startswith(TAGS):
            yield key, value
            yield from _within(value, depth - 1)


def _tells(values: Mapping[str, Any]) -> bool:
    return _is_danbooru(values) or any(cell is not None for cell in _cells(values).values())


def _has_kinds(values: Mapping[str, Any]) -> bool:
    return any(key.startswith("tag_string") for key in values)


def _json_entry(picture: str, place: Place, values: Mapping[str, Any], site: Any) -> Entry:
    if _is_danbooru(values):
        read_in = read_record(values, place, nested_s="general", flat_s="sensitive", numbered=False)
        return replace(read_in, file=picture, ext=None)
    s_means = "general" if site in _S_IS_SAFE else "sensitive"
    tags, rating = cells_read(_cells(values), s_means=s_means)
    return Entry(place=place, file=picture, tags=tags, rating=rating)


def _cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a downloader's record: all its tags, as lists by kind, and its rating."""
    others = {RATING, CAPTION, *ADULT}
    given = json_cells(
        {key: values[key] for key in values if key.startswith(TAGS) or key in others}
    )
    lists = {key: _listed(cell) if key.startswith(TAGS) else cell for key, cell in given.items()}
    kinds = [value for key, value in lists.items() if key.startswith("tags_")]
    if isinstance(lists.get(TAGS), list):  # the same once more, without their kinds
        known = [tag for kind in kinds if isinstance(kind, list) for tag in kind]
        lists[TAGS] = [tag for tag in lists[TAGS] if tag not in known]
    return lists


def _listed(cell: Any) -> Any:
    """The tags of a text, or of objects with a name and its translation, as pixiv has them."""
    if isinstance(cell, str):
        return list(split_tags(cell))
    if isinstance(cell, list) and all(isinstance(one, Mapping) for one in cell):
        names = [one.get(key) for one in cell for key in ("name", "translated_name")]
        return list(filter(None, names))
    return cell


def _is_danbooru(values: Mapping[str, Any]) -> bool:
    tags = values.get(TAGS)
    first = tags[0] if isinstance(tags, list) and tags else None
    return _has_kinds(values) or (isinstance(first, Mapping) and "category" in first)


TABLES = ("tags.csv", "tags.json", "tags.jsonl")


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
        return Collection(files, None, None, sum(map(is_picture, files.names())))
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
        sidecars = Sidecars(found.files)
        for name in filter(is_picture, found.files.names()):
            entry = sidecars.read(name)
            yield entry or Entry(place=Place(name), file=name, tags=by_kind({}))


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
