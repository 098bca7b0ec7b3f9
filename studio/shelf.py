"""Kept recipes as files: a contact sheet to print, and a zip. Both bring the recipes back."""

import dataclasses
import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin

from dataset.decode import Picture, UnreadablePicture
from dataset.errors import UsageError
from models.io.safe_io import shown
from studio.png_metadata import LINK, PREFIX, SIGNATURE, SOFTWARE, png_texts
from studio.recipe import Recipe
from studio.validation import MAX_PICTURES, UPLOAD_MAX_BYTES

SHELF_MAX = 48
SHEET_NAME, ZIP_NAME = "omokage-sheet.png", "omokage-pictures.zip"
# A4 at 200 dpi: with all pictures of a full shelf it stays below the limits of an upload.
SHEET_PX = (1654, 2339)
DPI = 200
MARGIN_PX, GAP_PX = 60, 20
LINE_PX, LINES = 20, 3  # of a caption
FONT_PX = 15
CELL_MAX_PX = 512  # of a picture on the page: there are three columns or more
ENTRIES_MAX = 256  # of a zip that is read
LINKS_MAX = 1024  # of a file that is read: many shelves
UNPACKED_MAX_BYTES = 4 * UPLOAD_MAX_BYTES  # of a zip that is read, all entries together
_DATE = (1980, 1, 1, 0, 0, 0)  # the same pictures give the same bytes
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZIP = b"PK\x03\x04"


