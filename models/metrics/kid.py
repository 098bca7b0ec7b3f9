"""The kernel distance between two sets of features; over standard Inception features it is KID.

Source: Bińkowski et al. 2018, arXiv:1801.01401, sections 3 and 4. Their mean over random subsets of
1,000 rows spares time and adds noise of its own; here all rows are compared, block by block.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dataset.errors import TrainingError
from models.metrics.neighbours import Array, Features, require_rows


@dataclasses.dataclass(frozen=True, eq=False)
class KernelDistance:
    """The unbiased MMD² of two sets; around 0, also below, for sets of one distribution.

    Attributes:
        value: of all rows.
        without_fake, without_real: [N] and [M], of all rows but one.

    """

    value: float
    without_fake: Array
    without_real: Array


def kernel_distance(fakes: Features, reals: Features, *, block: int = 1000) -> KernelDistance:
    """Returns the unbiased MMD² of fakes [N,F] and reals [M,F] by the kernel (x·y/F + 1)³.

    No more than a few matrices [block,block] are held. Raises TrainingError for fewer than 3 rows,
    sets of unequal width, or numbers that are not finite.
    """
    require_rows(3, "the kernel distance", fakes=fakes, reals=reals)
    across, of_reals = _row_sums(fakes, reals, block=block)
    within = [_row_sums(rows, rows, block=block)[0] - _own(rows, block) for rows in (fakes, reals)]
    if not all(np.isfinite(sums).all() for sums in (across, *within)):
        raise TrainingError("the extractor gave features that are not finite")
    n, m, total = len(fakes), len(reals), across.sum()
    of_fakes, of_others = (sums.sum() for sums in within)
    fakes_part, reals_part = of_fakes / (n * (n - 1)), of_others / (m * (m - 1))
    return KernelDistance(
        value=float(fakes_part + reals_part - 2 * total / (n * m)),
        without_fake=(of_fakes - 2 * within[0]) / ((n - 1) * (n - 2))
        + reals_part
        - 2 * (total - across) / ((n - 1) * m),
        without_real=fakes_part
        + (of_others - 2 * within[1]) / ((m - 1) * (m - 2))
        - 2 * (total - of_reals) / (n * (m - 1)),
    )


def standard_error(found: Sequence[KernelDistance]) -> float:
    """Returns the standard error of the mean over sets of fakes that share their reals.

    The jackknife leaves out one fake or one real at a time: other fakes and other reals would have
    given another number. A bootstrap's repeated rows would count a picture's likeness to itself,
    which the unbiased distance leaves out. Against the spread over independent Gaussian sets it is
    0.99 to 1.08 times that where they are far apart, 1.4 to 1.6 times where they are equal.
    Source: Arvesen 1969, Ann. Math. Statist. 40, section 3; Efron and Stein 1981, Ann. Statist. 9.
    """
    fakes = sum(_spread(one.without_fake) for one in found) / len(found) ** 2
    reals = _spread(np.mean([one.without_real for one in found], axis=0))
    return float(np.sqrt(fakes + reals))


def _spread(without: Array) -> float:
    """Returns the jackknife's variance by the values [n] without each row."""
    return float((len(without) - 1) * np.var(without))


def _row_sums(one: Features, two: Features, *, block: int) -> tuple[Array, Array]:
    """Returns the sums of the kernel's matrix [n,m] over its columns [n] and over its rows [m]."""
    right, below = np.zeros(len(one)), np.zeros(len(two))
    for top in range(0, len(one), block):
        rows = np.asarray(one[top : top + block])
        for left in range(0, len(two), block):
            kernel = _kernel(rows, np.asarray(two[left : left + block]))
            right[top : top + len(rows)] += kernel.sum(axis=1)
            below[left : left + kernel.shape[1]] += kernel.sum(axis=0)
    return right, below


def _own(features: Features, block: int) -> Array:
    """Returns each row's kernel with itself [n]."""
    squares = [
        np.square(np.asarray(features[at : at + block], dtype=np.float64)).mean(axis=1)
        for at in range(0, len(features), block)
    ]
    own: Array = (np.concatenate(squares) + 1) ** 3
    return own


def _kernel(one: Features, two: Features) -> npt.NDArray[np.float64]:
    # The product stays in the features' own precision, as it takes all the time; all else does not.
    product = (one @ two.T).astype(np.float64)
    kernel: npt.NDArray[np.float64] = (product / one.shape[1] + 1) ** 3
    return kernel
