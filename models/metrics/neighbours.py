"""Metrics of distances in feature space: precision, recall, coverage, spread, memorization.

Features are read and compared in blocks: what has many rows is never held whole.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dataset.errors import TrainingError

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.floating[Any]]  # [N,F], float32 or float64, in memory or a memmap

# Rounding leaves equal rows up to 1e-15 of their norms apart, more or less of it by block.
EQUAL_BELOW = 1e-13


def blocks(features: Features, block: int) -> Iterator[tuple[int, Array]]:
    """Yields the first row and the rows [<= block,F] of each block, as float64.

    Raises TrainingError if a number is not finite.
    """
    for start in range(0, len(features), block):
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


class Overlap(NamedTuple):
    """How far two sets of pictures lie among each other; a "neighbour" is one of the same set.

    Attributes:
        precision: share of fakes that lie among the reals: no further from some real than that
            one's k-th neighbour is.
        recall: share of reals that lie among the fakes.
        coverage: share of reals that have a fake no further away than their k-th neighbour. Unlike
            recall it does not trust the distances between fakes: one far off all others covers
            nothing.

    """

    precision: float
    recall: float
    coverage: float


def overlap(reals: Features, fakes: Features, *, k: int = 3, block: int = 1000) -> Overlap:
    """Compares reals [N,F] with fakes [M,F], each share 0 to 1.

    Works block by block: no more than a few matrices [block,block] are held, and the block changes
    no result. Raises TrainingError for k or fewer rows, sets of unequal width, or numbers that are
    not finite.
    Sources: Kynkäänniemi et al. 2019, arXiv:1904.06991 (precision, recall); Naeem et al. 2020,
    arXiv:2002.09797, equation 8 (coverage).
    """
    require_rows(k + 1, f"precision, recall and coverage with k {k}", reals=reals, fakes=fakes)
    near_reals = _squared_radii(reals, k=k, block=block)
    near_fakes = _squared_radii(fakes, k=k, block=block)
    fakes_inside, reals_met = _within(fakes, reals, near_reals, block=block)
    reals_inside, _ = _within(reals, fakes, near_fakes, block=block)
    shares = (fakes_inside, reals_inside, reals_met)
    return Overlap(*(float(one.mean()) for one in shares))


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


def _within(
    some: Features, others: Features, squared_radii: Array, *, block: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tells which rows of `some` lie within the radius of one of `others`, and which of those met.

    Returns bools [len(some)] and [len(others)].
    """
    inside = np.zeros(len(some), dtype=np.bool_)
    met = np.zeros(len(others), dtype=np.bool_)
    for first, rows in blocks(some, block):
        for start, centres in blocks(others, block):
            radii = squared_radii[start : start + len(centres)]
            near = squared_distances(rows, centres) <= radii
            inside[first : first + len(rows)] |= near.any(axis=1)
            met[start : start + len(centres)] |= near.any(axis=0)
    return inside, met


@dataclasses.dataclass(frozen=True, eq=False)
class PairDistances:
    """How far apart the pictures of a set are, over pairs of different rows.

    Attributes:
        mean: mean Euclidean distance of all pairs.
        alike: mean distance of the pairs with one row of labels, and how many, by that row's bytes.

    """

    mean: float
    alike: Mapping[bytes, tuple[float, int]]


def pair_distances(
    features: Features, labels: npt.NDArray[Any] | None = None, *, block: int = 1000
) -> PairDistances:
    """Measures the distances within features [N,F] of pictures with labels [N,L] of 0 and 1.

    Without labels (None, or L = 0) no pairs are alike. No more than a few matrices [block,block]
    and [block,F] are held; the block changes no more than rounding. Raises TrainingError for fewer
    than 2 rows or numbers that are not finite.
    """
    require_rows(2, "the spread", pictures=features)
    if labels is None or not labels.shape[1]:
        labels = np.arange(len(features))[:, None]  # each its own
    found, group = np.unique(labels, axis=0, return_inverse=True)
    total, totals = 0.0, np.zeros(len(found))
    for first, rows in blocks(features, block):
        for further, others in blocks(features[first:], block):
            apart = np.sqrt(squared_distances(rows, others))
            if not further:  # the block meets itself: each pair stands in it twice
                apart = np.triu(apart, 1)
            total += float(apart.sum())
            here = group[first : first + len(rows)]
            there = group[first + further : first + further + len(others)]
            same = (apart * (here[:, None] == there)).sum(axis=1)
            totals += np.bincount(here, same, minlength=len(found))
    counts = np.bincount(group)
    pairs = counts * (counts - 1) // 2
    alike = {
        row.astype(np.bool_).tobytes(): (float(whole / count), int(count))
        for row, whole, count in zip(found, totals, pairs, strict=True)
        if count
    }
    return PairDistances(2 * total / (len(features) * (len(features) - 1)), alike)


