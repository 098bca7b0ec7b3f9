"""Which picture a media path of the boards means; the paths are those the records' URLs name."""

from __future__ import annotations

import dataclasses
import re

from demo.collection import Collection, Entry

CONTENT_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "zip": "application/zip",
}
_SHARD = r"[0-9a-f]{2}/[0-9a-f]{2}"
_MD5 = r"(?P<md5>[0-9a-f]{32})"
_NAME_HASH = r"(?P<name_hash>[0-9a-f]{40})"
_EXT = r"\.(?P<ext>[a-z0-9]+)"
FILM = "film"
_EXT_OF_SHAPE = {FILM: "webm", "720x720": "webp"}
# Shape (None = the original) by path, as Danbooru, Moebooru, Gelbooru lay out their files.
_PATHS: tuple[tuple[str | None, re.Pattern[str]], ...] = (
    (None, re.compile(rf"original/{_SHARD}/{_MD5}{_EXT}")),
    (FILM, re.compile(rf"sample/{_SHARD}/sample-{_MD5}\.(?P<ext>webm)")),
    ("sample850", re.compile(rf"sample/{_SHARD}/sample-{_MD5}{_EXT}")),
    ("180x180", re.compile(rf"180x180/{_SHARD}/{_MD5}{_EXT}")),
    ("360x360", re.compile(rf"360x360/{_SHARD}/{_MD5}{_EXT}")),
    ("720x720", re.compile(rf"720x720/{_SHARD}/{_MD5}{_EXT}")),
    (None, re.compile(rf"image/{_MD5}/[^/]*{_EXT}")),
    ("jpeg", re.compile(rf"jpeg/{_MD5}/[^/]*{_EXT}")),
    ("sample1500", re.compile(rf"sample/{_MD5}/[^/]*{_EXT}")),
    ("preview300", re.compile(rf"data/preview/{_SHARD}/{_MD5}{_EXT}")),
    (None, re.compile(rf"images/{_SHARD}/{_MD5}{_EXT}")),
    ("sample850", re.compile(rf"samples/{_SHARD}/sample_{_MD5}{_EXT}")),
    ("thumbnail250", re.compile(rf"thumbnails/{_SHARD}/thumbnail_{_MD5}{_EXT}")),
    # safebooru.org names files by another hash than their md5.
    (None, re.compile(rf"images/\d+/{_NAME_HASH}{_EXT}")),
    ("sample850", re.compile(rf"samples/\d+/sample_{_NAME_HASH}{_EXT}")),
    ("thumbnail250", re.compile(rf"thumbnails/\d+/thumbnail_{_NAME_HASH}{_EXT}")),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """A picture that a path names: the entry, and its shape, FILM, or None for the original."""

    entry: Entry
    shape: str | None
    ext: str

    @property
    def content_type(self) -> str:
        """The media type of the name, which for a mislabelled file is not that of its bytes."""
        return CONTENT_TYPES[self.ext]


def find(collection: Collection, path: str) -> Wanted | None:
    """What a path below /media means; None where no record names such a path."""
    for shape, pattern in _PATHS:
        found = pattern.fullmatch(path)
        if not found:
            continue
        named = found.groupdict()
        if "md5" in named:
            entry = collection.by_md5(named["md5"])
        else:
            entry = collection.by_name_hash(named["name_hash"])
        if entry is None or (shape == FILM and entry.film is None):
            return None
        ext = entry.ext if shape is None else _EXT_OF_SHAPE.get(shape, "jpg")
        if found["ext"] != ext:
            return None
        # Of a banned post only Moebooru's thumbnail is public, as of any deleted post there.
        if entry.withheld and shape != "preview300":
            return None
        return Wanted(entry, shape, ext)
    return None
