"""The reference's own axes: Fréchet distances to few pictures, without the axes they lack."""

import numpy as np
import numpy.typing as npt

from models.metrics.frechet import Statistics, frechet_distance

Array = npt.NDArray[np.float64]


class Axes:
    """A reference of n pictures spreads along n - 1 axes at most; distances to it, exactly.

    The cross term of the distance, tr (C1 C2)^½, knows the reference's axes alone: whatever the
    other set does beside them adds its trace and the square of its mean. So all that is laid onto
    one axis more, and matrices of n numbers a side are left instead of F (1,280 for our extractor:
    with 179 pictures 0.03 s instead of 2.2 s, and an evaluation wants 17 distances).
    """

    def __init__(self, reference: Statistics) -> None:
        self._reference = reference
        width = len(reference.mean)
        rank = min(reference.rows - 1, width)
        self._basis: Array | None = None  # [F, rank]
        self._within = reference
        if rank < width:
            values, vectors = np.linalg.eigh(reference.covariance)  # ascending
            self._basis = vectors[:, width - rank :]
            spread = np.append(values[width - rank :].clip(min=0), 0.0)
            self._within = Statistics(np.zeros(rank + 1), np.diag(spread), reference.rows)

    def distance(self, found: Statistics) -> float:
        """Returns the Fréchet distance of `found` and the reference."""
        return frechet_distance(self._within, self._laid(found))

    def _laid(self, found: Statistics) -> Statistics:
        if self._basis is None:
            return found
        rank = self._basis.shape[1]
        apart = found.mean - self._reference.mean
        along = self._basis.T @ apart
        covariance = np.zeros((rank + 1, rank + 1))
        covariance[:rank, :rank] = self._basis.T @ found.covariance @ self._basis
        covariance[rank, rank] = np.trace(found.covariance) - np.trace(covariance)
        beside = max(0.0, float(apart @ apart - along @ along))
        return Statistics(np.append(along, np.sqrt(beside)), covariance, found.rows)
