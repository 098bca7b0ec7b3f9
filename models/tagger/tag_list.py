"""Reads the tag list of a user's tagger, and finds the tags that stand for our labels."""

import csv
from collections.abc import Sequence
from pathlib import Path

from dataset.errors import UsageError, listed, nearest
from dataset.vocabulary import appearance

_NAME = "name"
_HEADERS = {_NAME, "tag", "tags", "label"}


def read_tags(path: Path) -> list[str]:
    """Returns the tags of a list in the order of the model's outputs, with underscores.

    A .csv with a column `name` (`tag_id,name,category,count`, as WD taggers have it), a CSV without
    a header, whose first column counts, or a text file of one tag a row; empty rows are passed
    over. Raises UsageError naming the file, and the row where there is one.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file; a list of tags, one a row, wanted")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from error
    found = _of_csv(text, path) if path.suffix.lower() == ".csv" else _of_text(text)
    if not found:
        raise UsageError(f"{path} holds no tag; one a row wanted")
    return found


def columns_of_labels(tags: Sequence[str], labels: Sequence[str], *, where: str) -> list[list[int]]:
    """Returns for each label the columns of its tags: itself, its aliases, what implies it.

    So `very_long_hair` counts for `long_hair`. Raises UsageError naming each label without a tag.
    """
    meaning = appearance().meaning
    columns: dict[str, list[int]] = {label: [] for label in labels}
    for column, tag in enumerate(tags):
        for meant in {tag, *meaning.get(tag, ())} & columns.keys():
            columns[meant].append(column)
    faults = [f'"{name}"{nearest(name, tags)}' for name, found in columns.items() if not found]
    if faults:
        raise UsageError(
            f"{where} has no tag for {len(faults)} of {len(columns)} labels; a tagger that knows "
            f"them all is wanted:\n{listed(faults)}"
        )
    return list(columns.values())


def _of_text(text: str) -> list[str]:
    return [_normal(line) for line in text.splitlines() if line.strip()]


def _of_csv(text: str, path: Path) -> list[str]:
    rows = csv.reader(text.splitlines())
    found: list[str] = []
    column = 0
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        if not found and (named := _named(row)) is not None:
            column = named
            continue
        if len(row) <= column or not row[column].strip():
            raise UsageError(
                f"{path}, line {rows.line_num}: no tag in column {column + 1}; found {row}"
            )
        found.append(_normal(row[column]))
    return found


def _named(row: Sequence[str]) -> int | None:
    """The column that a header names as that of the tags; None if the row is no header."""
    names = [cell.strip().lower() for cell in row]
    return next((place for place, name in enumerate(names) if name in _HEADERS), None)


def _normal(tag: str) -> str:
    return tag.strip().lower().replace(" ", "_")
