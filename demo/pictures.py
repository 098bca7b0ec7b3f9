"""A user's own pictures as a collection: a folder or a zip with a tags.csv, read in place."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from demo.collection import (
    EPOCH_S,
    RATINGS,
    TAG_KINDS,
    YEAR_S,
    Bodies,
    Collection,
    CollectionError,
    Entry,
    FolderBodies,
    ZipBodies,
    by_kind,
    md5_of,
    write_atomically,
)

OnProgress = Callable[[int, int], None]

TABLE = "tags.csv"
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 100_000_000
_SHOWN_FAULTS = 10
_FIRST_ID = 1_000_000
_EXTS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp"}
# Errors of zipfile and Pillow's decoders on damaged or mislabelled files.
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    NotImplementedError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
_RATING_NAMES = {**{name: letter for letter, name in RATINGS.items()}, "safe": "g"} | {
    letter: letter for letter in RATINGS
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """A file that could be a picture: its name, size and change stamp."""

    name: str  # as the bodies know it
    size_bytes: int
    stamp: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """A row of tags.csv, read."""

    line: int
    found: _Found
    tags: dict[str, tuple[str, ...]]
    rating: str


def pictures_collection(
    path: Path, cache: Path, *, on_progress: OnProgress | None = None
) -> Collection:
    """Reads a folder or zip with a tags.csv; nothing is written but an index in `cache`.

    tags.csv has a column `file` and any number of tag columns; several tags in one cell are
    separated by `;`, a space inside a tag becomes `_`. Columns called character, copyright, artist
    or meta hold tags of that kind, a column `rating` the rating (general if empty). A file is
    named by its path beside tags.csv, or by its bare name where that is unique. Post ids are
    stored in the index and do not change when pictures are added. Unreadable pictures are
    skipped, with a warning each in `Collection.warnings`.

    Raises:
        CollectionError: naming every fault (ten shown) of the path, the zip or the table.

    """
    if not path.exists():
        raise CollectionError(f"{path} is not there; --pictures wants a folder or a zip")
    if path.is_dir():
        bodies: Bodies = FolderBodies(path)
        files = _files_of_folder(path)
    elif zipfile.is_zipfile(path):
        files = _files_of_zip(path)
        bodies = ZipBodies(path)
    else:
        raise CollectionError(f"{path} is neither a folder nor a zip; --pictures wants one of them")
    table = _find_table(path, files)
    rows = _read_table(path, table, bodies, files)
    index = _Index(cache / f"pictures-{_name_of(path)}.jsonl")
    known = index.look_at(rows, bodies, on_progress)
    return _collect(path, rows, bodies, known)


def _name_of(path: Path) -> str:
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]


def _raise_all(faults: list[str]) -> None:
    if not faults:
        return
    shown = faults[:_SHOWN_FAULTS]
    if len(faults) > len(shown):
        shown.append(f"… and {len(faults) - len(shown):,} more, {len(faults):,} in all")
    raise CollectionError("\n".join(shown))


def _files_of_folder(path: Path) -> dict[str, _Found]:
    files = {}
    for item in sorted(path.rglob("*")):
        if item.is_file():
            name, stat = item.relative_to(path).as_posix(), item.stat()
            files[name] = _Found(name, stat.st_size, str(stat.st_mtime_ns))
    return files


def _files_of_zip(path: Path) -> dict[str, _Found]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise CollectionError(f"{path} cannot be read as a zip: {error}") from error
    _raise_all([f"{path}: {fault}" for info in members if (fault := _member_fault(info))])
    return {
        info.filename: _Found(info.filename, info.file_size, f"crc {info.CRC:08x}")
        for info in members
    }


def _member_fault(info: zipfile.ZipInfo) -> str | None:
    # `orig_filename` is the name as stored; zipfile itself mends backslashes on Windows only.
    name = info.orig_filename.replace("\\", "/")
    if name.startswith("/") or PurePosixPath(name).is_absolute() or name[1:2] == ":":
        return f'"{info.orig_filename}" has an absolute path; only files inside the zip are read'
    if ".." in PurePosixPath(name).parts:
        return f'"{info.orig_filename}" points outside the zip with ".."'
    if info.flag_bits & 0x1:
        return f'"{info.orig_filename}" is encrypted; unpack it and zip it without a password'
    if info.file_size > MAX_FILE_BYTES:
        return (
            f'"{info.orig_filename}" is {info.file_size / 2**20:,.0f} MiB unpacked; '
            f"at most {MAX_FILE_BYTES >> 20} MiB a file"
        )
    return None


def _find_table(path: Path, files: dict[str, _Found]) -> str:
    if TABLE in files:
        return TABLE
    tables = [name for name in files if PurePosixPath(name).name == TABLE]
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise CollectionError(f"{path}: more than one {TABLE}: {', '.join(tables[:5])}")
    raise CollectionError(f"{path}: no {TABLE} in it (columns: file, then tags)")


def _read_table(path: Path, table: str, bodies: Bodies, files: dict[str, _Found]) -> list[_Row]:
    try:
        # newline="" keeps line ends inside quoted cells; utf-8-sig drops a byte order mark.
        text = io.StringIO(bodies.read(table).decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise CollectionError(
            f"{table}: not UTF-8 at byte {error.start}; save it as UTF-8"
        ) from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError) as error:
        raise CollectionError(f"{path}: {table} cannot be read: {error}") from error
    reader = csv.DictReader(text, strict=True)
    try:
        columns = [(name or "").strip() for name in reader.fieldnames or ()]
        if "file" not in columns:
            there = ", ".join(columns) or "none"
            raise CollectionError(f'{table}: no column "file"; its columns are: {there}')
        reader.fieldnames = columns
        rows = _read_rows(reader, table, _Finder(path, table, files))
    except csv.Error as error:
        raise CollectionError(f"{table}, line {reader.reader.line_num}: {error}") from error
    if not rows:
        raise CollectionError(f"{table}: no row; name at least one picture")
    return rows


def _read_rows(reader: csv.DictReader[str], table: str, finder: _Finder) -> list[_Row]:
    rows: list[_Row] = []
    faults: list[str] = []
    first_lines: dict[str, int] = {}
    for cells in reader:
        line = reader.line_num
        try:
            row = _read_row(cells, line, finder)
        except CollectionError as error:
            faults.append(f"{table}, line {line}: {error}")
            continue
        first = first_lines.setdefault(row.found.name, line)
        if first != line:
            faults.append(
                f'{table}, line {line}: file "{row.found.name}" was already named in line {first}'
            )
            continue
        rows.append(row)
    _raise_all(faults)
    return rows


def _read_row(cells: dict[str | Any, Any], line: int, finder: _Finder) -> _Row:
    if None in cells:
        raise CollectionError(f"{len(cells[None])} cell(s) more than there are columns")
    rating_name = (cells.get("rating") or "").strip().lower() or "general"
    if rating_name not in _RATING_NAMES:
        known = ", ".join(RATINGS.values())
        raise CollectionError(f'rating "{rating_name}" is none of {known}')
    tags: dict[str, list[str]] = defaultdict(list)
    for column, cell in cells.items():
        if column not in ("file", "rating"):
            kind = column if column in TAG_KINDS else "general"
            tags[kind].extend(read_tags(cell or ""))
    found = finder.find((cells.get("file") or "").strip())
    kinds = by_kind(**{kind: tuple(names) for kind, names in tags.items()})
    return _Row(line, found, kinds, _RATING_NAMES[rating_name])


def read_tags(cell: str) -> list[str]:
    """The tags in one cell, separated by `;`: lower case, white space as `_`, none empty."""
    return ["_".join(part.lower().split()) for part in cell.split(";") if part.strip()]


class _Finder:
    """Finds the file that a row names: by its path beside tags.csv, else by its bare name."""

    def __init__(self, path: Path, table: str, files: dict[str, _Found]) -> None:
        self._path = path
        self._beside = PurePosixPath(table).parent
        self._files = files
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for name in files:
            self._by_name[PurePosixPath(name).name].append(name)

    def find(self, name: str) -> _Found:
        if not name:
            raise CollectionError('the cell "file" is empty')
        plain = PurePosixPath(name.replace("\\", "/"))
        if plain.is_absolute() or ".." in plain.parts:
            raise CollectionError(f'file "{name}" points outside {self._path}')
        beside = (self._beside / plain).as_posix()
        if beside in self._files:
            return self._files[beside]
        same = self._by_name.get(plain.name, []) if len(plain.parts) == 1 else []
        if not same:
            raise CollectionError(f'file "{name}" is not in {self._path}')
        if len(same) > 1:
            raise CollectionError(
                f'file "{name}" could be {" or ".join(same[:3])}; name it with its folder'
            )
        return self._files[same[0]]


class _Index:
    """The known files, one JSON line per file: a permanent id, and facts until the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self._rows[row["file"]] = row

    def look_at(
        self, rows: list[_Row], bodies: Bodies, on_progress: OnProgress | None
    ) -> dict[str, dict[str, Any]]:
        """Reads the files that are new or changed; returns what is known by file name."""
        last_id = max((row["id"] for row in self._rows.values()), default=_FIRST_ID)
        changed = False
        for done, row in enumerate(sorted(rows, key=lambda row: row.found.name)):
            found = row.found
            stamp = f"{found.size_bytes} {found.stamp}"
            old = self._rows.get(found.name)
            if old is None or old["stamp"] != stamp:
                last_id = last_id if old else last_id + 1
                facts = _look_at(bodies, found)
                post_id = old["id"] if old else last_id
                self._rows[found.name] = {
                    "file": found.name,
                    "id": post_id,
                    "stamp": stamp,
                    **facts,
                }
                changed = True
            if on_progress and (done % 100 == 0 or done + 1 == len(rows)):
                on_progress(done + 1, len(rows))
        if changed:
            self._write()
        return self._rows

    def _write(self) -> None:
        lines: Iterable[str] = (json.dumps(row) for row in self._rows.values())
        write_atomically(self._path, ("\n".join(lines) + "\n").encode())


