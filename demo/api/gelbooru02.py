"""The Gelbooru 0.2 dialect in its two styles: safebooru.org's bare list and gelbooru.com's."""

from __future__ import annotations

import datetime
import html
from collections.abc import Mapping
from typing import TypeVar
from xml.etree import ElementTree

from demo.api.search import (
    Grammar,
    Record,
    RefusedError,
    as_int,
    is_gone,
    page_of,
    page_size,
    parse_query,
    search,
    shard,
    status_word,
    tag_record,
)
from demo.collection import RATINGS, Collection, Entry, Tag
from demo.media import SHAPES

_Item = TypeVar("_Item")

MAX_LIMIT = 100
TYPES = {"general": 0, "artist": 1, "copyright": 3, "character": 4, "meta": 5}
_CENTRAL = datetime.timezone(datetime.timedelta(hours=-5))  # the board's own clock
_LETTERS = {"safe": "g", **{name: letter for letter, name in RATINGS.items()}}
# safebooru.org took over the four ratings late: every tenth post still says "safe".
_OLD_WORDS = {"g": "safe"}


def _rating(name: str) -> frozenset[str] | None:
    letter = _LETTERS.get(name) or (name if name in RATINGS else None)
    return frozenset(letter) if letter else None


GRAMMAR = Grammar(
    rating=_rating,
    orders={"id": "id_desc", "id:desc": "id_desc", "id:asc": "id"}
    | {"score": "score", "score:desc": "score", "score:asc": "score_asc"},
    statuses={},
    order_word="sort",
    hides=is_gone,
)


def check_key(params: Mapping[str, str]) -> None:
    """gelbooru.com requires a key; raises RefusedError 401 without one."""
    if not params.get("api_key") or as_int(params.get("user_id"), -1) < 0:
        raise RefusedError(401, [])


def find(collection: Collection, params: Mapping[str, str]) -> tuple[list[Entry], Record]:
    """The page of posts that `tags`, `pid` and `limit` select, and the response's attributes."""
    query = parse_query(params.get("tags", ""), GRAMMAR, collection.tags)
    found = search(collection, query)
    if params.get("id"):
        post_id = as_int(params["id"], -1)
        found = [entry for entry in found if entry.post_id == post_id]
    return _page(found, params)


def _page(found: list[_Item], params: Mapping[str, str]) -> tuple[list[_Item], Record]:
    """The page that `pid` (from 0) and `limit` select, and the response's attributes."""
    limit = page_size(params, MAX_LIMIT, MAX_LIMIT)
    number = max(as_int(params.get("pid"), 0), 0)
    attributes = {"limit": limit, "offset": number * limit, "count": len(found)}
    return page_of(found, number, limit), attributes


def safebooru_json(entries: list[Entry], cdn: str) -> list[Record]:
    """safebooru.org's response with json=1: a bare list; the file's md5 is called `hash`."""
    return [_safebooru_post(entry, cdn) for entry in entries]


def _safebooru_post(entry: Entry, cdn: str) -> Record:
    sample_width, sample_height = _sample_size(entry)
    return {
        "preview_url": f"{cdn}/thumbnails/{_folder(entry)}/thumbnail_{entry.name_hash}.jpg",
        "sample_url": _safebooru_sample(entry, cdn),
        "file_url": f"{cdn}/images/{_folder(entry)}/{entry.name_hash}.{entry.ext}",
        "directory": int(_folder(entry)),
        "hash": entry.md5,
        "width": entry.width,
        "height": entry.height,
        "id": entry.post_id,
        "image": f"{entry.name_hash}.{entry.ext}",
        "change": int(entry.updated_at),
        "owner": entry.uploader,
        "parent_id": 0,
        "rating": _rating_word(entry),
        "sample": bool(sample_width),
        "sample_height": sample_height,
        "sample_width": sample_width,
        "score": entry.score or None,
        "tags": " ".join(entry.all_tags),
        "source": entry.source,
        "status": status_word(entry),
        "has_notes": False,
        "comment_count": 0,
    }


def safebooru_xml(entries: list[Entry], attributes: Record, cdn: str) -> str:
    """safebooru.org's response without json=1: `<posts><post …/></posts>`, with `md5`."""
    root = ElementTree.Element(
        "posts", count=str(attributes["count"]), offset=str(attributes["offset"])
    )
    for entry in entries:
        record = _safebooru_post(entry, cdn)
        preview_width, preview_height = SHAPES["thumbnail250"].size_of(entry)
        ElementTree.SubElement(
            root,
            "post",
            {
                "height": str(entry.height),
                "score": "" if record["score"] is None else str(record["score"]),
                "file_url": record["file_url"],
                "parent_id": "",
                "sample_url": record["sample_url"],
                "sample_width": str(record["sample_width"] or entry.width),
                "sample_height": str(record["sample_height"] or entry.height),
                "preview_url": record["preview_url"],
                "rating": record["rating"],
                # The real answers pad the tags with a space on both sides.
                "tags": f" {record['tags']} ",
                "id": str(entry.post_id),
                "width": str(entry.width),
                "change": str(record["change"]),
                "md5": entry.md5,
                "creator_id": str(entry.uploader_id),
                "has_children": "false",
                "created_at": _date(entry),
                "status": status_word(entry),
                "source": entry.source,
                "has_notes": "false",
                "has_comments": "false",
                "preview_width": str(preview_width),
                "preview_height": str(preview_height),
            },
        )
    return _xml(root)


