"""Decodes the plain kind of PNG with libspng, in two thirds of the time that Pillow takes.

Of a PNG nothing can be left out in decoding, so that it decides how quickly faces are found.
"""

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

try:
    import pyspng
except ImportError:  # a machine that only trains may lack it: Pillow gives the same pixels
    pyspng = None

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: "RGB", 3: "RGB", 6: "RGBA"}  # colour types of the header; 3: a palette
# What changes the pixels that lie in the file: frames, a transparent colour, an orientation. All
# else beside them is known, or not needed to show them: its name begins with a small letter.
_CHANGING = {b"acTL", b"fcTL", b"fdAT", b"tRNS", b"eXIf"}
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_ORIENTED = (b"Raw profile", b"XML:")  # texts that can hold an orientation begin like this
_EXIF_PROFILE = b"Raw profile type exif\0\0"  # then packed
_MAX_PROFILE_BYTES = 1 << 20
_XMP_ORIENTATION = re.compile(rb"(?<!/tiff:)Orientation[^0-9]*([0-9]+)")


def decode_plain_png(content: bytes) -> npt.NDArray[np.uint8] | None:
    """Returns the pixels [H, W, 3] or [H, W, 4] of a PNG of 8-bit RGB, RGBA or palette, else None.

    None also for one that has a transparent colour, or is animated, oriented or damaged, and for
    all where pyspng is not installed. Its size must have been checked before.
    """
    if pyspng is None:
        return None
    channels = _channels(content)
    if channels is None or not all(_is_idle(*chunk) for chunk in _chunks(content)):
        return None
    try:
        return np.asarray(pyspng.load(content, format=channels), np.uint8)
    except RuntimeError:  # damaged
        return None


def _channels(content: bytes) -> str | None:
    """RGB or RGBA by the header, for 8 bits a channel (or a pixel, with a palette)."""
    if not content.startswith(_SIGNATURE) or len(content) < 33 or content[12:16] != b"IHDR":
        return None
    depth, colours = content[24], content[25]
    return _CHANNELS.get(colours) if depth == 8 else None


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yields each chunk's name and content."""
    place, view = len(_SIGNATURE), memoryview(content)
    while place + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        yield name, view[place + 8 : place + 8 + length]
        place += 12 + length


def _is_idle(name: bytes, data: memoryview) -> bool:
    """Tells whether a chunk leaves the pixels as they are."""
    if name in _CRITICAL:
        return True
    if name in _CHANGING or not name[:1].islower():
        return False
    start = bytes(data[:64])
    if not start.startswith(_ORIENTED):
        return True
    if name == b"zTXt" and start.startswith(_EXIF_PROFILE):
        return _is_upright_profile(bytes(data[len(_EXIF_PROFILE) :]))
    # An XMP text that is not packed, and says nothing of the orientation or that it is upright.
    return (
        name == b"iTXt"
        and start.partition(b"\0")[2][:1] == b"\0"
        and all(found == b"1" for found in _XMP_ORIENTATION.findall(bytes(data)))
    )


def _is_upright_profile(packed: bytes) -> bool:
    """Tells whether a packed EXIF profile (name, length, hexadecimal digits) is upright."""
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(packed, _MAX_PROFILE_BYTES)
        if not unpack.eof:
            return False
        content = bytes.fromhex("".join(text.decode("ascii").split("\n")[3:]))
        exif = Image.Exif()
        exif.load(content)
    except (zlib.error, ValueError, SyntaxError, struct.error):  # Pillow is to judge it
        return False
    return bool(exif.get(ExifTags.Base.Orientation, 1) == 1)
