"""Precision and recall of a generator: how many fakes lie among the reals, and the reverse.

Source: Kynkäänniemi et al. 2019, arXiv:1904.06991, section 2 (equations 1 and 2).
"""

import numpy as np

from models.metrics.pairwise import Array, Features, blocks, require_rows, squared_distances


def precision_recall(
    reals: Features, fakes: Features, *, k: int = 3, block: int = 1000
) -> tuple[float, float]:
    """Returns the share of fakes among the reals and of reals among the fakes, each 0 to 1.

    A picture lies among a set if it is no further from one of its pictures than that one's k-th
    neighbour in the set is. reals [N,F], fakes [M,F]; compared block by block, so that no more than
    a few matrices [block,block] are held, and the block changes no result.
    Raises TrainingError for k or fewer rows, sets of unequal width, or numbers that are not finite.
    """
    require_rows(k + 1, f"precision and recall with k {k}", reals=reals, fakes=fakes)
    precision = _share_among(fakes, reals, _squared_radii(reals, k=k, block=block), block=block)
    recall = _share_among(reals, fakes, _squared_radii(fakes, k=k, block=block), block=block)
    return precision, recall


def _squared_radii(features: Features, *, k: int, block: int) -> Array:
    """Returns each row's squared distance [N] to its k-th nearest other row."""
    return np.concatenate(
        [
            _nearest_squared(start, rows, features, k=k, block=block).max(axis=1)
            for start, rows in blocks(features, block)
        ]
    )


def _nearest_squared(first: int, rows: Array, features: Features, *, k: int, block: int) -> Array:
    """Returns the k least squared distances [n,k] of rows, which begin at `first`, to others."""
    least: Array = np.full((len(rows), k), np.inf)
    for start, others in blocks(features, block):
        squared = squared_distances(rows, others)
        if start == first:  # blocks fall together, so that a row meets itself on the diagonal
            np.fill_diagonal(squared, np.inf)
        least = np.partition(np.concatenate([least, squared], axis=1), k - 1, axis=1)[:, :k]
    return least


def _share_among(some: Features, others: Features, squared_radii: Array, *, block: int) -> float:
    """Returns the share of rows of `some` that lie within the radius of one of `others`."""
    inside = 0
    for _, rows in blocks(some, block):
        within = np.zeros(len(rows), dtype=np.bool_)
        for start, centres in blocks(others, block):
            radii = squared_radii[start : start + len(centres)]
            within |= (squared_distances(rows, centres) <= radii).any(axis=1)
        inside += int(within.sum())
    return inside / len(some)
