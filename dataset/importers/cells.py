"""What a row of a table or a sidecar says in its columns: tags by kind and a rating."""

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
)

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