def deleted_xml(collection: Collection, params: Mapping[str, str]) -> str:
    """The feed `deleted=show`: deleted posts above `last_id`, oldest first."""
    last_id = as_int(params.get("last_id"), 0)
    limit = page_size(params, MAX_LIMIT, MAX_LIMIT)
    gone = [e for e in collection if is_gone(e) and e.post_id > last_id]
    root = ElementTree.Element("posts", count=str(len(gone)), offset="0")
    for entry in gone[:limit]:
        deleted_at = str(int(entry.updated_at))
        ElementTree.SubElement(
            root, "post", id=str(entry.post_id), md5=entry.md5, deleted=deleted_at
        )
    return _xml(root)


def gelbooru_json(entries: list[Entry], attributes: Record, cdn: str) -> Record:
    """gelbooru.com's response: no `post` key where nothing is found; tags escape HTML."""
    answer: Record = {"@attributes": attributes}
    if entries:
        answer["post"] = [_gelbooru_post(entry, cdn) for entry in entries]
    return answer


def gelbooru_xml(entries: list[Entry], attributes: Record, cdn: str) -> str:
    """gelbooru.com's response without json=1: the same fields as elements."""
    root = ElementTree.Element("posts", {key: str(value) for key, value in attributes.items()})
    for entry in entries:
        element = ElementTree.SubElement(root, "post")
        for key, value in _gelbooru_post(entry, cdn).items():
            # XML escapes by itself; the JSON's own escaping is not doubled.
            ElementTree.SubElement(element, key).text = html.unescape(str(value))
    return _xml(root)


def _gelbooru_post(entry: Entry, cdn: str) -> Record:
    sample_width, sample_height = _sample_size(entry)
    preview_width, preview_height = SHAPES["thumbnail250"].size_of(entry)
    place = shard(entry.md5)
    sample = f"{cdn}/samples/{place}/sample_{entry.md5}.jpg" if sample_width else ""
    return {
        "id": entry.post_id,
        "created_at": _date(entry),
        "score": entry.score,
        "width": entry.width,
        "height": entry.height,
        "md5": entry.md5,
        "directory": place,
        "image": f"{entry.md5}.{entry.ext}",
        "rating": RATINGS[entry.rating],
        "source": html.escape(entry.source),
        "change": int(entry.updated_at),
        "owner": entry.uploader,
        "creator_id": entry.uploader_id,
        "parent_id": 0,
        "sample": int(bool(sample_width)),
        "preview_height": preview_height,
        "preview_width": preview_width,
        "tags": html.escape(" ".join(entry.all_tags)).replace("&#x27;", "&#039;"),
        "title": "",
        "has_notes": "false",
        "has_comments": "false",
        "file_url": f"{cdn}/images/{place}/{entry.md5}.{entry.ext}",
        "preview_url": f"{cdn}/thumbnails/{place}/thumbnail_{entry.md5}.jpg",
        "sample_url": sample,
        "sample_height": sample_height,
        "sample_width": sample_width,
        "status": status_word(entry),
        "post_locked": 0,
        "has_children": "false",
    }


def find_tags(collection: Collection, params: Mapping[str, str]) -> tuple[list[Tag], Record]:
    """The tags that `name`, `names`, `name_pattern` (SQL's %) or `id` select."""
    found = sorted(collection.tags.values(), key=lambda tag: tag.name)
    names = [*params.get("names", "").split(), *params.get("name", "").split()]
    if names:
        found = [tag for tag in found if tag.name in names]
    if params.get("name_pattern"):
        part = params["name_pattern"].strip("%").lower()
        found = [tag for tag in found if part in tag.name]
    if params.get("id"):
        tag_id = as_int(params["id"], -1)
        found = [tag for tag in found if tag.tag_id == tag_id]
    return _page(found, params)


def tags_json(found: list[Tag], attributes: Record) -> Record:
    """gelbooru.com's response to s=tag with json=1."""
    return {
        "@attributes": attributes,
        "tag": [tag_record(tag, TYPES, ambiguous=0) for tag in found],
    }


def tags_xml(found: list[Tag]) -> str:
    """The response to s=tag in XML."""
    root = ElementTree.Element("tags", type="array")
    for tag in found:
        record = tag_record(tag, TYPES, ambiguous="false")
        ElementTree.SubElement(root, "tag", {key: str(value) for key, value in record.items()})
    return _xml(root)


def _folder(entry: Entry) -> str:
    return str(entry.post_id // 1000)


def _sample_size(entry: Entry) -> tuple[int, int]:
    size = SHAPES["sample850"].size_of(entry)
    made = entry.duration_s is None and size != (entry.width, entry.height)
    return size if made else (0, 0)


def _safebooru_sample(entry: Entry, cdn: str) -> str:
    if _sample_size(entry)[0]:
        return f"{cdn}/samples/{_folder(entry)}/sample_{entry.name_hash}.jpg"
    return f"{cdn}/images/{_folder(entry)}/{entry.name_hash}.{entry.ext}"


def _rating_word(entry: Entry) -> str:
    if entry.post_id % 10 == 0:
        return _OLD_WORDS.get(entry.rating, RATINGS[entry.rating])
    return RATINGS[entry.rating]


def _date(entry: Entry) -> str:
    moment = datetime.datetime.fromtimestamp(int(entry.created_at), _CENTRAL)
    # Not strftime: its names of days depend on the locale.
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.weekday()]
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    return f"{day} {months[moment.month - 1]} {moment:%d %H:%M:%S %z %Y}"


def _xml(root: ElementTree.Element) -> str:
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'
