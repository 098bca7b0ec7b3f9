"""Writes a drawing as the file kinds that boards hold, animations among them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

ANIMATION_FPS = 8
_FRAMES = 8
_ANIMATION_SIDE_PX = 320
STILLS = ("jpg", "png", "webp")
ANIMATIONS = ("gif", "animated_webp", "mp4", "webm", "zip")


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
    elif kind in ("mp4", "webm"):
        body = _encode_with_opencv(frames, kind)
    elif kind == "zip":
        body = _encode_ugoira(frames)
    else:
        raise ValueError(f"unknown animation kind {kind!r}; there are {ANIMATIONS}")
    return body, frames[0].size, duration_s


def _sway(picture: Image.Image) -> list[Image.Image]:
    small = picture.copy()
    small.thumbnail((_ANIMATION_SIDE_PX, _ANIMATION_SIDE_PX))
    # Video codecs want even sides.
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


def _encode_with_opencv(frames: list[Image.Image], ext: str) -> bytes:
    import cv2  # only here: the board's start-up need not wait for it

    codec = "mp4v" if ext == "mp4" else "VP80"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"animation.{ext}"
        fourcc = cv2.VideoWriter.fourcc(*codec)
        with _quiet_stderr():
            writer = cv2.VideoWriter(str(path), fourcc, ANIMATION_FPS, frames[0].size)
        if not writer.isOpened():
            raise OSError(f"OpenCV has no {codec} encoder to write {ext} with")
        for frame in frames:
            writer.write(np.asarray(frame)[:, :, ::-1])
        writer.release()
        return path.read_bytes()


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drops what libraries write to file descriptor 2.

    OpenCV complains there of a tag that webm files do not have, and writes a good file.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _encode_ugoira(frames: list[Image.Image]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number, frame in enumerate(frames):
            # A fixed date, so that the same frames give the same bytes.
            info = zipfile.ZipInfo(f"{number:06}.jpg", (2026, 1, 1, 0, 0, 0))
            archive.writestr(info, encode_still(frame, "jpg"))
    return made.getvalue()
