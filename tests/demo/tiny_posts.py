"""Made posts without bytes, and posts with pictures of a few bytes of every kind to refuse."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from demo.collection import Collection, Entry, by_kind, md5_of

PAGE = b"<!DOCTYPE html><title>Not available</title>"
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
# Why a careful crawl refuses a post of the kind; None: it keeps it.
REASONS: dict[str | None, str | None] = {
    None: None,
    "duplicate": None,
    "explicit": "rating",
    "comic": "tag_comic",
    "video": "format",
    "truncated": "corrupt",
    "empty": "empty",
    "mislabelled": "mislabelled",
    "html": "not_a_picture",
    "animation": "animated",
    "wrong_md5": "wrong_md5",
}
_ODD = [kind for kind in REASONS if kind is not None]
_EVERY = 5


class NoBodies:
    """Bodies of a collection whose files are not read."""

    def read(self, name: str) -> bytes:
        raise KeyError(name)


def made_entry(post_id: int, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "post_id": post_id,
        "body": f"{post_id}.jpg",
        "md5": md5_of(str(post_id).encode()),
        "ext": "jpg",
        "size_bytes": 1000,
        "width": 600,
        "height": 800,
        "rating": "g",
        "tags": by_kind(general=("1girl",)),
        "created_at": 1_790_000_000.0,
        "updated_at": 1_790_000_000.0,
    }
    return Entry(**(fields | changes))


def made_collection(*entries: Entry) -> Collection:
    return Collection(list(entries), NoBodies())


class InMemory:
    """Bodies in a dict."""

    def __init__(self, bodies: Mapping[str, bytes]) -> None:
        self._bodies = bodies

    def read(self, name: str) -> bytes:
        return self._bodies[name]


def tiny_collection(count: int, *, odd: bool = True) -> Collection:
    """Posts 1 to `count`; with `odd`, every fifth is of the next one of the kinds of REASONS."""
    bodies: dict[str, bytes] = {"poster.png": _picture(0, "png")}
    entries = []
    for post_id in range(1, count + 1):
        kind = _ODD[post_id // _EVERY % len(_ODD)] if odd and post_id % _EVERY == 0 else None
        entry, body = _post(post_id, kind)
        bodies[entry.body] = body
        entries.append(entry)
    return Collection(entries, InMemory(bodies))


def _post(post_id: int, kind: str | None) -> tuple[Entry, bytes]:
    ext = list(FORMATS)[post_id % 3]
    body = _picture(post_id, ext)
    if kind == "duplicate":
        ext = list(FORMATS)[(post_id - 1) % 3]
        body = _picture(post_id - 1, ext)
    elif kind == "truncated":
        body = body[: len(body) * 6 // 10]
    elif kind == "empty":
        body, ext = b"", "jpg"  # one md5, and so one address on the board
    elif kind == "mislabelled":
        body, ext = _picture(post_id, "png"), "jpg"
    elif kind == "html":
        body = PAGE + str(post_id).encode()
    elif kind == "animation":
        body, ext = _animation(post_id), "gif"
    elif kind == "video":
        body, ext = b"\x1aE\xdf\xa3" + str(post_id).encode(), "webm"
    md5 = md5_of(b"other" + body if kind == "wrong_md5" else body)
    entry = made_entry(
        post_id,
        body=f"{post_id}.{ext}",
        ext=ext,
        md5=md5,
        size_bytes=len(body),
        width=16,
        height=16,
        rating="e" if kind == "explicit" else "g",
        tags=by_kind(general=("1girl", "comic") if kind == "comic" else ("1girl",)),
        poster="poster.png",  # some bodies are no picture to make thumbnails of
        refusal=kind,
    )
    return entry, body


def _colour(number: int) -> tuple[int, int, int]:
    return number % 251, number // 251 % 251, number * 7 % 251


def _picture(number: int, ext: str) -> bytes:
    picture = Image.new("RGB", (16, 16), _colour(number))
    # Its number in black and white, so that no two are alike, whatever the format loses.
    for place in range(16):
        shade = 255 if number >> place & 1 else 0
        picture.paste(
            (shade, shade, shade),
            (place % 4 * 4, place // 4 * 4, place % 4 * 4 + 4, place // 4 * 4 + 4),
        )
    file = io.BytesIO()
    picture.save(file, FORMATS[ext])
    return file.getvalue()


def _animation(number: int) -> bytes:
    first, second = (Image.new("RGB", (8, 8), _colour(number + more)) for more in (0, 90))
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=[second])
    return file.getvalue()
