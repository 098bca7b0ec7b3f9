"""Looks for pictures in all files of a home, by means of its own: none of the code under test.

Bytes: the original's, and its sha256 in tables. Decoded: pictures and frames of any format, also
base64 in databases, zip members, rows of arrays and copies in columns of tables; a sheet is gone
through by sliding the picture over it in many sizes. Not found, since nothing shows it: a network's
weights, statistics of features.
"""

import base64
import contextlib
import functools
import io
import re
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from lance.file import LanceFileReader
from PIL import Image, ImageSequence, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]  # [H, W, 3]

BASE64 = re.compile(rb"[A-Za-z0-9+/]{200,}={0,2}")
SIZES = [round(32 * 1.06**step) for step in range(37)]  # px of a picture on a sheet: 32 to 260
COARSE_PX, FINE_PX = 12, 48  # that a picture is reduced to, to be looked for and to be compared
PERHAPS, ALIKE = 0.8, 0.9  # least correlation at each; other portraits reach 0.85, webp copies 0.95
FRAGMENT = 64  # letters of a base64 text, of which none may stay in a database's free pages


@dataclass
class Scan:
    """What is looked for: originals and crops, and after a first scan their base64 texts too."""

    originals: Sequence[bytes]
    crops: Sequence[Pixels]
    thumbs: Sequence[bytes] = ()  # floats that a cache keeps of them
    texts: set[bytes] = field(default_factory=set)

    def find(self, home: Path) -> dict[str, str]:
        """Returns the files that hold any of the pictures, with what was found there."""
        found = {}
        for path in sorted(home.rglob("*")):
            if path.is_file():
                is_database = path.suffix in (".db", ".sqlite")
                found_here = self._in_database(path) if is_database else ()
                here = sorted({*found_here, *self._in(path.read_bytes())})
                if here:
                    found[path.relative_to(home).as_posix()] = ", ".join(here)
        return found

    def _in_database(self, path: Path) -> Iterator[str]:
        for text in _texts(path):
            for one in BASE64.findall(text):
                picture = base64.b64decode(one[: len(one) // 4 * 4])
                if any(self._shows(pixels) for pixels in _decoded(picture)):
                    middle = len(one) // 2
                    self.texts.add(one[middle : middle + FRAGMENT])
                    yield "base64"

    def _in(self, content: bytes) -> Iterator[str]:
        if any(original in content for original in self.originals):
            yield "the original"
        if any(thumb in content for thumb in self.thumbs):
            yield "floats"
        if any(text in content for text in self.texts):
            yield "a piece of base64"
        if content.startswith(b"PAR1"):
            yield from self._in_columns(pq.read_table(io.BytesIO(content)))
        elif content.endswith(b"LANC"):
            yield from self._in_lance(content)
        elif content.startswith(b"\x93NUMPY"):
            rows = np.load(io.BytesIO(content))
            if any(self._shows(row.transpose(1, 2, 0)) for row in rows):
                yield "a row of an array"
        elif zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for member in archive.namelist():
                    yield from self._in(archive.read(member))
        elif any(self._shows(pixels) for pixels in _decoded(content)):
            yield "a picture"

    def _in_lance(self, content: bytes) -> Iterator[str]:
        """A file of a Lance table alone: rows that the table has deleted too."""
        with tempfile.NamedTemporaryFile(suffix=".lance") as file:
            file.write(content)
            file.flush()
            with contextlib.suppress(OSError):  # it describes a version: no rows
                yield from self._in_columns(LanceFileReader(file.name).read_all().to_table())

    def _in_columns(self, table: pa.Table) -> Iterator[str]:
        for column in table.column_names:
            if pa.types.is_binary(table.schema.field(column).type):
                for copy in table[column].drop_null().to_pylist():
                    if any(map(self._is, _decoded(copy))):
                        yield f"a picture in {column}"
                    side = round((len(copy) / 3) ** 0.5)
                    if len(copy) == 3 * side * side and self._is(
                        np.frombuffer(copy, np.uint8).reshape(side, side, 3)
                    ):
                        yield f"a copy in {column}"

    def _is(self, copy: Pixels) -> bool:
        """Whether a small copy, 16 px perhaps, is of a crop or of an original."""
        small = _reduced(copy, COARSE_PX)
        return any(_best(small, _reduced(one, COARSE_PX))[0] >= ALIKE for one in self._wanted)

    def _shows(self, sheet: Pixels) -> bool:
        """Whether a crop or an original is anywhere on a picture, in whatever size."""
        return any(self.likeness(sheet, one) >= ALIKE for one in self._wanted)

    def likeness(self, sheet: Pixels, one: Pixels) -> float:
        """Returns the correlation (-1 to 1) with the place on a sheet that is most like `one`."""
        shortest, best = min(sheet.shape[:2]), 0.0
        coarse, fine = _reduced(one, COARSE_PX), _reduced(one, FINE_PX)
        for size in sorted({*(size for size in SIZES if size <= shortest), shortest}):
            found, (x, y) = _best(_scaled(sheet, COARSE_PX / size), coarse)
            if found >= PERHAPS:
                by, edge = size / COARSE_PX, size // 8
                left, top = (max(0, round(place * by) - edge) for place in (x, y))
                around = sheet[top : top + size + 2 * edge, left : left + size + 2 * edge]
                near = [_scaled(around, FINE_PX / size * by) for by in (0.96, 0.98, 1, 1.02, 1.04)]
                best = max(best, *(_best(part, fine)[0] for part in near))
        return best

    @functools.cached_property
    def _wanted(self) -> list[Pixels]:
        return [*(one for original in self.originals for one in _decoded(original)), *self.crops]


def _reduced(picture: Pixels, side_px: int) -> Pixels:
    return np.asarray(
        cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA), np.uint8
    )


def _scaled(picture: Pixels, by: float) -> Pixels:
    how = cv2.INTER_AREA if by < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, None, fx=by, fy=by, interpolation=how), np.uint8)


def _best(sheet: Pixels, one: Pixels) -> tuple[float, tuple[int, int]]:
    """The correlation with the most like place of a sheet, and its corner; 0 if it is too small."""
    if min(sheet.shape[:2]) < one.shape[0]:
        return 0.0, (0, 0)
    match = cv2.matchTemplate(sheet, one, cv2.TM_CCOEFF_NORMED)
    match[~np.isfinite(match)] = 0
    _, found, _, (x, y) = cv2.minMaxLoc(match)
    return found, (x, y)


def _texts(path: Path) -> Iterator[bytes]:
    """All texts and blobs in a copy of a database, what is in its write-ahead log among them."""
    with tempfile.TemporaryDirectory() as folder:
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, folder)
        with contextlib.closing(sqlite3.connect(Path(folder) / path.name)) as db:
            tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for row in db.execute(f'SELECT * FROM "{table}"'):
                    for value in row:
                        if isinstance(value, str | bytes):
                            yield value.encode() if isinstance(value, str) else value


def _decoded(content: bytes) -> Iterator[Pixels]:
    """The frames of a picture; none of what is no picture."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            for frame in ImageSequence.Iterator(picture):
                yield np.asarray(frame.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return
