"""The Fréchet distance between two sets of features: features, statistics, distance.

Source: Dowson and Landau 1982, equation 16; as a metric of generators, Heusel et al. 2017,
arXiv:1706.08500. Over standard Inception features alone it is called FID.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from dataset.errors import TrainingError

Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean [F] and unbiased covariance [F,F] of features, and how many rows they come from."""

    mean: Array
    covariance: Array
    rows: int


def statistics(features: Array) -> Statistics:
    """Returns the statistics of features [N,F]; raises TrainingError if N < 2 or not finite."""
    if len(features) < 2:
        raise TrainingError(
            f"a distance needs 2 pictures or more on each side, not {len(features)}"
        )
    if not np.isfinite(features).all():
        raise TrainingError("the extractor gave features that are not finite")
    covariance = np.atleast_2d(np.cov(features, rowvar=False))
    return Statistics(features.mean(axis=0), covariance, len(features))


def frechet_distance(one: Statistics, two: Statistics) -> float:
    """Returns |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½), >= 0; 0 for equal statistics.

    tr (C1 C2)^½ is the sum of the roots of the eigenvalues of C1 C2, which are real and >= 0. They
    are taken from the symmetric C1^½ C2 C1^½, which has the same ones: this also stands when there
    are fewer rows than features, where a matrix root of the singular product does not.
    """
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ two.covariance @ root)
    apart = np.square(one.mean - two.mean).sum()
    spread = np.trace(one.covariance) + np.trace(two.covariance)
    return float(max(0.0, apart + spread - 2 * np.sqrt(shared.clip(min=0)).sum()))
