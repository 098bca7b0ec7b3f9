"""Small files beside pictures that hold their tags, as training scripts and downloaders write."""

import json
import posixpath
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dataset.importers.cells import cells_read, json_cells
from dataset.importers.danbooru import read_record
from dataset.importers.files import UNREADABLE, Files, read
from dataset.importers.records import BadField, Entry, Place, by_kind, shown, split_tags

MAX_BYTES = 2**20

# Boards whose letter s is their only word for safe; elsewhere it may mean sensitive.
_S_IS_SAFE = frozenset({"konachan", "yandere"})


def read_sidecar(picture: str, files: Files) -> Entry | None:
    """Returns what the sidecar of a picture says; None if it has none.

    `a.jpg.json`, `a.json` and `a-danbooru.json` go before `a.jpg.txt` and `a.txt`. Raises BadField
    for one that cannot be read: it may hold a tag for which the picture is refused.
    """
    stem = posixpath.splitext(picture)[0]
    for name in (f"{picture}.json", f"{stem}.json", f"{stem}-danbooru.json"):
        if files.size(name) is not None:
            return _json_entry(picture, name, _text(files, name))
    for name in (f"{picture}.txt", f"{stem}.txt"):
        if files.size(name) is not None:
            tags = by_kind({"general": split_tags(_text(files, name))})
            return Entry(place=Place(name), file=picture, tags=tags)
    return None


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
    kinds = {key: values[key] for key in values if key.startswith("tags") or key == "rating"}
    if any(key.startswith("tags_") for key in kinds):
        kinds.pop("tags", None)  # the same tags once more, without their kinds
    elif isinstance(kinds.get("tags"), Mapping):
        kinds = {**kinds, **json_cells({"tags": kinds.pop("tags")})}
    for key, value in kinds.items():
        if key.startswith("tags") and isinstance(value, str):
            kinds[key] = list(split_tags(value))
    tags, rating = cells_read(kinds, s_means=s_means)
    return Entry(place=place, file=picture, tags=tags, rating=rating)


def _is_danbooru(values: Mapping[str, Any]) -> bool:
    tags = values.get("tags")
    nested = isinstance(tags, list) and bool(tags) and isinstance(tags[0], Mapping)
    return nested or any(key.startswith("tag_string") for key in values)
