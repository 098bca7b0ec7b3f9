"""Tables of tags: a CSV with a row a picture, or JSON of rows, or of file names and their tags."""

import csv
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import IO, Any

from dataset.errors import UsageError
from dataset.importers.files import (
    DAMAGED,
    UNREADABLE,
    Files,
    is_picture,
    json_lines,
    numbered_lines,
    spellings,
)
from dataset.importers.records import (
    FLAGS,
    NAMESPACES,
    RATING_TAGS,
    TAG_KINDS,
    BadField,
    Entry,
    Fault,
    Place,
    Read,
    by_kind,
    excluded_in,
    least_safe,
    parse_json,
    rating_of,
    shown,
    split_tags,
    tags_of,
    whole,
)

FILE, RATING, TAGS, CAPTION = "file", "rating", "tags", "caption"

# Fields of other programs' records that hold no tags.
_NO_TAGS = frozenset(
    {FILE, RATING, CAPTION, "id", "md5", "source", "score", "width", "height", "size", "url"}
    | {"train_resolution", "created_at", "updated_at", "filename", "extension", "category"}
)


# What sites say in place of a rating, by the field's name in the records of downloaders.
ADULT = frozenset({"x_restrict", "sensitive", "possibly_sensitive", "is_mature", "nsfw"})

MAX_JSON_BYTES = 512 * 2**20
_JSON_LINES = (".jsonl", ".ndjson")

Row = tuple[Place, Any]  # a mapping of columns, or a Fault


def read_table_of_tags(
    table: IO[bytes], name: str, pictures: Files, *, beside: str = ""
) -> Iterator[Read]:
    """Yields an entry or a fault for each row of a table.

    name: of the table, whose ending says what it is; beside: the folder in the set that its file
    names start from. Raises UsageError if it is no table at all, such as a CSV without a column
    `file`.
    """
    finder = _Finder(pictures, beside)
    first: dict[str, Place] = {}
    for place, cells in _rows(table, name):
        if isinstance(cells, Fault):
            yield cells
            continue
        try:
            entry = _entry(place, cells, finder)
            assert entry.file is not None
            if first.setdefault(entry.file, place) != place:
                raise BadField(
                    FILE, f"{shown(entry.file)} was already named in {first[entry.file]}"
                )
            yield entry
        except BadField as bad:
            yield bad.at(place)


def _entry(place: Place, cells: Any, finder: "_Finder") -> Entry:
    if not isinstance(cells, Mapping):
        raise BadField("", f"is {shown(cells)}; file and tags wanted")
    file = finder.find(cells.get(FILE))
    tags, rating = cells_read(cells)
    return Entry(place=place, file=file, tags=tags, rating=rating)


def _rows(table: IO[bytes], name: str) -> Iterator[Row]:
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if suffix == ".csv":
            yield from _csv_rows(table, name)
        elif suffix in _JSON_LINES:
            yield from ((place, _row(value)) for place, value in json_lines(table, name))
        elif suffix == ".json":
            yield from _json_rows(table, name)
        else:
            raise UsageError(f"{name}: a table of tags ends in .csv, .json or .jsonl")
    except (*UNREADABLE, *DAMAGED) as error:
        yield Place(name), Fault(Place(name), "", f"cannot be read any further: {error}")


def _csv_rows(table: IO[bytes], name: str) -> Iterator[Row]:
    lines = _csv_lines(table)
    reader = csv.reader(lines, strict=True)
    columns = _columns(reader, name)
    while True:
        before = reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            place = Place(name, f"line {before + 1}")
            yield place, Fault(place, "", f"is no row of a CSV: {error}")
            continue
        place = Place(name, f"line {reader.line_num}")
        if not cells:
            continue
        if any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
            yield place, Fault(place, "", "is not UTF-8; save the table as UTF-8")
        elif len(cells) > len(columns):
            extra = len(cells) - len(columns)
            yield place, Fault(place, "", f"has {extra} cell(s) more than there are columns")
        else:
            yield place, dict(zip(columns, cells, strict=False))


def _csv_lines(table: IO[bytes]) -> Iterator[str]:
    for number, line in numbered_lines(table):
        if line is None:
            yield "\udcff\n"  # refused as its row
            continue
        text = line.decode("utf-8", "surrogateescape")
        yield text.removeprefix("\ufeff") if number == 1 else text


def _columns(reader: Any, name: str) -> list[str]:
    try:
        columns = [whole(column).strip() for column in next(reader, [])]
    except csv.Error as error:
        raise UsageError(f"{name}, line 1: {error}") from error
    if FILE not in columns:
        there = ", ".join(columns[:20]) or "none"
        raise UsageError(f'{name}: no column "{FILE}"; its columns are: {there}')
    double = sorted({column for column in columns if columns.count(column) > 1})
    if double:
        raise UsageError(f"{name}: columns that stand twice: {', '.join(map(shown, double))}")
    return columns


def _json_rows(table: IO[bytes], name: str) -> Iterator[Row]:
    content = table.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise UsageError(f"{name} is larger than {MAX_JSON_BYTES >> 20} MiB; write JSON lines")
    values = parse_json(content, Place(name))
    if isinstance(values, Fault):
        raise UsageError(str(values))
    if isinstance(values, Mapping):
        for number, (file, value) in enumerate(values.items(), start=1):
            cells = dict(value) if isinstance(value, Mapping) else {"tags": value}
            yield Place(name, f"record {number}"), _row({**cells, FILE: file})
    elif isinstance(values, list):
        for number, value in enumerate(values, start=1):
            yield Place(name, f"record {number}"), _row(value)
    else:
        raise UsageError(f"{name} is {shown(values)}; a list of rows, or files with tags, wanted")