def contact_sheet(pictures: Sequence[tuple[Recipe, Picture]]) -> bytes:
    """Returns one page of pictures [H,W,3] with seed and labels below each, as a PNG for A4.

    Its texts hold every recipe. Captions are in English, as the labels are named. Raises UsageError
    for no picture, or more than a draw may have.
    """
    _check_count(len(pictures))
    columns, side = _columns(len(pictures))
    sheet = Image.new("RGB", SHEET_PX, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_PX)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Software", SOFTWARE)
    texts.add_text(f"{PREFIX}tool", "contact sheet")
    for number, (recipe, picture) in enumerate(pictures):
        row, column = divmod(number, columns)
        left = MARGIN_PX + column * (side + GAP_PX)
        top = MARGIN_PX + row * (side + LINES * LINE_PX + GAP_PX)
        image = ImageOps.contain(
            Image.fromarray(np.ascontiguousarray(picture)), (side, side), Image.Resampling.LANCZOS
        )
        sheet.paste(image, (left + (side - image.width) // 2, top + side - image.height))
        for at, line in enumerate(_caption(recipe, font, side)):
            pen.text((left, top + side + 4 + at * LINE_PX), line, fill="black", font=font)
        texts.add_text(f"{LINK} {number + 1}", recipe.to_query())
    file = io.BytesIO()
    sheet.save(file, "PNG", pnginfo=texts, dpi=(DPI, DPI))
    return file.getvalue()


def small(picture: Picture) -> Picture:
    """Returns a picture [H,W,3] no larger than a contact sheet shows it, to gather many of them."""
    if max(picture.shape[:2]) <= CELL_MAX_PX:
        return picture
    return np.asarray(ImageOps.contain(Image.fromarray(picture), (CELL_MAX_PX, CELL_MAX_PX)))


def archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Returns PNGs as a zip, in their order, which their names begin with; each is read once.

    Raises UsageError for no picture, or more than a draw may have.
    """
    content, number = io.BytesIO(), 0
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as packed:  # PNGs are packed already
        for number, (name, png) in enumerate(files, 1):
            packed.writestr(zipfile.ZipInfo(f"{number:02d}-{name}", _DATE), png)
    _check_count(number)
    return content.getvalue()


def recipes_of_file(content: bytes, *, where: str) -> tuple[list[Recipe], list[str]]:
    """Returns the recipes in a contact sheet, a zip or a PNG of the studio, and what was at fault.

    No pixel is decoded. A damaged recipe is a sentence among the faults and keeps no other from
    coming back. Raises UsageError for a file that holds none at all, or is beyond the bounds:
    10 MiB; 1,024 pictures; of a zip 256 entries, none encrypted, and 40 MiB unpacked.
    """
    if len(content) > UPLOAD_MAX_BYTES:
        raise UsageError(f"{where}: {len(content):,} bytes; at most {UPLOAD_MAX_BYTES:,} are taken")
    if content.startswith(SIGNATURE):
        pngs = [(where, content)]
    elif content.startswith(_ZIP):
        pngs = _unzipped(content, where=where)
    else:
        raise UsageError(f"{where}: a contact sheet, a zip or a PNG of the studio is wanted")
    recipes: list[Recipe] = []
    faults: list[str] = []
    links = 0
    for name, png in pngs:
        try:
            texts = png_texts(png, where=name, prefix=LINK)
        except UnreadablePicture as error:
            faults.append(str(error))
            continue
        links += len(texts)
        if links > LINKS_MAX:
            raise UsageError(f"{where}: more than {LINKS_MAX:,} pictures are named in it")
        for keyword, link in texts:
            try:
                if link is None:
                    raise UsageError("its settings are damaged")
                recipes.append(Recipe.from_query(link))
            except UsageError as error:
                number = keyword.removeprefix(LINK).strip()
                faults.append(f"{name}{f', picture {shown(number)}' if number else ''}: {error}")
    recipes = list(dict.fromkeys(recipes))
    if not recipes and not faults:
        raise UsageError(f"{where}: no picture in it says how it was drawn here")
    return recipes, faults


class Lacking(NamedTuple):
    """What a recipe has that another model does not know."""

    labels: tuple[str, ...] = ()
    sliders: tuple[str, ...] = ()
    latent: bool = False  # a point among the w of the model that it was found for


def for_version(
    recipe: Recipe, key: str, *, labels: Sequence[str], directions: Sequence[str]
) -> tuple[Recipe, Lacking]:
    """Returns a recipe for another model with its labels and directions, and what is left out."""
    own = tuple(label for label in labels if label in recipe.labels)
    other = key != recipe.model
    changed = dataclasses.replace(
        recipe,
        model=key,
        labels=own,
        strengths=tuple(pair for pair in recipe.strengths if pair[0] in own),
        sliders=tuple(pair for pair in recipe.sliders if pair[0] in directions),
        latent="" if other else recipe.latent,
    )
    return changed, Lacking(
        tuple(label for label in recipe.labels if label not in labels),
        tuple(name for name, _ in recipe.sliders if name not in directions),
        other and bool(recipe.latent),
    )


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_PICTURES:
        raise UsageError(f"{count} pictures; 1 to {MAX_PICTURES} go together")


def _columns(count: int) -> tuple[int, int]:
    """Returns how many columns hold so many pictures on the page, and how large each may be, px."""
    width, height = (side - 2 * MARGIN_PX + GAP_PX for side in SHEET_PX)
    columns = 3
    while True:
        side = width // columns - GAP_PX
        rows = height // (side + LINES * LINE_PX + GAP_PX)
        if rows * columns >= count:
            return columns, side
        columns += 1


def _caption(
    recipe: Recipe, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """Returns seed and labels in lines of at most `width` px; what is beyond LINES is cut off."""
    words = ", ".join(label.replace("_", " ") for label in recipe.labels).split(" ")
    lines = [f"seed {recipe.seed}", ""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"{lines[LINES - 1]} …"]
    return lines


def _unzipped(content: bytes, *, where: str) -> list[tuple[str, bytes]]:
    """Returns names and contents of the PNGs in a zip; raises UsageError beyond the bounds."""
    found: list[tuple[str, bytes]] = []
    left = UNPACKED_MAX_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            entries = packed.infolist()
            if len(entries) > ENTRIES_MAX:
                raise UsageError(
                    f"{where}: {len(entries):,} files in it; at most {ENTRIES_MAX} are looked at"
                )
            for entry in entries:
                if entry.is_dir() or not entry.filename.lower().endswith(".png"):
                    continue
                if entry.flag_bits & 1 or entry.compress_type not in _METHODS:
                    raise UsageError(f"{where}: an encrypted or unusual zip; a plain one is wanted")
                with packed.open(entry) as file:  # what it says of its size may be a lie
                    png = file.read(left + 1)
                left -= len(png)
                if left < 0:
                    raise UsageError(
                        f"{where}: more than {UNPACKED_MAX_BYTES:,} bytes once unpacked"
                    )
                found.append((entry.filename, png))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, ValueError,
            NotImplementedError, RuntimeError, struct.error, zlib.error) as error:  # fmt: skip
        raise UsageError(f"{where}: a damaged zip") from error
    return found
