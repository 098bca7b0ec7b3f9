"""The one safe door for pictures: bytes of unknown origin in, an upright RGB array out."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from dataset.errors import OmokageError

Picture = npt.NDArray[np.uint8]  # [H, W, 3], RGB

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF")  # no other decoder of Pillow is ever reached
MAX_PIXELS = 40_000_000
_WHITE = (255, 255, 255, 255)
_ANIMATED = {"GIF", "PNG", "WEBP", "AVIF"}  # a JPEG's further frames (MPO) are no animation

# What Pillow's decoders raise on damaged input, depending on where the damage lies.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class UnreadablePicture(OmokageError):
    """A file that is no picture, a damaged one, one too large, or an animation."""


def decode(content: bytes, *, where: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decodes one still picture to RGB uint8 [H, W, 3], upright.

    EXIF orientation is applied, transparency is laid on white, palettes, greys of 1 to 16 bits and
    CMYK are converted. The size is checked before any pixel is decoded. Raises UnreadablePicture,
    naming `where` and the fault, for anything that is not one whole still picture.
    """
    if not content:
        raise UnreadablePicture(f"{where}: the file is empty; a picture is wanted")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            _check_header(opened, where=where, max_pixels=max_pixels)
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            return _rgb(upright)
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise UnreadablePicture(
            f"{where}: not a picture that can be opened (it begins with {content[:8]!r}); "
            f"{known} are read"
        ) from error
    except _DAMAGE as error:
        raise UnreadablePicture(f"{where}: damaged or cut off: {error}") from error


def _check_header(opened: Image.Image, *, where: str, max_pixels: int) -> None:
    pixels = opened.width * opened.height
    if pixels > max_pixels:
        raise UnreadablePicture(
            f"{where}: {opened.width}x{opened.height} is {pixels:,} pixels; "
            f"at most {max_pixels:,} are decoded"
        )
    frames = int(getattr(opened, "n_frames", 1))
    if frames > 1 and opened.format in _ANIMATED:
        raise UnreadablePicture(f"{where}: an animation of {frames} frames; a still is wanted")


def _rgb(picture: Image.Image) -> Picture:
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        grey = np.clip(np.asarray(picture).astype(np.int64) // 257, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    if picture.has_transparency_data:
        paper = Image.new("RGBA", picture.size, _WHITE)
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    pixels: Any = np.array(picture.convert("RGB"), dtype=np.uint8)
    return np.ascontiguousarray(pixels)
