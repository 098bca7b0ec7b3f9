"""A picture's recipe in the texts of its PNG: written for people, read back within bounds."""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping

from dataset.decode import Picture, UnreadablePicture, decode
from dataset.errors import UsageError
from models.io.safe_io import shown
from studio.recipe import Recipe, amounts_of
from studio.validation import UPLOAD_MAX_BYTES, UPLOAD_MAX_PIXELS

MAX_CHUNKS = 256  # beside those of the pixels; each is unpacked at most once, up to MAX_UNPACKED
MAX_UNPACKED_BYTES = 2**20  # of one packed text or colour profile, which is Pillow's limit too
MAX_UNPACKED_TOGETHER = 4 * 2**20
MAX_KEPT_BYTES = 2**16  # of one text that is handed out
SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PACKED = {b"zTXt", b"iTXt", b"iCCP"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}


def png_texts(content: bytes, *, where: str, prefix: str) -> list[tuple[str, str | None]]:
    """Returns keyword and text of each text chunk whose keyword begins with `prefix`, in order.

    [] for what is no PNG. Where a text is damaged (its checksum, packing or encoding), or longer
    than 64 KiB, None stands for it.

    Raises UnreadablePicture for more than 256 chunks beside the pixels', and for any packed chunk,
    of whatever keyword, that unpacks to more than 1 MiB, or 4 MiB together with those before it: a
    bomb, which is not unpacked further.
    Pillow's own limits do not do: it refuses the whole picture for one damaged text, keeps the last
    of two texts of one name, and holds up to 64 MiB of them.
    """
    texts: list[tuple[str, str | None]] = []
    chunks, left = 0, MAX_UNPACKED_TOGETHER
    for name, data, is_whole in _chunks(content):
        chunks += name != b"IDAT"
        if chunks > MAX_CHUNKS:
            raise UnreadablePicture(
                f"{where}: more than {MAX_CHUNKS} chunks beside its pixels; a plain PNG is wanted"
            )
        if name not in _PACKED | _TEXTS:
            continue
        keyword, _, rest = data.partition(b"\0")
        most = min(left, MAX_UNPACKED_BYTES)
        text, size = _text(name, rest, most=most, where=where)
        left -= size
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


def _text(name: bytes, rest: bytes, *, most: int, where: str) -> tuple[str | None, int]:
    """Returns the text behind a chunk's keyword, and how many bytes were unpacked for it.

    The text is None if it is damaged or too long to be kept.
    """
    encoding = "utf-8" if name == b"iTXt" else "latin-1"
    packed = name != b"tEXt"
    if name == b"iTXt":
        # packed or not, the method, a language and a translated keyword stand before the text
        packed = rest[:1] == b"\1"
        rest = rest[1:2] + rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        rest = rest if packed else rest[1:]
    size = 0
    if packed:
        unpacked = _unpacked(rest[1:], most=most, where=where) if rest[:1] == b"\0" else None
        if unpacked is None:
            return None, most  # nobody knows how much of it was unpacked
        rest, size = unpacked, len(unpacked)
    if len(rest) > MAX_KEPT_BYTES:
        return None, size
    try:
        return rest.decode(encoding), size
    except UnicodeDecodeError:
        return None, size


def _unpacked(packed: bytes, *, most: int, where: str) -> bytes | None:
    unpack = zlib.decompressobj()
    try:
        content = unpack.decompress(packed, most) if most else b""
    except zlib.error:
        return None
    if unpack.unconsumed_tail or not most:
        raise UnreadablePicture(
            f"{where}: something packed in the file is larger than {MAX_UNPACKED_BYTES:,} bytes "
            f"once unpacked, or all of it than {MAX_UNPACKED_TOGETHER:,}; a plain PNG is wanted"
        )
    return content if unpack.eof else None


SOFTWARE = "Omokage"  # what models.sampling.draw says too, which needs torch
PREFIX = "omokage "
LINK = f"{PREFIX}link"
NONE = "none"

