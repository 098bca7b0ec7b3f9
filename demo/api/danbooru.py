"""The Danbooru dialect: records of /posts.json and /tags.json, searches, sequential paging."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from demo.api.search import (
    Grammar,
    Record,
    RefusedError,
    as_int,
    page_number,
    page_of,
    page_size,
    parse_query,
    search,
    shard,
)
from demo.collection import TAG_KINDS, Collection, Entry, Tag
from demo.media import SHAPES

DEFAULT_LIMIT = 20
MAX_LIMIT = 200
MAX_PAGE = 1000
MAX_TAGS = 2
MAX_TAG_LIMIT = 1000
CATEGORIES = {"general": 0, "artist": 1, "copyright": 3, "character": 4, "meta": 5}
_EASTERN = datetime.timezone(datetime.timedelta(hours=-4))  # the board's own clock
_MEDIA_WITHHELD = ("md5", "file_key", "variants")


def _rating(name: str) -> frozenset[str] | None:
    return frozenset(name[0]) if name and name[0] in "gsqe" else None


GRAMMAR = Grammar(
    rating=_rating,
    orders={"id": "id", "id_asc": "id", "id_desc": "id_desc"}
    | {"score": "score", "score_desc": "score", "score_asc": "score_asc"},
    statuses={
        "any": lambda entry: True,
        "all": lambda entry: True,
        "active": lambda entry: entry.status == "active" and not entry.banned,
        "deleted": lambda entry: entry.status == "deleted",
        "pending": lambda entry: entry.status == "pending",
        "flagged": lambda entry: entry.status == "flagged",
        "modqueue": lambda entry: entry.status in ("pending", "flagged"),
        "banned": lambda entry: entry.banned,
    },
    free=frozenset({"status", "rating", "limit", "id", "md5", "score", "filetype"}),
)


def posts(collection: Collection, params: Mapping[str, str], cdn: str) -> list[Record]:
    """The response of /posts.json. `cdn` is the media's root, an absolute URL.

    Raises:
        RefusedError: 422 over the tag limit, 410 beyond page 1000.

    """
    query = parse_query(params.get("tags", ""), GRAMMAR, collection.tags)
    if query.counted_words > MAX_TAGS:
        raise _error(
            422,
            "PostQuery::TagLimitError",
            f"You cannot search for more than {MAX_TAGS} tags at a time.",
        )
    limit = page_size(params, query.limit or DEFAULT_LIMIT, MAX_LIMIT)
    found = search(collection, query)
    shown = _paginate(found, params.get("page", "1"), limit)
    only = params.get("only")
    records = [post(entry, cdn) for entry in shown]
    return [_only(record, only) for record in records] if only else records


def _paginate(found: list[Entry], page: str, limit: int) -> list[Entry]:
    sequential = re.fullmatch(r"([ab])([0-9]{1,18})", page.lower())
    if not sequential:
        number = max(as_int(page, 1), 1)
        if number > MAX_PAGE:
            raise _error(
                410,
                "PaginationExtension::PaginationError",
                f"You cannot go beyond page {MAX_PAGE}.",
            )
        return page_of(found, number - 1, limit)
    # Sequential pages ignore the search's order and are always descending by id:
    # page=a<id> returns the next higher ids, not the highest ones.
    side, edge = sequential[1], int(sequential[2])
    by_id = sorted(found, key=lambda entry: entry.post_id)
    if side == "b":
        return [entry for entry in reversed(by_id) if entry.post_id < edge][:limit]
    return [entry for entry in by_id if entry.post_id > edge][:limit][::-1]


def one_post(collection: Collection, post_id: int, params: Mapping[str, str], cdn: str) -> Record:
    """The response of /posts/<id>.json; raises RefusedError 404."""
    entry = collection.by_id(post_id)
    if entry is None:
        raise _error(404, "ActiveRecord::RecordNotFound", "That record was not found.")
    record = post(entry, cdn)
    return _only(record, params["only"]) if params.get("only") else record


def count(collection: Collection, params: Mapping[str, str]) -> Record:
    """The response of /counts/posts.json."""
    query = parse_query(params.get("tags", ""), GRAMMAR, collection.tags)
    return {"counts": {"posts": len(search(collection, query))}}


def post(entry: Entry, cdn: str) -> Record:
    """One record, with the real board's keys in its order; withheld posts lack md5 and URLs."""
    record: Record = {
        "id": entry.post_id,
        "created_at": _date(entry.created_at),
        "uploader_id": entry.uploader_id,
        "score": entry.score,
        "source": entry.source,
        "md5": entry.md5,
        "last_comment_bumped_at": None,
        "rating": entry.rating,
        "image_width": entry.width,
        "image_height": entry.height,
        "tag_string": " ".join(entry.all_tags),
        "fav_count": entry.fav_count,
        "file_ext": entry.ext,
        "last_noted_at": None,
        "parent_id": None,
        "has_children": False,
        "approver_id": entry.approver_id,
        "tag_count_general": len(entry.tags["general"]),
        "tag_count_artist": len(entry.tags["artist"]),
        "tag_count_character": len(entry.tags["character"]),
        "tag_count_copyright": len(entry.tags["copyright"]),
        "file_size": entry.size_bytes,
        "up_score": max(entry.score, 0),
        "down_score": min(entry.score, 0),
        "is_pending": entry.status == "pending",
        "is_flagged": entry.status == "flagged",
        "is_deleted": entry.status == "deleted",
        "tag_count": len(entry.all_tags),
        "updated_at": _date(entry.updated_at),
        "is_banned": entry.banned,
        "pixiv_id": None,
        "last_commented_at": None,
        "has_active_children": False,
        "bit_flags": 0,
        "tag_count_meta": len(entry.tags["meta"]),
        "has_large": _has_sample(entry),
        "has_visible_children": False,
        "media_asset": _media_asset(entry, cdn),
    }
    # The real record's order of kinds, which is not that of its categories.
    record |= {f"tag_string_{kind}": " ".join(entry.tags[kind]) for kind in TAG_KINDS}
    if entry.withheld:
        del record["md5"]
        return record
    urls = {variant["type"]: variant["url"] for variant in record["media_asset"]["variants"]}
    record["file_url"] = urls["original"]
    record["large_file_url"] = urls.get("sample", urls["original"])
    record["preview_file_url"] = urls["180x180"]
    return record


