"""The kernel distance between two sets of features; over standard Inception features it is KID.

Source: Bińkowski et al. 2018, arXiv:1801.01401, sections 3 and 4.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from dataset.errors import TrainingError
from models.metrics.neighbours import Features, require_rows


@dataclasses.dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation over the subsets; around 0, also below, for equal sets."""

    mean: float
    std: float


def kernel_distance(
    fakes: Features,
    reals: Features,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """Returns the unbiased MMD² of fakes [N,F] and reals [M,F] by the kernel (x·y/F + 1)³.

    It is the mean over `subsets` random subsets of min(subset_size, N, M) rows of each set, drawn
    without replacement by `seed`, in the order in which torch-fidelity draws them. Only a subset's
    rows are read. Raises TrainingError for fewer than 2 rows, sets of unequal width, or numbers
    that are not finite.
    """
    require_rows(2, "the kernel distance", fakes=fakes, reals=reals)
    size = min(subset_size, len(fakes), len(reals))
    if size == len(fakes) == len(reals):
        subsets = 1  # each would hold all rows
    rng = np.random.RandomState(seed)
    found = [
        _squared_discrepancy(_drawn(fakes, size, rng), _drawn(reals, size, rng))
        for _ in range(subsets)
    ]
    if not np.isfinite(found).all():
        raise TrainingError("the extractor gave features that are not finite")
    return KernelDistance(float(np.mean(found)), float(np.std(found)))


def _drawn(features: Features, size: int, rng: np.random.RandomState) -> Features:
    # Sorted, so that a memmap is read from front to back; no sum depends on the order.
    return np.asarray(features[np.sort(rng.choice(len(features), size, replace=False))])


def _squared_discrepancy(fakes: Features, reals: Features) -> float:
    """Estimates MMD² without bias from n rows [n,F] of each; holds one kernel matrix at a time."""
    size = len(fakes)
    across = _kernel(fakes, reals).mean()
    within = sum(_without_diagonal(_kernel(rows, rows)) for rows in (fakes, reals))
    return float(within / (size * (size - 1)) - 2 * across)


def _kernel(one: Features, two: Features) -> npt.NDArray[np.float64]:
    # The product stays in the features' own precision, as it takes all the time; all else does not.
    product = (one @ two.T).astype(np.float64)
    kernel: npt.NDArray[np.float64] = (product / one.shape[1] + 1) ** 3
    return kernel


def _without_diagonal(kernel: npt.NDArray[np.float64]) -> float:
    return float(kernel.sum() - np.trace(kernel))
