"""Media files of a collection: their paths, and thumbnails and samples made on request."""

from __future__ import annotations

import dataclasses
import io
import re
import threading
from collections import OrderedDict

from PIL import Image

from demo.collection import Collection, Entry

_KEPT_BYTES = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """How large a derived picture may be, and as what it is written."""

    max_width: int | None  # px, None = as wide as the original
    max_height: int | None
    ext: str = "jpg"

    def size_of(self, entry: Entry) -> tuple[int, int]:
        """Width and height in px of an entry's derived picture; never larger than the original."""
        width, height = entry.width, entry.height
        if self.max_width and width > self.max_width:
            width, height = self.max_width, _scaled(height, self.max_width, width)
        if self.max_height and height > self.max_height:
            width, height = _scaled(width, self.max_height, height), self.max_height
        return max(width, 1), max(height, 1)


def _scaled(side: int, to: int, of: int) -> int:
    # Half a pixel rounds up, as on the boards; round() would take the even side.
    return (2 * side * to + of) // (2 * of)


SHAPES = {
    "180x180": Shape(180, 180),
    "360x360": Shape(360, 360),
    "720x720": Shape(720, 720, "webp"),
    "sample850": Shape(850, None),
    "preview150": Shape(150, 150),
    "preview300": Shape(300, 300),
    "sample1500": Shape(1500, 1500),
    "jpeg": Shape(None, None),
    "thumbnail250": Shape(250, 250),
}


class DerivedPictures:
    """Makes derived pictures of one collection; the latest 64 MiB are kept."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._kept: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._sizes: dict[tuple[int, str], int] = {}
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def get(self, entry: Entry, shape_name: str) -> bytes:
        """The encoded picture of an entry in one of `SHAPES`."""
        key = (entry.post_id, shape_name)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        body = render(self._collection.read_picture(entry), entry, SHAPES[shape_name])
        with self._lock:
            self._keep(key, body)
        return body

    def size_bytes(self, entry: Entry, shape_name: str) -> int:
        """How many bytes `get` gives."""
        key = (entry.post_id, shape_name)
        if key not in self._sizes:
            self._sizes[key] = len(self.get(entry, shape_name))
        return self._sizes[key]

    def _keep(self, key: tuple[int, str], body: bytes) -> None:
        if key not in self._kept:
            self._kept[key] = body
            self._kept_bytes += len(body)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])


def render(body: bytes, entry: Entry, shape: Shape) -> bytes:
    """Scales a picture's bytes down to a shape and encodes it; alpha is laid on white."""
    with Image.open(io.BytesIO(body)) as opened:
        picture = flatten(opened)
    size = shape.size_of(entry)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    made = io.BytesIO()
    if shape.ext == "webp":
        picture.save(made, "WEBP", quality=80)
    else:
        picture.save(made, "JPEG", quality=90)
    return made.getvalue()


def flatten(picture: Image.Image) -> Image.Image:
    """An RGB copy with transparency laid on white."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")


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
