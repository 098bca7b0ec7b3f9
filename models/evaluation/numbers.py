"""The numbers of one set of fakes, and their means over the sets."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from models.evaluation.axes import Axes
from models.evaluation.measuring import Measured
from models.evaluation.rows import Rows32
from models.labels import Rows
from models.metrics.frechet import (
    RunningStatistics,
    Statistics,
    joint_features,
)
from models.metrics.hair import hits
from models.metrics.kernel import kernel_distance
from models.metrics.label_scores import average_precisions
from models.metrics.manifold import precision_recall
from models.metrics.memory import Memory, memory

SUBSETS = 100  # of the kernel distance, over all sets together
_BLOCK = 1024  # rows; the memory that an evaluation takes does not depend on how many there are


@dataclasses.dataclass(frozen=True, eq=False)
class Reals:
    """All that one set of fakes is compared with.

    Attributes:
        measured: rows of the eval split, whose labels are `labels` [n,L].
        train, unseen: rows of the training pictures and of the eval split at the fakes' own side.
        axes, joint_axes: of the eval split's features, alone and with labels beside them.
        weight: of the labels beside the features.
        shared: columns, in the manifest's labels, of those that the generator knows.
        hair, tones: columns of the hair colours among them, and their mean tones [K,3].

    """

    measured: Measured
    labels: Rows
    train: Measured
    unseen: Measured
    axes: Axes
    joint_axes: Axes | None
    weight: float
    shared: list[int]
    hair: list[int]
    tones: npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Numbers:
    """What one set of fakes gave; nan is what has no meaning here."""

    distance: float
    joint: float
    kernel: float
    precision: float
    recall: float
    label_aps: npt.NDArray[np.float64]  # [L] of the shared labels
    hair_hits: float
    memory: Memory


def numbers_of(
    fakes: Measured, labels: Rows, reals: Reals, *, neighbours: int, subsets: int, seed: int
) -> Numbers:
    """Measures a set of fakes [N] that were drawn for labels [N,L] of the manifest.

    Label scores are taken over the judge's logits: they order as its probabilities do, and two of
    them are never both rounded to 1.
    """
    precision, recall = precision_recall(reals.measured.features, fakes.features, k=neighbours)
    kernel = kernel_distance(fakes.features, reals.measured.features, subsets=subsets, seed=seed)
    joint = float("nan")
    if reals.joint_axes is not None:
        joint = reals.joint_axes.distance(joint_statistics(fakes, labels, reals.weight))
    return Numbers(
        distance=reals.axes.distance(plain_statistics(fakes.features)),
        joint=joint,
        kernel=kernel.mean,
        precision=precision,
        recall=recall,
        label_aps=average_precisions(fakes.rest[:, reals.shared], labels[:, reals.shared]),
        hair_hits=hits(fakes.tones, labels[:, reals.hair], reals.tones),
        memory=memory(fakes.features, reals.train.features, reals.unseen.features),
    )


def plain_statistics(features: Rows32) -> Statistics:
    """Returns the statistics of features [N,F], block by block."""
    running = RunningStatistics()
    for start in range(0, len(features), _BLOCK):
        running.add(features[start : start + _BLOCK])
    return running.result()


def joint_statistics(measured: Measured, labels: Rows, weight: float) -> Statistics:
    """Returns the statistics of features with their labels [N,L] beside them, block by block."""
    running = RunningStatistics()
    for start in range(0, len(labels), _BLOCK):
        some = slice(start, start + _BLOCK)
        running.add(joint_features(measured.features[some], labels[some], weight=weight))
    return running.result()


def mean_ap(aps: npt.NDArray[np.float64], occurring: npt.NDArray[np.bool_]) -> float:
    """Returns the mean over the labels that occur; nan if none does."""
    return float(aps[occurring].mean()) if occurring.any() else float("nan")


def by_label(names: Sequence[str], values: Iterable[float]) -> Mapping[str, float | None]:
    """Returns each label's value, None for nan."""
    return {name: finite_or_none(value) for name, value in zip(names, values, strict=True)}


def mean_of(values: Sequence[float]) -> float | None:
    """Returns the mean, None if a value is nan or there is none."""
    return finite_or_none(float(np.mean(values))) if len(values) else None


def sigma_of(values: Sequence[float]) -> float | None:
    """Returns the standard deviation over the sets, 0 for a single one, None if a value is nan."""
    if len(values) < 2:
        return 0.0 if np.isfinite(values).all() else None
    return finite_or_none(float(np.std(values, ddof=1)))


def finite_or_none(value: float) -> float | None:
    """Returns the value, None for nan and infinity, which JSON has not."""
    return float(value) if np.isfinite(value) else None
