"""Pictures of a comparison: all entrants side by side, and each one's labels."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.families.base import GeneratorNet
from models.io.generators import load_generator
from models.labels import Rows, typical_labels
from models.metrics.label_control import hair_labels
from models.sampling.draw import draw, grid, titled
from models.sampling.tables import swap_table

COLUMNS = 10
CELL_PX = 64
GRIDS_BYTES = 170_000  # a picture for a page of documentation
TABLE_ROWS = 6


def side_by_side(folders: Mapping[str, str], rows: Rows, labels: Sequence[str]) -> bytes:
    """Draws a row an entrant, a column a seed with the labels of a real row; a JPEG's bytes.

    folders: entrant to its generator's address. rows [M,L] of `labels`: a manifest's eval rows.
    The JPEG is at most GRIDS_BYTES long.
    """
    asked = typical_labels(rows, COLUMNS, 0)
    drawn = []
    for folder in folders.values():
        generator = load_generator(folder)
        pictures = draw(generator, _known(generator, asked, labels), range(COLUMNS))
        drawn.append(np.stack([_fitted(picture) for picture in pictures]))
    sheet = titled(grid(np.concatenate(drawn), COLUMNS), list(folders), row_px=CELL_PX)
    return _jpeg(sheet)


def label_table(folder: str, rows: Rows, labels: Sequence[str]) -> Image.Image | None:
    """Draws the same characters with one hair colour after the other; None without hair labels.

    folder: the generator's address; the other arguments as in `side_by_side`.
    """
    generator = load_generator(folder)
    known, own = generator.spec.labels, _known(generator, rows, labels)
    frequent = sorted(hair_labels(known), key=lambda column: -own[:, column].sum())[:TABLE_ROWS]
    if not frequent:
        return None
    columns = max(4, 8 * 64 // generator.spec.resolution_px)
    return swap_table(generator, own, [known[column] for column in frequent], seeds=range(columns))


def _known(generator: GeneratorNet, rows: Rows, labels: Sequence[str]) -> Rows:
    """Returns the columns of the labels that the generator knows, in its order."""
    columns = [list(labels).index(name) for name in generator.spec.labels]
    return rows[:, columns]


def _fitted(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    side = (CELL_PX, CELL_PX)
    return np.asarray(Image.fromarray(picture).resize(side, Image.Resampling.LANCZOS))


def _jpeg(sheet: Image.Image) -> bytes:
    """Returns the sheet as a JPEG of at most GRIDS_BYTES: quality goes down first, then size."""
    while True:
        for quality in (92, 85, 78, 70, 60):
            buffer = io.BytesIO()
            sheet.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= GRIDS_BYTES:
                return buffer.getvalue()
        sheet = sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4))
