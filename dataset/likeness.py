"""How sharp a crop is, and what two pictures are compared by: a hash and a small colour copy.

Drawn faces share their layout, so that a coarse hash alone takes distinct ones for the same. It
only proposes pairs; the small colour copies decide (docs/duplicates.md has the figures).
"""

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset.decode import Picture
from dataset.geometry import halved

Thumbs = npt.NDArray[np.uint8]  # [N, THUMB_BYTES]

THUMB_PX = 16
THUMB_BYTES = THUMB_PX * THUMB_PX * 3
COARSE_CELLS = 4  # of 8x8 thumb pixels each
GREY_CHROMA = 2.0  # a copy whose pixels differ less between their channels has no colour
BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)
# The brightness of two copies differs by at most so much of their colours' mean difference:
# |Σ w·d| <= |w|·|d| for each pixel, and the mean is over its three channels.
BRIGHTNESS_GAIN = float(np.sqrt(3 * np.square(BRIGHTNESS).sum()))
_HASHED_PX = 32
_SMALL_PX = 64


def sharpness(crop: Picture) -> float:
    """Returns the variance of the Laplacian of the grey crop [S, S, 3]; about 0 for a smear."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def phash(picture: Picture) -> int:
    """Returns ImageHash's 64-bit perceptual hash of a picture [H, W, 3].

    The picture is averaged down before: 0.06 ms instead of 0.15 with Pillow's filter, and as good.
    """
    grey = cv2.cvtColor(_averaged(picture, _HASHED_PX), cv2.COLOR_RGB2GRAY)
    bits = imagehash.phash(Image.fromarray(grey)).hash
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def thumb(picture: Picture) -> bytes:
    """Returns the picture [H, W, 3] as THUMB_PX² RGB pixels, row by row."""
    return _averaged(picture, THUMB_PX).tobytes()


def reduced(picture: Picture) -> Picture:
    """Returns a whole picture squeezed to a small square, so that it is read only once.

    Halved first as often as that leaves enough: averaging fractions of pixels takes 1 ms at 0.8 MP.
    """
    while min(picture.shape[:2]) >= 4 * _SMALL_PX:
        picture = halved(picture)
    return _averaged(picture, _SMALL_PX)


def thumb_distance(first: Thumbs, second: Thumbs) -> npt.NDArray[np.float64]:
    """Returns the root of the mean squared difference (0-255) of each pair [P, THUMB_BYTES].

    Where one of the two has no colour, only their brightness is compared: a grey copy is one.
    """
    one, two = _pixels(first), _pixels(second)
    squared: npt.NDArray[np.float64] = np.square(one - two).mean(axis=(1, 2), dtype=np.float64)
    grey = without_colour(first) | without_colour(second)
    if grey.any():
        bright = np.square((one[grey] - two[grey]) @ BRIGHTNESS)
        squared[grey] = bright.mean(axis=1, dtype=np.float64)
    return np.sqrt(squared)


def without_colour(thumbs: Thumbs) -> npt.NDArray[np.bool_]:
    """Tells which of the copies [N, THUMB_BYTES] are grey."""
    pixels = thumbs.reshape(len(thumbs), THUMB_PX**2, 3)
    chroma = pixels.max(axis=2).astype(np.float32) - pixels.min(axis=2)
    grey: npt.NDArray[np.bool_] = chroma.mean(axis=1) < GREY_CHROMA
    return grey


def coarse(thumbs: Thumbs) -> npt.NDArray[np.uint8]:
    """Returns the mean brightness of COARSE_CELLS parts of each copy: [N, COARSE_CELLS]."""
    half = THUMB_PX // 2
    bright = (_pixels(thumbs) @ BRIGHTNESS).reshape(len(thumbs), 2, half, 2, half)
    cells = np.rint(bright.mean(axis=(2, 4)))
    return np.asarray(cells.reshape(len(thumbs), COARSE_CELLS), np.uint8)


def _pixels(thumbs: Thumbs) -> npt.NDArray[np.float32]:
    return thumbs.reshape(len(thumbs), THUMB_PX**2, 3).astype(np.float32)


def _averaged(picture: Picture, side_px: int) -> Picture:
    small = cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)
