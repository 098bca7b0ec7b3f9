"""Metadata dumps of Danbooru, old and new: a JSON record a line, pictures named by id or md5.

Until 2022 the rating s meant safe, since then it means sensitive, and g is safe. A record of the
old nested shape is from before; a flat one may be from either time, which nothing in it tells. So s
is safe in nested records only, unless the user says otherwise, and never in a dump that knows g.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset.errors import UsageError
from dataset.importers.files import DAMAGED, Files, json_lines, open_text
from dataset.importers.records import (
    TAG_KINDS,
    BadField,
    Entry,
    Fault,
    Fields,
    Place,
    Read,
    by_kind,
    excluded_in,
    parse_json,
    rating_of,
    shown,
    tag_of,
    whole_number,
)

MAX_ARRAY_BYTES = 512 * 2**20
MAX_ID = 10**18

# Of nested tags; other numbers have been in use for a while, and count as general.
_CATEGORIES = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta"}
# A quote inside a text has a backslash before it: this is a field, wherever it stands.
_GENERAL = re.compile(rb'"rating"\s*:\s*"g(eneral)?"')
_CHUNK, _OVERLAP = 2**20, 256
_OLD, _NEW = "nested", "flat"


@dataclass(frozen=True)
class Dump:
    """A dump that was looked through: its files, how many lines they have, and what s means.

    nested_s, flat_s: the rating that s stands for in records of either shape; why: in words.
    """

    files: tuple[Path, ...]
    lines: int
    nested_s: str
    flat_s: str
    why: str


def look_through(paths: Sequence[Path], *, s_means: str | None = None) -> Dump:
    """Counts the lines of a dump's files and decides what its rating s means.

    paths: files, or folders of them; s_means: safe or sensitive, None: by the records. Raises
    UsageError for a path that is not there, and for s_means safe in a dump that has a rating g.
    """
    files = tuple(_files(paths))
    lines, knows_g = 0, None
    for path in files:
        found, rated_g = _scan(path)
        lines += found
        if rated_g and knows_g is None:
            knows_g = f"{path.name} has a record rated g"
    if s_means == "safe" and knows_g:
        raise UsageError(
            f"--s-means safe: {knows_g}, so its s means sensitive: leave the option out"
        )
    nested, flat, why = _meaning(s_means, knows_g)
    return Dump(files, lines, nested, flat, why)


def read_dump(dump: Dump, pictures: Files, *, resized: bool = False) -> Iterator[Read]:
    """Yields an entry or a fault for every record; `file` is None where its picture is not there.

    resized: the pictures are copies, which may have another format than the record says.
    """
    finder = _Finder(pictures, resized=resized)
    for path in dump.files:
        for place, values in _records(path):
            if isinstance(values, Fault):
                yield values
                continue
            try:
                entry = read_record(values, place, nested_s=dump.nested_s, flat_s=dump.flat_s)
                yield finder.found(entry)
            except BadField as bad:
                yield bad.at(place)


def read_record(
    values: Any, place: Place, *, nested_s: str, flat_s: str, numbered: bool = True
) -> Entry:
    """Reads one record, of the old nested or the new flat shape; raises BadField.

    numbered: it must have an id.
    """
    if not isinstance(values, Mapping):
        raise BadField("", f"is {shown(values)}, a JSON object wanted")
    fields = Fields(values)
    tags, shape = _tags(fields)
    return Entry(
        place=place,
        file=None,
        tags=tags,
        rating=rating_of(
            fields.text("rating") or "",
            field="rating",
            s_means=nested_s if shape == _OLD else flat_s,
        ),
        post_id=_post_id(fields) if numbered else None,
        md5=fields.md5("md5"),
        ext=fields.ext("file_ext"),
        source=fields.text("source"),
        width=whole_number(fields.raw("image_width")),
        height=whole_number(fields.raw("image_height")),
        score=fields.integer("score"),
        created_at=fields.time("created_at"),
        updated_at=fields.time("updated_at"),
        deleted=fields.flag("is_deleted"),
        banned=fields.flag("is_banned"),
        pending=fields.flag("is_pending"),
        flagged=fields.flag("is_flagged"),
    )


def _scan(path: Path) -> tuple[int, bool]:
    """Counts the lines of a file and tells whether any record is rated g, without parsing it."""
    lines, rated_g, before = 0, False, b""
    try:
        with open_text(path) as file:
            while chunk := file.read(_CHUNK):
                lines += chunk.count(b"\n")
                rated_g = rated_g or _GENERAL.search(before + chunk) is not None
                before = chunk[-_OVERLAP:]
    except DAMAGED:
        pass  # reported, with its place, when the records are read
    return lines, rated_g


def _meaning(s_means: str | None, knows_g: str | None) -> tuple[str, str, str]:
    if s_means == "safe":
        return "general", "general", "s is read as safe, as --s-means says"
    if s_means == "sensitive":
        return "sensitive", "sensitive", "s is read as sensitive, as --s-means says"
    if knows_g:
        return "sensitive", "sensitive", f"s is read as sensitive: {knows_g}"
    return (
        "general",
        "sensitive",
        "no record is rated g; s is read as safe in records with nested tags (from before 2022), "
        "as sensitive in flat ones; if those are from before 2022 too, say --s-means safe",
    )


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    if not paths:
        raise UsageError(
            "METADATA is missing: name the files, or the folder, of the dump's records"
        )
    for path in paths:
        if path.is_dir():
            found = sorted(one for one in path.rglob("*") if one.is_file() and _is_metadata(one))
            if not found:
                raise UsageError(f"{path} has no .json or .jsonl file (nor one with .gz or .xz)")
            yield from found
        elif not path.is_file():
            raise UsageError(f"METADATA: {path} is not there")
        elif ".tar" in path.suffixes:
            raise UsageError(f"METADATA: {path} is an archive; unpack it first")
        else:
            yield path


def _is_metadata(path: Path) -> bool:
    return re.search(r"\.jsonl?(\.(gz|xz|bz2))?$|\.ndjson$", path.name.lower()) is not None


def _records(path: Path) -> Iterator[tuple[Place, Any]]:
    """Yields place and JSON value of each record; a Fault in place of what cannot be parsed."""
    last = Place(path.name, "line 0")
    try:
        if _is_array(path):
            yield from _of_array(path)
            return
        with open_text(path) as file:
            for last, value in json_lines(file, path.name):
                yield last, value
    except DAMAGED as error:
        place = Place(path.name, f"after {last.mark}")
        yield place, Fault(place, "", f"cannot be read any further: {error}")


def _is_array(path: Path) -> bool:
    """Tells whether a file is one JSON array, as the API answers, instead of lines."""
    with open_text(path) as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _of_array(path: Path) -> Iterator[tuple[Place, Any]]:
    with open_text(path) as file:
        content = file.read(MAX_ARRAY_BYTES + 1)
    place = Place(path.name)
    if len(content) > MAX_ARRAY_BYTES:
        text = f"is one array of more than {MAX_ARRAY_BYTES >> 20} MiB; write a record a line"
        yield place, Fault(place, "", text)
        return
    values = parse_json(content, place)
    if isinstance(values, Fault):
        yield place, values
        return
    for number, value in enumerate(values, start=1):
        yield Place(path.name, f"record {number}"), value


def _tags(fields: Fields) -> tuple[dict[str, tuple[str, ...]], str]:
    """Returns the tags by kind, and the shape of the record."""
    if isinstance(fields.raw("tags"), list):
        return _nested_tags(fields.raw("tags")), _OLD
    keys = [f"tag_string_{kind}" for kind in TAG_KINDS]
    if not any(key in fields for key in [*keys, "tag_string"]):
        raise BadField(
            "tags", "are missing: neither tag_string_general nor a list of tags is there"
        )
    *texts, every = (fields.text(key) or "" for key in (*keys, "tag_string"))
    tags = {
        kind: list(map(tag_of, text.split())) for kind, text in zip(TAG_KINDS, texts, strict=True)
    }
    # All tags in one text: what has no kind there is general.
    others = {tag for kind in tags.values() for tag in kind}
    tags["general"] += [tag for tag in map(tag_of, every.split()) if tag not in others]
    tags["general"] += [tag for text in (*texts, every) for tag in excluded_in(text)]
    return by_kind(tags), _NEW


def _nested_tags(tags: list[Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {kind: [] for kind in TAG_KINDS}
    for number, tag in enumerate(tags):
        if not isinstance(tag, dict):
            raise BadField(f"tags[{number}]", f"is {shown(tag)}; name and category wanted")
        name, given = tag.get("name"), tag.get("category", 0)
        kind = _CATEGORIES.get(given) if isinstance(given, str) else None
        category = 0 if kind else whole_number(given)
        if not isinstance(name, str) or not name.strip():
            raise BadField(f"tags[{number}].name", f"is {shown(name)}; a tag wanted")
        if category is None:
            raise BadField(f"tags[{number}].category", f"is {shown(given)}; a number wanted")
        found[kind or _CATEGORIES.get(str(category), "general")].append(tag_of(name))
        found["general"].extend(excluded_in(name))
    return by_kind(found)


def _post_id(fields: Fields) -> int:
    number = whole_number(fields.raw("id"))
    if number is None or not 0 < number < MAX_ID:
        raise BadField("id", f"is {shown(fields.raw('id'))}; a number above 0 wanted")
    return number


class _Finder:
    """Finds the picture of a record by the layouts in use; the one that worked last goes first."""

    def __init__(self, pictures: Files, *, resized: bool) -> None:
        self._pictures = pictures
        self._exts = ("jpg", "png", "webp", "jpeg") if resized else ()
        self._layouts = ["{bucket}/{id}", "{ab}/{cd}/{md5}", "{ab}/{md5}", "{md5}", "{id}"]

    def found(self, entry: Entry) -> Entry:
        for layout in self._layouts:
            for ext in dict.fromkeys([entry.ext or "jpg", *self._exts]):
                name = self._name(layout, entry, ext)
                if name is not None and self._pictures.size(name) is not None:
                    if layout != self._layouts[0]:
                        self._layouts.remove(layout)
                        self._layouts.insert(0, layout)
                    return replace(entry, file=name)
        return entry

    @staticmethod
    def _name(layout: str, entry: Entry, ext: str) -> str | None:
        if "md5" in layout and entry.md5 is None:
            return None
        assert entry.post_id is not None
        md5 = entry.md5 or ""
        parts = {"bucket": f"{entry.post_id % 1000:04d}", "id": entry.post_id, "md5": md5}
        return f"{layout.format(**parts, ab=md5[:2], cd=md5[2:4])}.{ext}"
