"""Reads the texts of a PNG of unknown origin within bounds; knows nothing of what they say."""

import struct
import zlib
from collections.abc import Iterator

from dataset.decode import UnreadablePicture

MAX_CHUNKS = 256  # beside those of the pixels; each is unpacked at most once, up to MAX_UNPACKED
MAX_UNPACKED_BYTES = 2**20  # of one packed text or colour profile, which is Pillow's limit too
MAX_KEPT_BYTES = 2**16  # of one text that is handed out
SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PACKED = {b"zTXt", b"iTXt", b"iCCP"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}


def png_texts(content: bytes, *, where: str, prefix: str) -> list[tuple[str, str | None]]:
    """Returns keyword and text of each text chunk whose keyword begins with `prefix`, in order.

    [] for what is no PNG. Where a text is damaged (its checksum, packing or encoding), or longer
    than 64 KiB, None stands for it.

    Raises UnreadablePicture for more than 256 chunks beside the pixels', and for any packed chunk,
    of whatever keyword, that unpacks to more than 1 MiB: a bomb, which is not unpacked further.
    """
    texts: list[tuple[str, str | None]] = []
    chunks = 0
    for name, data, is_whole in _chunks(content):
        chunks += name != b"IDAT"
        if chunks > MAX_CHUNKS:
            raise UnreadablePicture(
                f"{where}: more than {MAX_CHUNKS} chunks beside its pixels; a plain PNG is wanted"
            )
        if name not in _PACKED | _TEXTS:
            continue
        keyword, _, rest = data.partition(b"\0")
        text = _text(name, rest, where=where)
        word = keyword[:80].decode("latin-1")
        if name in _TEXTS and word.startswith(prefix):
            texts.append((word, text if is_whole else None))
    return texts


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yields name and content of each chunk, b"" for pixels, and whether its checksum is right."""
    if not content.startswith(SIGNATURE):
        return
    place = len(SIGNATURE)
    while place + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        end = place + 8 + length
        if name in _PACKED | _TEXTS and end + 4 <= len(content):
            data = content[place + 8 : end]
            (checksum,) = struct.unpack_from(">I", content, end)
            yield name, data, zlib.crc32(data, zlib.crc32(name)) == checksum
        else:
            yield name, b"", True
        place = end + 4


def _text(name: bytes, rest: bytes, *, where: str) -> str | None:
    """Returns the text behind a chunk's keyword; None if it is damaged or too long to be kept."""
    encoding = "utf-8" if name == b"iTXt" else "latin-1"
    packed = name != b"tEXt"
    if name == b"iTXt":
        # packed or not, the method, a language and a translated keyword stand before the text
        packed = rest[:1] == b"\1"
        rest = rest[1:2] + rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        rest = rest if packed else rest[1:]
    if packed:
        unpacked = _unpacked(rest[1:], where=where) if rest[:1] == b"\0" else None
        if unpacked is None:
            return None
        rest = unpacked
    if len(rest) > MAX_KEPT_BYTES:
        return None
    try:
        return rest.decode(encoding)
    except UnicodeDecodeError:
        return None


def _unpacked(packed: bytes, *, where: str) -> bytes | None:
    unpack = zlib.decompressobj()
    try:
        content = unpack.decompress(packed, MAX_UNPACKED_BYTES)
    except zlib.error:
        return None
    if unpack.unconsumed_tail:
        raise UnreadablePicture(
            f"{where}: something packed in the file is larger than {MAX_UNPACKED_BYTES:,} bytes "
            "once unpacked; a plain PNG is wanted"
        )
    return content if unpack.eof else None
