"""Decodes bytes of unknown origin to an upright RGB array; plain PNGs with libspng.

Of a PNG nothing can be left out in decoding, so that it decides how quickly faces are found:
libspng takes two thirds of the time of Pillow.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from dataset.errors import OmokageError
from dataset.media import readable  # importing it also raises a limit of Pillow

Picture = npt.NDArray[np.uint8]  # [H, W, 3], RGB
Bytes = npt.NDArray[np.uint8]  # [H, W, 4]

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF")  # no other decoder of Pillow is ever reached
MAX_PIXELS = 40_000_000
REDUCTIONS = (1, 2, 4, 8)  # the fractions at which a JPEG can be decoded
_OPAQUE = 255
_RGBA = 4
_LYING = {5, 6, 7, 8}  # EXIF orientations that turn by a quarter: width and height change places
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
)


class UnreadablePicture(OmokageError):
    """A file that is no picture, a damaged one, one too large, or an animation."""


@dataclass(frozen=True)
class Reduced:
    """A picture decoded at a fraction of its size; `width` and `height` are those of the whole."""

    picture: Picture
    width: int
    height: int

    @property
    def whole(self) -> bool:
        """Whether the picture has all its pixels."""
        return self.picture.shape[:2] == (self.height, self.width)


def decode(content: bytes, *, where: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decodes one still picture to RGB uint8 [H, W, 3], upright.

    EXIF orientation is applied, transparency is laid on white, palettes, greys of 1 to 16 bits and
    CMYK are converted, colours of another ICC profile to sRGB; a profile that cannot be read, or is
    not one for such pixels, is ignored. The size is checked before any pixel is decoded. Raises
    UnreadablePicture, naming `where` and the fault, for anything that is not one whole still
    picture.
    """
    return decode_reduced(content, where=where, by=1, max_pixels=max_pixels).picture


def decode_reduced(content: bytes, *, where: str, by: int, max_pixels: int = MAX_PIXELS) -> Reduced:
    """Decodes as `decode` does; a JPEG at 1/`by` of its sides (1, 2, 4 or 8), rounded up.

    A JPEG's own transform gives the smaller picture without the pixels of the whole being made:
    at 1/2 in about two thirds of the time. Any other format is decoded whole.
    """
    if by not in REDUCTIONS:
        raise ValueError(f"by is {by}; {', '.join(map(str, REDUCTIONS))} can be decoded")
    if not content:
        raise UnreadablePicture(f"{where}: the file is empty; a picture is wanted")
    content = readable(content)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            _check_header(opened, where=where, max_pixels=max_pixels)
            width, height = opened.size
            profile = _other_profile(opened)
            is_plain = opened.format == "PNG" and profile is None
            plain = decode_plain_png(content) if is_plain else None
            if plain is not None:
                has_alpha = plain.shape[2] == _RGBA
                return Reduced(_on_white(plain) if has_alpha else plain, width, height)
            if by > 1:
                opened.draft(None, (max(1, width // by), max(1, height // by)))
            opened.load()
            if opened.getexif().get(ExifTags.Base.Orientation) in _LYING:
                width, height = height, width
            # In place: a picture that stands upright already is not copied.
            ImageOps.exif_transpose(opened, in_place=True)
            return Reduced(_rgb(_in_srgb(opened, profile)), width, height)
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise UnreadablePicture(
            f"{where}: not a picture that can be opened (it begins with {content[:8]!r}); "
            f"{known} are read"
        ) from error
    except Image.DecompressionBombError as error:  # Pillow's own limit is met before ours
        most = Image.MAX_IMAGE_PIXELS or max_pixels
        raise UnreadablePicture(
            f"{where}: its header says more than {2 * most:,} pixels; at most {max_pixels:,} are "
            "decoded"
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


def _other_profile(picture: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The ICC profile of a picture; None if there is none, or it is sRGB, or cannot be read."""
    content = picture.info.get("icc_profile")
    if not content:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        name, space = ImageCms.getProfileDescription(profile), profile.profile.xcolor_space
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # also of names that are no text
        return None
    is_srgb = "sRGB" in name and "linear" not in name.lower()
    return profile if space.strip() in ("RGB", "CMYK", "GRAY") and not is_srgb else None


def _in_srgb(picture: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    """The picture with its colours in sRGB, as they are shown elsewhere."""
    if profile is None:
        return picture
    made = "RGBA" if picture.has_transparency_data else "RGB"
    space = profile.profile.xcolor_space.strip()
    if space == "RGB" and picture.mode != "CMYK" and not picture.mode.startswith("I"):
        picture = picture.convert(made)
    elif (space, picture.mode, made) not in {("CMYK", "CMYK", "RGB"), ("GRAY", "L", "RGB")}:
        return picture
    try:
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(picture, profile, srgb, outputMode=made) or picture
    except ImageCms.PyCMSError:
        return picture


def _rgb(picture: Image.Image) -> Picture:
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        grey = np.clip(np.asarray(picture).astype(np.int64) // 257, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    if picture.has_transparency_data:
        return _on_white(_four_bytes(picture.convert("RGBA")))
    rgb = _four_bytes(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGBA2RGB), np.uint8)


def _on_white(rgba: Bytes) -> Picture:
    """Lays a picture [H, W, 4] with alpha on white."""
    rgb = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
    alpha = cv2.extractChannel(rgba, 3)
    if alpha.min() < _OPAQUE:
        alphas = cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB)
        seen = cv2.multiply(rgb, alphas, scale=1 / _OPAQUE)
        rgb = cv2.add(seen, cv2.bitwise_not(alphas))
    return np.asarray(rgb, np.uint8)


def _four_bytes(picture: Image.Image) -> Bytes:
    """The pixels of a picture of mode RGB or RGBA as [H, W, 4]; RGB has a fourth without meaning.

    Pillow holds four bytes a pixel for both modes. Arrow's interface hands these out where they
    lie: half the time of copying them out row by row (0.4 against 0.8 ms at 0.8 MP).
    """
    try:
        flat = pa.array(picture).flatten()
    except ValueError:  # a large picture lies in several blocks
        return np.asarray(picture.convert("RGBA"), np.uint8)
    held = flat.to_numpy(zero_copy_only=True).reshape(picture.height, picture.width, 4)
    return np.asarray(held, np.uint8)


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
