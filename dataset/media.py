"""The gate of every downloaded file: nothing becomes a blob that is not a whole still picture.

And what keeps the memory of decoding within bounds: a budget that threads share, and large blocks
that are given back to the system.
"""

import contextlib
import ctypes
import dataclasses
import hashlib
import io
import threading
import warnings
import zlib
from collections.abc import Iterator

from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

from dataset.store import Store, blob_path

MAX_BYTES = 30_000_000
MAX_PIXELS = 40_000_000
# Raised by a release that takes pictures which the gate has refused: they are fetched once more.
GATE = 1
DECODING_BYTES = 256_000_000  # what all pictures that are being decoded may take at once

_FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "avif": "AVIF"}
# Measured at 40 MP. Pillow decodes WebP and AVIF as animations, of which several frames are held:
# so a WebP may have 16 MP, an AVIF 21.
_BYTES_A_PIXEL = {"png": 4, "gif": 4, "webp": 16, "avif": 12}
_FULL = 4  # bytes that Pillow takes for a pixel
_SAME_EXT = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg"}

# A profile, or the history that Photoshop keeps, may unpack to more than Pillow's 1 MiB; all texts
# of a picture together stay below its 64 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20

# Pillow only warns about pictures of 90 to 180 megapixels; ours are refused at 40.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclasses.dataclass(frozen=True, slots=True)
class Media:
    """A picture that passed the gate: its name among the blobs, its size in pixels and bytes."""

    sha256: str
    ext: str
    width: int
    height: int
    size_bytes: int


