"""Pictures on materialisations: one grid each, small enough for the event log."""

import base64
import io
from collections.abc import Sequence

import dagster as dg
from PIL import Image

from dataset.decode import decode
from dataset.store import Store, blob_path

MAX_BYTES = 100_000  # inline pictures cost four times their size in the instance's database
PAPER = (250, 249, 246)


def contact_sheet(
    pictures: Sequence[Image.Image], *, columns: int, cell_px: int = 96, gap_px: int = 4
) -> Image.Image:
    """Lays pictures into a grid of square cells, each fitted into its cell; needs at least one."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    step = cell_px + gap_px
    sheet = Image.new("RGB", (columns * step + gap_px, rows * step + gap_px), PAPER)
    for number, picture in enumerate(pictures):
        fitted = picture.convert("RGB")
        fitted.thumbnail((cell_px, cell_px), Image.Resampling.LANCZOS)
        row, column = divmod(number, columns)
        left = gap_px + column * step + (cell_px - fitted.width) // 2
        top = gap_px + row * step + (cell_px - fitted.height) // 2
        sheet.paste(fitted, (left, top))
    return sheet


def blob_sheet(store: Store, blobs: Sequence[tuple[str, str]], *, columns: int) -> Image.Image:
    """Lays out the blobs of these sha256s and extensions; an empty cell if there are none."""
    pictures = []
    for sha256, ext in blobs:
        path = blob_path(sha256, ext)
        pictures.append(Image.fromarray(decode(store.read_bytes(path), where=path)))
    return contact_sheet(pictures or [Image.new("RGB", (96, 96), PAPER)], columns=columns)


def inline(picture: Image.Image, *, max_bytes: int = MAX_BYTES) -> dg.MarkdownMetadataValue:
    """Returns the picture as Markdown with the JPEG inside, at most max_bytes long.

    Quality goes down first, then size, until it fits.
    """
    shown = picture.convert("RGB")
    while True:
        for quality in (88, 75, 60):
            text = _markdown(shown, quality)
            if len(text) <= max_bytes:
                return dg.MetadataValue.md(text)
        shown = shown.resize((shown.width * 3 // 4, shown.height * 3 // 4))


def _markdown(picture: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return f"![preview](data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()})"