def _has_sample(entry: Entry) -> bool:
    largest = SHAPES["sample850"].max_width or 0
    return bool(entry.film) or (entry.duration_s is None and entry.width > largest)


def _media_asset(entry: Entry, cdn: str) -> Record:
    made_up = hashlib.sha256(f"{entry.post_id} {entry.md5}".encode()).hexdigest()
    asset: Record = {
        "id": entry.post_id + 20_000_000,
        "created_at": _date(entry.created_at - 60),
        "updated_at": _date(entry.created_at - 58),
        "md5": entry.md5,
        "file_ext": entry.ext,
        "file_size": entry.size_bytes,
        "image_width": entry.width,
        "image_height": entry.height,
        "duration": entry.duration_s,
        "status": "active",
        "file_key": made_up[:9],
        "is_public": True,
        "pixel_hash": made_up[-32:],
        "variants": _variants(entry, cdn),
    }
    if entry.withheld:
        return {key: value for key, value in asset.items() if key not in _MEDIA_WITHHELD}
    return asset


def _variants(entry: Entry, cdn: str) -> list[Record]:
    names = ["180x180", "360x360", "720x720", *(["sample"] if _has_sample(entry) else [])]
    variants = [_variant(entry, cdn, name) for name in names]
    original = f"{cdn}/original/{shard(entry.md5)}/{entry.md5}.{entry.ext}"
    return [
        *variants,
        {
            "type": "original",
            "url": original,
            "width": entry.width,
            "height": entry.height,
            "file_ext": entry.ext,
        },
    ]


def _variant(entry: Entry, cdn: str, name: str) -> Record:
    shape = SHAPES["sample850" if name == "sample" else name]
    width, height, ext = *shape.size_of(entry), shape.ext
    if name == "sample" and entry.film:
        width, height, ext = entry.width, entry.height, "webm"
    prefix = "sample-" if name == "sample" else ""
    return {
        "type": name,
        "url": f"{cdn}/{name}/{shard(entry.md5)}/{prefix}{entry.md5}.{ext}",
        "width": width,
        "height": height,
        "file_ext": ext,
    }


def tags(collection: Collection, params: Mapping[str, str]) -> list[Record]:
    """Response of /tags.json: search[name], [name_comma], [name_matches], [category], [order]."""
    found = list(collection.tags.values())
    names = params.get("search[name]") or params.get("search[name_comma]")
    if names:
        listed = frozenset(names.lower().split(","))
        found = [tag for tag in found if tag.name in listed]
    if params.get("search[name_matches]"):
        parts = params["search[name_matches]"].lower().split("*")
        pattern = re.compile(".*".join(re.escape(part) for part in parts))
        found = [tag for tag in found if pattern.fullmatch(tag.name)]
    if params.get("search[category]"):
        categories = params["search[category]"].split(",")
        found = [tag for tag in found if str(CATEGORIES[tag.kind]) in categories]
    if params.get("search[order]") == "count":
        found.sort(key=lambda tag: (-tag.post_count, tag.name))
    elif params.get("search[order]") != "name":
        found.sort(key=lambda tag: -tag.tag_id)
    limit = page_size(params, DEFAULT_LIMIT, MAX_TAG_LIMIT)
    return [_tag(tag) for tag in page_of(found, page_number(params), limit)]


def _tag(tag: Tag) -> Record:
    since = _date(1_400_000_000 + tag.tag_id * 3600)
    return {
        "id": tag.tag_id,
        "name": tag.name,
        "post_count": tag.post_count,
        "category": CATEGORIES[tag.kind],
        "created_at": since,
        "updated_at": since,
        "is_deprecated": False,
        "words": re.findall(r"[^\W_]+", tag.name),
    }


def _date(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, _EASTERN)
    return moment.isoformat(timespec="milliseconds")


def _error(status: int, error: str, message: str) -> RefusedError:
    body = {"success": False, "error": error, "message": message, "backtrace": []}
    return RefusedError(status, body)


def _only(record: Record, only: str) -> Record:
    """The fields of a record that `only=id,md5,media_asset[variants]` selects."""
    selected: Record = {}
    for name, nested in re.findall(r"([\w]+)(?:\[([^\]]*)\])?", only):
        if name not in record:
            continue
        value: Any = record[name]
        if nested and isinstance(value, dict):
            value = {key: value[key] for key in nested.split(",") if key in value}
        selected[name] = value
    return selected