Facts = Mapping[str, str | None]  # texts by name; None: damaged


def recipe_facts(recipe: Recipe, *, model: str, digest: str) -> dict[str, str]:
    """Returns what the PNG of a recipe says, as texts by name, for `sampling.draw.png_bytes`.

    model: its name for people, "avatar-generator version 3"; digest: of its weights, 64 hex.
    All but "omokage link" is for people; the link is what is read back.
    """
    facts = {
        "model": model,
        "generator": digest,
        "seed": str(recipe.seed),
        "labels": ", ".join(recipe.labels) or NONE,
        "psi": f"{recipe.psi:g}",
        "noise": recipe.noise,
        "upscale": upscale_text(recipe.upscale, recipe.denoise),
        "edits": recipe.edits.to_text() or NONE,
        **amounts_of(recipe),
        "link": recipe.to_query(),
    }
    return {"Software": SOFTWARE, **{f"{PREFIX}{name}": text for name, text in facts.items()}}


def made_from_facts(content: bytes, **done: str) -> dict[str, str]:
    """Returns what a PNG says that was made from another file: its sha256, and what was done.

    content: the other file's bytes; done: `edits="rotate=90"`, `upscale="2x"`. There is no link
    among them, since the settings of a drawing do not make this picture.
    """
    made = {"source": f"sha256:{hashlib.sha256(content).hexdigest()}", **done}
    return {"Software": SOFTWARE, **{f"{PREFIX}{name}": text for name, text in made.items()}}


def upscale_text(factor: int, denoise: int) -> str:
    """Returns an upscaling for people: "none", "2x" or "2x, denoise 1"."""
    if factor == 1:
        return NONE
    return f"{factor}x" if denoise < 0 else f"{factor}x, denoise {denoise}"


def open_picture(
    content: bytes,
    *,
    where: str,
    max_bytes: int = UPLOAD_MAX_BYTES,
    max_pixels: int = UPLOAD_MAX_PIXELS,
) -> tuple[Picture, Facts]:
    """Decodes a file of unknown origin; returns the picture [H,W,3] and our texts in it, by name.

    The texts are {} for another program's file; None stands for one that is damaged or there
    twice. The size of the file, what is packed in it and its pixels are counted before they are
    decoded; then every pixel is. Raises UnreadablePicture, naming `where` and the fault, for
    anything but one whole still picture.
    """
    if len(content) > max_bytes:
        raise UnreadablePicture(
            f"{where}: {len(content):,} bytes; at most {max_bytes:,} are taken for a picture"
        )
    texts = png_texts(content, where=where, prefix=PREFIX)
    picture = decode(content, where=where, max_pixels=max_pixels)
    facts: dict[str, str | None] = {}
    for name, text in texts:
        facts[name] = None if name in facts else text  # twice: nobody can say which is meant
    return picture, facts


def recipe_of_png(content: bytes, *, where: str) -> Recipe | None:
    """Returns the recipe that an uploaded picture carries; None if it is a picture without one.

    where: what the file is called in errors. Raises UnreadablePicture for anything but one whole
    still picture of at most 10 MiB and 4 megapixels, and UsageError for damaged settings.
    """
    _, facts = open_picture(content, where=where)
    return recipe_of_facts(facts, where=where)


def recipe_of_facts(facts: Facts, *, where: str) -> Recipe | None:
    """Returns the recipe among the texts of `open_picture`; None if there is no link among them.

    Raises UsageError if the link is damaged.
    """
    if LINK not in facts:
        return None
    link = facts[LINK]
    if link is None:
        raise UsageError(
            f"{where}: its settings are damaged, so that they cannot be brought back; the picture "
            "itself is whole"
        )
    try:
        return Recipe.from_query(link)
    except UsageError as error:
        raise UsageError(
            f"{where}: its settings are damaged or of another version, so that they cannot be "
            f"brought back: {error} (the link is {shown(link)})"
        ) from error
