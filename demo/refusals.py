"""What a careful client must refuse, drop or survive: one row a kind, and how a file is spoiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

_ERROR_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Not available</title></head>\n"
    b"<body><h1>This picture is not available at the moment.</h1></body></html>\n"
)

Stage = Literal["record", "file", "crop"]


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A kind of post that gives no face in the set, and when a client can tell.

    `stage`: `record` before any download, `file` by the bytes, `crop` only when faces are
    looked for (such a post is in order and is downloaded).
    """

    name: str
    stage: Stage
    draws: Literal["character", "scenery", "comic", "sketch"] = "character"
    encoding: str = "jpg"  # one of demo.encode.STILLS or ANIMATIONS
    ext: str | None = None  # what the record claims, None = what the encoding is
    rating: str = "g"
    status: str = "active"
    banned: bool = False
    general: tuple[str, ...] = ()
    meta: tuple[str, ...] = ()
    spoil: str | None = None  # one of SPOILERS
    wrong_md5: bool = False
    duplicate: Literal["exact", "reencoded"] | None = None


REFUSALS = (
    # Ratings and tags stand on harmless pictures: only the record is what must be refused.
    Refusal("rating_sensitive", "record", rating="s"),
    Refusal("rating_questionable", "record", rating="q"),
    Refusal("rating_explicit", "record", rating="e"),
    Refusal("deleted", "record", status="deleted"),
    Refusal("banned", "record", banned=True),
    Refusal("pending", "record", status="pending"),
    Refusal("flagged", "record", status="flagged"),
    Refusal("comic", "record", draws="comic", general=("comic",)),
    Refusal("4koma", "record", draws="comic", general=("4koma", "comic")),
    Refusal("sketch", "record", draws="sketch", general=("sketch",)),
    Refusal("lineart", "record", draws="sketch", general=("lineart", "monochrome")),
    Refusal("greyscale", "record", draws="sketch", general=("greyscale", "monochrome")),
    Refusal("photo", "record", draws="scenery", general=("photo_(medium)",)),
    Refusal("ai_generated", "record", meta=("ai-generated",)),
    Refusal("animated_gif", "record", encoding="gif", meta=("animated", "animated_gif")),
    Refusal("animated_webp", "record", encoding="animated_webp", meta=("animated",)),
    Refusal("video_mp4", "record", encoding="mp4", meta=("animated", "video")),
    Refusal("video_webm", "record", encoding="webm", meta=("animated", "video")),
    Refusal("ugoira", "record", encoding="zip", meta=("animated", "ugoira")),
    # No tag tells of the animation: only the extension does.
    Refusal("untagged_gif", "record", encoding="gif"),
    Refusal("truncated_jpg", "file", spoil="truncate"),
    Refusal("truncated_png", "file", encoding="png", spoil="truncate"),
    Refusal("empty", "file", spoil="empty"),
    Refusal("png_named_jpg", "file", encoding="png", ext="jpg"),
    Refusal("html_named_png", "file", encoding="png", spoil="error_page"),
    Refusal("wrong_md5", "file", wrong_md5=True),
    Refusal("no_face", "crop", draws="scenery"),
    Refusal("exact_duplicate", "crop", duplicate="exact"),
    Refusal("reencoded_duplicate", "crop", duplicate="reencoded"),
)

SPOILERS: dict[str, Callable[[bytes], bytes]] = {
    "truncate": lambda body: body[: len(body) * 6 // 10],
    "empty": lambda _: b"",
    "error_page": lambda _: _ERROR_PAGE,
}


def ext_of(encoding: str) -> str:
    """The file name's extension of an encoding."""
    return "webp" if encoding == "animated_webp" else encoding
