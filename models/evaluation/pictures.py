"""The pictures of an evaluation: some fakes, some reals, and the fakes beside their neighbours."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset.store import Store
from models.evaluation.fakes import FakeSet
from models.evaluation.measuring import Measured, Pictures
from models.evaluation.reference import Split
from models.families.base import GeneratorNet
from models.metrics.blocks import blocks, squared_distances
from models.metrics.memory import Memory
from models.sampling.draw import CHUNK, grid

FAKES, REALS, NEIGHBOURS = "fakes.png", "reals.png", "neighbours.png"
SHOWN = 32  # pictures on fakes.png and reals.png
COLUMNS = 8
NEAREST_FAKES = 8  # rows of neighbours.png
NEAREST_REALS = 3  # beside each


def first_fakes(fakes: FakeSet, generator: GeneratorNet) -> Pictures:
    """Draws the first fakes again, in the chunk that they were measured in."""
    return fakes.draw(generator, 0, min(CHUNK, len(fakes)))[:SHOWN]


def neighbours_table(
    fakes: FakeSet,
    generator: GeneratorNet,
    *,
    measured: Measured,
    memory: Memory,
    train: Split,
    train_rows: Measured,
) -> Pictures:
    """Returns [fake, its nearest training reals, the next fake, …] for the fakes nearest to any.

    train: at the fakes' side. NEAREST_REALS + 1 columns make a row a fake.
    """
    chosen = np.argsort(memory.distances, kind="stable")[:NEAREST_FAKES]
    nearest = _nearest(measured.features[chosen], train_rows, NEAREST_REALS)
    cells = []
    for place, reals in zip(chosen.tolist(), nearest, strict=True):
        (fake,) = fakes.draw(generator, place, place + 1)
        cells.append(fake[None])
        cells.append(train.pictures(reals))
    return np.concatenate(cells)


def write_grid(store: Store, path: str, pictures: Pictures, *, columns: int = COLUMNS) -> None:
    """Writes pictures [N,H,W,3] as a PNG, `columns` in a row."""
    _write(store, path, grid(pictures, columns))


def _write(store: Store, path: str, picture: Image.Image) -> None:
    sheet = io.BytesIO()
    picture.save(sheet, "PNG")
    store.write_bytes(path, sheet.getvalue(), durable=False)


def _nearest(
    features: npt.NDArray[np.floating], train: Measured, count: int
) -> npt.NDArray[np.int64]:
    """Returns the rows [n,count] of the training reals nearest to features [n,F], nearest first."""
    wanted = np.asarray(features, dtype=np.float64)
    apart = [squared_distances(wanted, rows) for _, rows in blocks(train.features, 1000)]
    return np.argsort(np.concatenate(apart, axis=1), axis=1, kind="stable")[:, :count]
