"""Small files beside pictures that hold their tags, as training scripts and downloaders write."""

import json
import posixpath
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dataset.importers.danbooru import read_record
from dataset.importers.fields import TAGS, cells_read, json_cells
from dataset.importers.files import UNREADABLE, Files, read
from dataset.importers.records import BadField, Entry, Place, Read, by_kind, shown, split_tags

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
        told = [tag for kind in kinds for tag in kind]
        lists[TAGS] = [tag for tag in lists[TAGS] if tag not in told]
    return {**lists, "rating": values.get("rating")}


def _is_danbooru(values: Mapping[str, Any]) -> bool:
    tags = values.get("tags")
    nested = isinstance(tags, list) and bool(tags) and isinstance(tags[0], Mapping)
    return nested or any(key.startswith("tag_string") for key in values)