def spread(fakes: PairDistances, reals: PairDistances) -> tuple[float, float]:
    """Returns how varied fakes are beside reals, in all and within equal labels: mean distances.

    0: one picture again and again; 1: as varied as the reals. It says nothing of likeness: noise
    is varied too. Within labels, each pair of fakes is held against the mean of the reals' pairs
    with its labels, so that faces that differ in what was requested alone have little; nan where no
    label row has pairs on both sides. nan also if all reals are equal.
    """
    shared = [row for row in fakes.alike if row in reals.alike]
    found = sum(fakes.alike[row][0] * fakes.alike[row][1] for row in shared)
    usual = sum(reals.alike[row][0] * fakes.alike[row][1] for row in shared)
    return (
        fakes.mean / reals.mean if reals.mean else float("nan"),
        found / usual if usual else float("nan"),
    )


COPIED_PERCENTILE = 1.0  # of the unseen reals' distances; nearer than this is called copied


@dataclasses.dataclass(frozen=True, eq=False)
class Memorization:
    """How near N fakes lie to the pictures that were trained on.

    Attributes:
        ratio: median distance of the fakes to their nearest training real over that of unseen
            reals: 1 = as far as unseen pictures, 0 = copies; nan if most unseen reals are
            themselves in the training set.
        copied_frac: share of fakes nearer than the unseen reals' 1st percentile, or equal to a
            training real; about 0.01 for pictures that are as new as the unseen reals.
        nearest: [N], each fake's nearest row of the training reals.
        distances: [N], how far that is.

    """

    ratio: float
    copied_frac: float
    nearest: npt.NDArray[np.int64]
    distances: Array


def memorization(
    fakes: Features, train_reals: Features, eval_reals: Features, *, block: int = 1000
) -> Memorization:
    """Compares fakes [N,F] with what was trained on [T,F], beside reals that were not [E,F].

    No more than a few matrices [block,block] and [block,F] are held. Raises TrainingError for an
    empty set, sets of unequal width, or numbers that are not finite.
    """
    require_rows(
        1, "the search for copies", fakes=fakes, train_reals=train_reals, eval_reals=eval_reals
    )
    nearest, distances = _nearest(fakes, train_reals, block)
    _, unseen = _nearest(eval_reals, train_reals, block)
    usual = float(np.median(unseen))
    copied = (distances < np.percentile(unseen, COPIED_PERCENTILE)) | (distances == 0)
    return Memorization(
        ratio=float(np.median(distances)) / usual if usual else float("nan"),
        copied_frac=float(copied.mean()),
        nearest=nearest,
        distances=distances,
    )


def _nearest(some: Features, others: Features, block: int) -> tuple[npt.NDArray[np.int64], Array]:
    """Returns for each row of `some` its nearest row of `others` and their distance, both [n]."""
    places, distances = [], []
    for _, rows in blocks(some, block):
        least: Array = np.full(len(rows), np.inf)
        place = np.zeros(len(rows), dtype=np.int64)
        for start, candidates in blocks(others, block):
            squared = squared_distances(rows, candidates)
            best = squared.argmin(axis=1)
            found = squared[np.arange(len(rows)), best]
            place = np.where(found < least, start + best, place)
            least = np.minimum(found, least)
        places.append(place)
        # Measured anew: a difference of large norms says little about a copy's small distance.
        distances.append(np.linalg.norm(rows - np.asarray(others[place], np.float64), axis=1))
    return np.concatenate(places), np.concatenate(distances)