def _look_at(bodies: Bodies, found: _Found) -> dict[str, Any]:
    """Decodes a picture once: its md5, kind and size in px, or the fault that excludes it."""
    if found.size_bytes > MAX_FILE_BYTES:
        return {"fault": f"{found.size_bytes / 2**20:,.0f} MiB; at most {MAX_FILE_BYTES >> 20} MiB"}
    try:
        body = bodies.read(found.name)
        with warnings.catch_warnings():
            # The limit on pixels below is stricter than that of Pillow's warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return {"fault": None, "md5": md5_of(body), **_decode(body)}
    except _UNREADABLE as error:
        return {"fault": f"{type(error).__name__}: {error}"}


def _decode(body: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(body)) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width}x{height} px; at most {MAX_PIXELS // 1_000_000} megapixels")
        if picture.format not in _EXTS:
            raise ValueError(f"{picture.format} pictures are not served; {sorted(_EXTS)} are")
        picture.load()
        frames = getattr(picture, "n_frames", 1)
        duration_s = frames / 10 if frames > 1 and picture.format != "MPO" else None
        return {
            "ext": _EXTS[picture.format],
            "width": width,
            "height": height,
            "duration_s": duration_s,
        }


def _collect(
    path: Path, rows: list[_Row], bodies: Bodies, known: dict[str, dict[str, Any]]
) -> Collection:
    entries: list[Entry] = []
    unreadable: list[str] = []
    for row in rows:
        facts = known[row.found.name]
        if facts["fault"]:
            unreadable.append(f"{row.found.name} cannot be read and is left out: {facts['fault']}")
        else:
            entries.append(_entry(row, facts))
    if not entries:
        _raise_all([f"{path}: none of its {len(rows):,} pictures can be read", *unreadable])
    return Collection(entries, bodies, warnings=tuple(unreadable))


def _entry(row: _Row, facts: dict[str, Any]) -> Entry:
    post_id = facts["id"]
    rng = random.Random(post_id)
    # One minute per post: dates follow ids and do not change when the set grows.
    created_at = float(EPOCH_S - YEAR_S + (post_id - _FIRST_ID) * 60)
    return Entry(
        post_id=post_id,
        body=row.found.name,
        md5=facts["md5"],
        ext=facts["ext"],
        size_bytes=row.found.size_bytes,
        width=facts["width"],
        height=facts["height"],
        rating=row.rating,
        tags=row.tags,
        created_at=created_at,
        updated_at=created_at,
        score=rng.randint(0, 30),
        duration_s=facts["duration_s"],
    )