class MediaRefused(Exception):
    """A file that may not become a blob.

    reason: empty, too_large, wrong_md5, not_a_picture, mislabelled, too_many_pixels, animated or
    corrupt; detail: what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def check_media(content: bytes, *, md5: str, ext: str | None) -> Media:
    """Returns what a downloaded file is; raises MediaRefused unless it is a whole still picture.

    md5: the board's (hex); ext: what the board calls the file (None: not said). Cheap
    checks come first, and the number of pixels is checked before any is decoded.
    """
    if not content:
        raise MediaRefused("empty", "0 bytes")
    if len(content) > MAX_BYTES:
        raise MediaRefused("too_large", f"{len(content):,} bytes, at most {MAX_BYTES:,}")
    found_md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found_md5 != md5:
        raise MediaRefused("wrong_md5", f"{found_md5}, the board says {md5}")
    found_ext = sniff(content)
    if found_ext is None:
        raise MediaRefused("not_a_picture", f"begins with {content[:12]!r}")
    said_ext = _SAME_EXT.get(ext or found_ext, ext or found_ext)
    if found_ext != said_ext:
        # A name that lies about its bytes hints at a tampered or a broken upload.
        raise MediaRefused("mislabelled", f"{found_ext} bytes under the name .{said_ext}")
    width, height = _decode(content, found_ext)
    sha256 = hashlib.sha256(content).hexdigest()
    return Media(sha256, found_ext, width, height, len(content))


def has_blob(store: Store, media: Media) -> bool:
    """Tells whether the blob of a picture is there with all its bytes.

    Their digest was checked when it was stored.
    """
    path = blob_path(media.sha256, media.ext)
    return store.size(path) == media.size_bytes


def sniff(content: bytes) -> str | None:
    """Returns the extension that the first bytes tell (jpg png gif webp avif); None otherwise."""
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:12] in (b"ftypavif", b"ftypavis") and features.check("avif"):
        return "avif"
    return None


def readable(content: bytes) -> bytes:
    """Returns a picture's bytes without what browsers overlook and Pillow does not.

    Of a PNG the ancillary chunks (texts, profiles) that have a wrong checksum are left out; a JPEG
    that has all its data and lacks only its end mark gets one.
    """
    kind = sniff(content)
    if kind == "png":
        return _without_damaged_chunks(content)
    if kind == "jpg" and not content.endswith(_END_OF_JPEG):
        data = content.rstrip(_END_OF_JPEG[:1])  # half of the mark may be there
        return data + _END_OF_JPEG if _lacks_only_its_end(data) else content
    return content


_END_OF_JPEG = b"\xff\xd9"
_ANCILLARY = 0x20  # the bit of a chunk's name that makes its first letter a small one


def _without_damaged_chunks(content: bytes) -> bytes:
    kept, begin, at = [], 0, 8
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4])
        if content[at + 4] & _ANCILLARY and end <= len(content):
            checksum = int.from_bytes(content[end - 4 : end])
            if zlib.crc32(content[at + 4 : end - 4]) != checksum:
                kept.append(content[begin:at])
                begin = end
        at = end
    return b"".join([*kept, content[begin:]]) if kept else content


def _lacks_only_its_end(content: bytes) -> bool:
    """Tells whether a JPEG has all its data: what comes behind that then changes no pixel.

    Of a file that is cut by a byte or more, the decoder makes its last pixels from what follows.
    """
    seen = []
    for behind in (bytes(64), b"\xaa\x55" * 32):
        try:
            with Image.open(io.BytesIO(content + behind + _END_OF_JPEG), formats=["JPEG"]) as found:
                needed = _decoding_bytes(found, "jpg") + 2 * _FULL * found.width * found.height
                if needed > DECODING_BYTES:
                    return False
                with _decoding.reserved(needed):
                    found.load()
                    seen.append(hashlib.sha256(found.tobytes()).digest())
                    found.close()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return False
    return seen[0] == seen[1]


def _decode(content: bytes, ext: str) -> tuple[int, int]:
    """Decodes the whole picture; returns width and height."""
    content = readable(content)
    try:
        with Image.open(io.BytesIO(content), formats=[_FORMATS[ext]]) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise MediaRefused(
                    "too_many_pixels", f"{width}x{height}, at most {MAX_PIXELS / 1e6:.0f} MP"
                )
            # A JPEG's further pictures (MPO) are previews or other views, and no animation.
            if ext != "jpg" and getattr(picture, "is_animated", False):
                raise MediaRefused("animated", "more than one frame")
            needed = _decoding_bytes(picture, ext)
            if needed > DECODING_BYTES:
                raise MediaRefused(
                    "too_many_pixels",
                    f"{width}x{height}, whose decoding as {ext} takes {needed / 1e6:.0f} MB, at "
                    f"most {DECODING_BYTES / 1e6:.0f}",
                )
            if ext == "jpg":
                # All its data is read, but an eighth of the pixels a side is made of it: 1.2 ms
                # instead of 2.0 for 600x800, and a sixty-fourth of the memory.
                picture.draft("L", (1, 1))
            with _decoding.reserved(needed):
                picture.load()
                picture.close()  # the pixels go before their bytes are released
    except Image.DecompressionBombError as error:
        raise MediaRefused("too_many_pixels", str(error)) from error
    except UnidentifiedImageError as error:
        raise MediaRefused("corrupt", f"the header of the {ext} cannot be read") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:
        # What Pillow's decoders raise on broken data.
        raise MediaRefused("corrupt", f"{ext}: {error}") from error
    return width, height


def _decoding_bytes(picture: Image.Image, ext: str) -> int:
    """Returns the most that decoding an opened picture can take."""
    pixels = picture.width * picture.height
    if ext == "jpg":
        # If it comes in several scans, all its coefficients are gathered first. Of the pixels, a
        # sixty-fourth is made.
        return pixels * 2 * getattr(picture, "layers", 4) + pixels // 16
    return pixels * _BYTES_A_PIXEL[ext]


class ByteBudget:
    """At most `size` bytes may be in use at once; who wants more waits.

    Served in order of arrival, so that a big part is not passed by small ones for ever.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    @property
    def has_waiting(self) -> bool:
        """Whether someone waits for a part."""
        return self._turn.locked()

    @contextlib.contextmanager
    def reserved(self, part: int) -> Iterator[None]:
        """Waits until `part` is free and holds it within the block.

        Raises ValueError for a part that is greater than the whole.
        """
        if part > self.size:
            raise ValueError(f"{part:,} of a budget of {self.size:,}")
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._free >= part)
            self._free -= part
        try:
            yield
        finally:
            with self._freed:
                self._free += part
                self._freed.notify_all()


_decoding = ByteBudget(DECODING_BYTES)


LARGE_BYTES = 2**20
_M_MMAP_THRESHOLD = -3  # as glibc's malloc.h numbers it


def give_back_large_blocks() -> None:
    """Lets the C library give large blocks back to the system as soon as they are freed.

    glibc by itself raises its threshold with every large block that is freed, up to 32 MB, and then
    keeps such blocks in one arena a thread: six pictures of 40 MP, decoded one after the other in a
    pool, took 710 MB instead of 253. A C library without this setting is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back_free_memory() -> None:
    """Gives what was freed in small pieces back to the system, where the C library can (glibc).

    After reading 100,000 posts that was 8 MB of 20.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
