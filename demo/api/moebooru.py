"""The Moebooru dialect: records of /post.json and /tag.json, and how it reads a search."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from demo.api.search import (
    Grammar,
    Record,
    RefusedError,
    SizeOf,
    as_int,
    is_gone,
    page_number,
    page_of,
    page_size,
    parse_query,
    search,
    shard,
    status_word,
    tag_record,
)
from demo.collection import Collection, Entry
from demo.media import SHAPES

DEFAULT_LIMIT = 16
MAX_LIMIT = 100
MAX_TAGS = 6
BOARD_NAME = "Omokage"
TYPES = {"general": 0, "artist": 1, "copyright": 3, "character": 4, "meta": 0}
# Moebooru has three ratings; Danbooru's sensitive falls under its questionable.
_COVERED = {"s": frozenset("g"), "q": frozenset("sq"), "e": frozenset("e")}
_WRITTEN = {"g": "s", "s": "q", "q": "q", "e": "e"}


def _rating(name: str) -> frozenset[str] | None:
    return _COVERED.get(name[:1])


GRAMMAR = Grammar(
    rating=_rating,
    orders={"id": "id", "id_asc": "id", "id_desc": "id_desc"}
    | {"score": "score", "score_asc": "score_asc"},
    statuses={"true": is_gone, "all": lambda entry: True},
    hides=is_gone,
    status_word="deleted",
    ext_word="ext",
    free=frozenset({"limit", "order"}),
)


def posts(
    collection: Collection, params: Mapping[str, str], cdn: str, *, size_of: SizeOf
) -> list[Record]:
    """The response of /post.json. `cdn` is the media's root; `size_of` gives derived files' bytes.

    Raises:
        RefusedError: more than six search words.

    """
    text = params.get("tags", "")
    if len(text.split()) > MAX_TAGS:
        reason = f"You cannot search for more than {MAX_TAGS} tags at a time"
        raise RefusedError(500, {"success": False, "reason": reason})
    query = parse_query(text, GRAMMAR, collection.tags)
    limit = page_size(params, query.limit or DEFAULT_LIMIT, MAX_LIMIT)
    shown = page_of(search(collection, query), page_number(params), limit)
    return [post(entry, cdn, size_of) for entry in shown]


def post(entry: Entry, cdn: str, size_of: SizeOf) -> Record:
    """One record, with the real board's keys in its order; deleted posts lack the file URLs."""
    preview_width, preview_height = SHAPES["preview150"].size_of(entry)
    actual_width, actual_height = SHAPES["preview300"].size_of(entry)
    record: Record = {
        "id": entry.post_id,
        "tags": " ".join(entry.all_tags),
        "created_at": int(entry.created_at),
        "creator_id": entry.uploader_id,
        "author": entry.uploader,
        "change": entry.post_id + 5_000_000,
        "source": entry.source,
        "score": entry.score,
        "md5": entry.md5,
        "file_size": entry.size_bytes,
        "file_url": _url(entry, cdn, "image", ext=entry.ext),
        "is_shown_in_index": True,
        "preview_url": f"{cdn}/data/preview/{shard(entry.md5)}/{entry.md5}.jpg",
        "preview_width": preview_width,
        "preview_height": preview_height,
        "actual_preview_width": actual_width,
        "actual_preview_height": actual_height,
        **_sample(entry, cdn, size_of),
        **_jpeg(entry, cdn, size_of),
        "rating": _WRITTEN[entry.rating],
        "has_children": False,
        "parent_id": None,
        "status": status_word(entry),
        "width": entry.width,
        "height": entry.height,
        "is_held": False,
        "frames_pending_string": "",
        "frames_pending": [],
        "frames_string": "",
        "frames": [],
    }
    if is_gone(entry):
        for key in ("sample_url", "jpeg_url", "file_url"):
            del record[key]
    if status_word(entry) != "active":
        record["flag_detail"] = None
    return record


def _url(entry: Entry, cdn: str, folder: str, *, ext: str) -> str:
    # Moebooru's file names hold id and tags; the folder's md5 is what finds the file.
    title = "sample" if folder == "sample" else " ".join(entry.all_tags)[:150].strip()
    name = f"{BOARD_NAME} - {entry.post_id} {title}.{ext}"
    return f"{cdn}/{folder}/{entry.md5}/{quote(name, safe='')}"


def _is_picture(entry: Entry) -> bool:
    return entry.ext in ("jpg", "png", "webp") and entry.duration_s is None


def _sample(entry: Entry, cdn: str, size_of: SizeOf) -> Record:
    width, height = SHAPES["sample1500"].size_of(entry)
    made = _is_picture(entry) and (width, height) != (entry.width, entry.height)
    return {
        "sample_url": _url(entry, cdn, "sample", ext="jpg")
        if made
        else _url(entry, cdn, "image", ext=entry.ext),
        "sample_width": width if made else entry.width,
        "sample_height": height if made else entry.height,
        "sample_file_size": size_of(entry, "sample1500") if made else 0,
    }


def _jpeg(entry: Entry, cdn: str, size_of: SizeOf) -> Record:
    """A png has an additional jpeg; any other file is its own jpeg, with size 0."""
    made = _is_picture(entry) and entry.ext == "png"
    return {
        "jpeg_url": _url(entry, cdn, "jpeg", ext="jpg")
        if made
        else _url(entry, cdn, "image", ext=entry.ext),
        "jpeg_width": entry.width,
        "jpeg_height": entry.height,
        "jpeg_file_size": size_of(entry, "jpeg") if made else 0,
    }


def tags(collection: Collection, params: Mapping[str, str]) -> list[Record]:
    """The response of /tag.json: `name` (a part), `type`, `order`, `limit` (0 = all), `page`."""
    found = sorted(collection.tags.values(), key=lambda tag: tag.name)
    if params.get("name"):
        found = [tag for tag in found if params["name"].lower() in tag.name]
    if params.get("type"):
        number = as_int(params["type"], -1)
        found = [tag for tag in found if TYPES[tag.kind] == number]
    if params.get("order") == "count":
        found.sort(key=lambda tag: -tag.post_count)
    limit = as_int(params.get("limit"), 50)
    if limit > 0:
        found = page_of(found, page_number(params), limit)
    return [tag_record(tag, TYPES, ambiguous=False) for tag in found]
