"""Media files of a board: encoders of drawings, paths, thumbnails and samples made on request."""

from __future__ import annotations

import dataclasses
import io
import re
import tempfile
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from demo.collection import Collection, Entry

ANIMATION_FPS = 8
_FRAMES = 8
_ANIMATION_SIDE_PX = 320
STILLS = ("jpg", "png", "webp")
ANIMATIONS = ("gif", "animated_webp", "mp4", "webm", "zip")
_CACHE_BYTES = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """Largest size and format of a derived picture."""

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
    # Rounds half up, as on the boards; round() rounds half to even.
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
    """Makes derived pictures of one collection; caches the latest 64 MiB."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._cache: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._sizes: dict[tuple[int, str], int] = {}
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def get(self, entry: Entry, shape_name: str) -> bytes:
        """The encoded picture of an entry in one of `SHAPES`."""
        key = (entry.post_id, shape_name)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        body = render(self._collection.read_picture(entry), entry, SHAPES[shape_name])
        with self._lock:
            self._store(key, body)
        return body

    def size_bytes(self, entry: Entry, shape_name: str) -> int:
        """How many bytes `get` gives."""
        key = (entry.post_id, shape_name)
        if key not in self._sizes:
            self._sizes[key] = len(self.get(entry, shape_name))
        return self._sizes[key]

    def _store(self, key: tuple[int, str], body: bytes) -> None:
        if key not in self._cache:
            self._cache[key] = body
            self._cached_bytes += len(body)
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])


def render(body: bytes, entry: Entry, shape: Shape) -> bytes:
    """Scales a picture's bytes down to a shape and encodes it; alpha is composited on white."""
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
    """An RGB copy with transparency composited on white."""
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
class MediaFile:
    """The file of a path: the entry, and its shape, FILM, or None for the original."""

    entry: Entry
    shape: str | None
    ext: str

    @property
    def content_type(self) -> str:
        """The media type of the name, which for a mislabelled file is not that of its bytes."""
        return CONTENT_TYPES[self.ext]


def find(collection: Collection, path: str) -> MediaFile | None:
    """The file at a path below /media; None if no record has such a path."""
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
        return MediaFile(entry, shape, ext)
    return None


def encode_still(picture: Image.Image, ext: str) -> bytes:
    """An RGB picture as jpg (quality 92), png or webp (quality 92)."""
    made = io.BytesIO()
    if ext == "jpg":
        picture.save(made, "JPEG", quality=92)
    elif ext == "png":
        picture.save(made, "PNG", compress_level=4)
    elif ext == "webp":
        picture.save(made, "WEBP", quality=92, method=2)
    else:
        raise ValueError(f"unknown still kind {ext!r}; there are {STILLS}")
    return made.getvalue()


def encode_animation(picture: Image.Image, kind: str) -> tuple[bytes, tuple[int, int], float]:
    """The picture swaying from side to side, as one of ANIMATIONS (zip is an ugoira).

    Returns the bytes, width and height in px, and the duration in seconds.
    """
    frames = _sway(picture)
    duration_s = len(frames) / ANIMATION_FPS
    if kind in ("gif", "animated_webp"):
        body = _encode_with_pil(frames, "GIF" if kind == "gif" else "WEBP")
    elif kind == "mp4":
        body = _encode_mp4(frames)
    elif kind == "webm":
        body = _encode_webm(frames)
    elif kind == "zip":
        body = _encode_ugoira(frames)
    else:
        raise ValueError(f"unknown animation kind {kind!r}; there are {ANIMATIONS}")
    return body, frames[0].size, duration_s


def _sway(picture: Image.Image) -> list[Image.Image]:
    small = picture.copy()
    small.thumbnail((_ANIMATION_SIDE_PX, _ANIMATION_SIDE_PX))
    # Video codecs require even sides.
    small = small.crop((0, 0, small.width // 2 * 2, small.height // 2 * 2))
    shifts = [round(6 * np.sin(2 * np.pi * step / _FRAMES)) for step in range(_FRAMES)]
    return [ImageChops.offset(small, shift, 0) for shift in shifts]


def _encode_with_pil(frames: list[Image.Image], pil_format: str) -> bytes:
    made = io.BytesIO()
    first, *others = frames
    first.save(
        made,
        pil_format,
        save_all=True,
        append_images=others,
        duration=1000 // ANIMATION_FPS,
        loop=0,
    )
    return made.getvalue()


def _encode_mp4(frames: list[Image.Image]) -> bytes:
    import cv2  # only here: the board's start-up does not wait for it

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "animation.mp4"
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(path), fourcc, ANIMATION_FPS, frames[0].size)
        if not writer.isOpened():
            raise OSError("OpenCV has no mp4v encoder to write mp4 with")
        for frame in frames:
            writer.write(np.asarray(frame)[:, :, ::-1])
        writer.release()
        return path.read_bytes()


def _encode_webm(frames: list[Image.Image]) -> bytes:
    import av

    made = io.BytesIO()
    # bitexact and one thread: otherwise each call writes other ids and other bytes.
    with av.open(made, "w", format="webm", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libvpx", rate=ANIMATION_FPS)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.options = {"threads": "1", "flags": "+bitexact", "b": "1M", "cpu-used": "4"}
        for frame in [*map(av.VideoFrame.from_image, frames), None]:
            container.mux(stream.encode(frame))
    return made.getvalue()


def _encode_ugoira(frames: list[Image.Image]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number, frame in enumerate(frames):
            # A fixed date: the same frames give the same bytes.
            info = zipfile.ZipInfo(f"{number:06}.jpg", (2026, 1, 1, 0, 0, 0))
            archive.writestr(info, encode_still(frame, "jpg"))
    return made.getvalue()
