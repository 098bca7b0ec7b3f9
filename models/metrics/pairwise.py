"""Sets of features, read and compared in blocks: what has many rows is never held whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset.errors import TrainingError

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.floating[Any]]  # [N,F], float32 or float64, in memory or a memmap

# Rounding leaves equal rows up to 1e-15 of their norms apart, more or less of it by block.
EQUAL_BELOW = 1e-13


def starts(rows: int, block: int) -> range:
    """Returns the first row of each block."""
    return range(0, rows, block)


def blocks(features: Features, block: int) -> Iterator[tuple[int, Array]]:
    """Yields the first row and the rows [<= block,F] of each block, as float64.

    Raises TrainingError if a number is not finite.
    """
    for start in starts(len(features), block):
        rows = np.asarray(features[start : start + block], dtype=np.float64)
        if not np.isfinite(rows).all():
            raise TrainingError("the extractor gave features that are not finite")
        yield start, rows


def squared_distances(one: Array, two: Array) -> Array:
    """Returns the squared Euclidean distances [n,m] of rows [n,F] and [m,F]; 0 for equal rows."""
    norms = np.square(one).sum(axis=1)[:, None] + np.square(two).sum(axis=1)
    squared: Array = norms - 2 * (one @ two.T)
    squared[squared < EQUAL_BELOW * norms] = 0
    return squared


def require_rows(least: int, what: str, **sets: Features) -> None:
    """Raises TrainingError naming the sets with fewer rows, or unless all are equally wide."""
    shapes = ", ".join(f"{name} {list(held.shape)}" for name, held in sets.items())
    if any(held.ndim != 2 for held in sets.values()):
        raise TrainingError(f"{what} needs features [rows,features]; there are {shapes}")
    if any(len(held) < least for held in sets.values()):
        raise TrainingError(f"{what} needs {least} pictures or more on each side: {shapes}")
    if len({held.shape[1] for held in sets.values()}) > 1:
        raise TrainingError(f"{what} needs features of one extractor: {shapes}")