def _row(value: Any) -> Any:
    return json_cells(value) if isinstance(value, Mapping) else value


class _Finder:
    """Finds the file that a row names, in any spelling: by its path beside the table, else by its
    bare name, with or without ending; of an absolute path of elsewhere, by as much as the set has.
    """

    def __init__(self, pictures: Files, beside: str) -> None:
        self._pictures = pictures
        self._beside = beside
        self._paths: dict[str, list[str]] | None = None
        self._names: dict[str, list[str]] = defaultdict(list)

    def find(self, name: Any) -> str:
        if not isinstance(name, str) or not name.strip():
            raise BadField(FILE, f"is {shown(name)}; the name of a picture wanted")
        plain = whole(name).strip().replace("\\", "/")
        absolute = re.match("/|[A-Za-z]:/", plain)
        if "\0" in plain or ".." in plain.split("/"):
            raise BadField(FILE, f"{shown(name)} points outside {self._pictures.name}")
        beside = posixpath.normpath(posixpath.join(self._beside, plain))
        if not absolute and self._pictures.size(beside) is not None:
            return beside
        found = self._ending(plain) if absolute else self._spelled(beside, plain)
        if not found:
            raise BadField(FILE, f"{shown(name)} is not in {self._pictures.name}")
        if len(found) > 1:
            could = " or ".join(found[:3])
            raise BadField(FILE, f"{shown(name)} could be {could}; name it with its folder")
        return found[0]

    def _ending(self, path: str) -> list[str]:
        """The files whose whole path the end of a path is; the longest such end counts."""
        parts = path.split("/")
        ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
        return next(filter(None, (self._by(self._index()[0], end) for end in ends)), [])

    def _spelled(self, beside: str, plain: str) -> list[str]:
        paths, names = self._index()
        return self._by(paths, beside) or ([] if "/" in plain else self._by(names, plain))

    @staticmethod
    def _by(index: Mapping[str, list[str]], name: str) -> list[str]:
        return sorted({file for spelled in spellings(name) for file in index.get(spelled, ())})

    def _index(self) -> tuple[Mapping[str, list[str]], Mapping[str, list[str]]]:
        """The set's files by path and by bare name, pictures also without their ending."""
        if self._paths is None:
            self._paths = defaultdict(list)
            for file in self._pictures.names():
                for path in spellings(file):
                    for one in {path, posixpath.splitext(path)[0] if is_picture(path) else path}:
                        self._paths[one].append(file)
                        self._names[posixpath.basename(one)].append(file)
        return self._paths, self._names


def cells_read(
    cells: Mapping[str, Any], *, s_means: str = "sensitive"
) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """Returns the tags by kind and the rating (None: not said) of a row; raises BadField.

    A column named after a kind of tags holds such, any other holds general ones: a text with `;` or
    `,` between the tags (see `split_tags`), or a list of texts. A tag `character:…` is of that
    kind; `rating:…` is a rating. Of several ratings the least safe counts.
    """
    tags: dict[str, list[str]] = {kind: [] for kind in TAG_KINDS}
    for column, cell in cells.items():
        if column in _NO_TAGS or column in ADULT or cell is None:
            continue
        kind = column.removeprefix("tags_")
        tags[kind if kind in TAG_KINDS else "general"].extend(_tags(column, cell))
    rating = cells.get(RATING)
    if rating is not None and not isinstance(rating, str):
        raise BadField(RATING, f"is {shown(rating)}; a text wanted")
    ratings = [rating_of(rating or "", field=RATING, s_means=s_means)]
    ratings += ["explicit" for column in ADULT & cells.keys() if _is_up(cells[column])]
    tags["general"].extend(excluded_in(str(cells.get(CAPTION, ""))))
    given, tags["general"] = tags["general"], []
    for tag in given:
        namespace, _, name = tag.partition(":")
        if namespace == RATING and name:
            ratings.append(rating_of(name.strip("_"), field=tag, s_means=s_means))
        elif tag in RATING_TAGS:
            ratings.append(RATING_TAGS[tag])
        else:
            named = NAMESPACES.get(namespace) if name.strip("_") else None
            tags[named or "general"].append(name.strip("_") if named else tag)
    return by_kind(tags), least_safe(*ratings)


def _is_up(value: Any) -> bool:
    return FLAGS.get(str(value).strip().lower(), True)


def _tags(column: str, cell: Any) -> Iterator[str]:
    if isinstance(cell, str):
        yield from split_tags(cell, cell=True)
    elif isinstance(cell, list) and all(isinstance(one, str) for one in cell):
        for one in cell:
            yield from tags_of(one)
    else:
        raise BadField(column, f"is {shown(cell)}; a text or a list of texts wanted")


def json_cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns of a JSON row, with a text of all tags taken apart.

    `tags` may also be an object of lists by kind, or of numbers by tag, as taggers write it. Where
    there are none, those of a `caption` count.
    """
    cells = dict(values)
    tags = cells.get(TAGS, cells.get(CAPTION))
    if isinstance(tags, str):
        # Only with a `;` it may be the text of a cell; without, blanks part it.
        cells[TAGS] = list(split_tags(tags, cell=";" in tags))
    elif isinstance(tags, Mapping) and any(isinstance(one, int | float) for one in tags.values()):
        cells[TAGS] = list(tags)
    elif isinstance(tags, Mapping):
        del cells[TAGS]
        cells |= {f"tags_{kind}": value for kind, value in tags.items()}
    return cells
