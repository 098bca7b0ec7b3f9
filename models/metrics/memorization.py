"""Does a generator repeat its training pictures? Judged by nearest neighbours in feature space."""

import dataclasses

import numpy as np
import numpy.typing as npt

from models.metrics.pairwise import Array, Features, blocks, require_rows, squared_distances

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
