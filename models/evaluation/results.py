"""Results: the metrics of one set of fakes (`metrics_for_set`), and their means over the sets."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation.feature_rows import FeatureRows
from models.evaluation.label_judge import Judge, Rows32
from models.labels import Rows
from models.metrics.distances import (
    KernelDistance,
    ReferenceStats,
    RunningStatistics,
    Statistics,
    joint_features,
    kernel_distance,
    standard_error,
)
from models.metrics.extractors import Extractor
from models.metrics.label_control import average_precisions, hits
from models.metrics.neighbours import (
    Memorization,
    PairDistances,
    memorization,
    overlap,
    pair_distances,
    spread,
)

Precisions = npt.NDArray[np.float64]  # [L]

_BLOCK = 1024  # rows; the memory that an evaluation takes does not depend on how many there are


@dataclasses.dataclass(frozen=True, eq=False)
class CommonReference:
    """What generators of different sides are compared with: reals at the protocol's side.

    Attributes:
        rows, stats: of the eval split.
        train: rows of the training pictures at that side, or at the generator's where it is less.

    """

    rows: FeatureRows
    train: FeatureRows
    stats: ReferenceStats


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """All that one set of fakes is compared with: reals at the generator's own side.

    Attributes:
        rows: of the eval split, whose labels are `labels` [n,L].
        train: rows of the training pictures.
        stats, joint_stats: of the eval split's features, alone and with labels beside them.
        common: at the protocol's side, None if that is the generator's own.
        weight: of the labels beside the features.
        shared: columns, in the manifest's labels, of those that the generator knows.
        hair, tones: columns of the hair colours among them, and their mean tones [K,3].

    """

    rows: FeatureRows
    labels: Rows
    train: FeatureRows
    stats: ReferenceStats
    joint_stats: ReferenceStats | None
    common: CommonReference | None
    weight: float
    shared: list[int]
    hair: list[int]
    tones: npt.NDArray[np.float64]

    @functools.cached_property
    def apart(self) -> PairDistances:
        """How far apart the eval split's pictures are, measured once for all sets."""
        return self.apart_of(self.rows.features, self.labels)

    def apart_of(self, features: Rows32, labels: Rows) -> PairDistances:
        """Measures other pictures [n] with labels [n,L] of the manifest; the shared ones count."""
        return pair_distances(features, labels[:, self.shared])


@dataclasses.dataclass(frozen=True, eq=False)
class SetMetrics:
    """What one set of fakes gave; nan is what has no meaning here.

    common_distance, common_kernel: at the protocol's side.
    """

    distance: float
    common_distance: float
    joint: float
    kernel: KernelDistance
    common_kernel: KernelDistance
    precision: float
    recall: float
    coverage: float
    spread: float
    spread_within_labels: float
    label_aps: npt.NDArray[np.float64]  # [L] of the shared labels
    hair_hits: float
    memory: Memorization


def metrics_for_set(
    fakes: FeatureRows, labels: Rows, reals: Reference, *, neighbours: int
) -> SetMetrics:
    """Measures a set of fakes [N] that were drawn for labels [N,L] of the manifest.

    Label scores are taken over the judge's logits: they order as its probabilities do, and two of
    them are never both rounded to 1.
    """
    shares = overlap(reals.rows.features, fakes.features, k=neighbours)
    variety, within = spread(reals.apart_of(fakes.features, labels), reals.apart)
    distance = reals.stats.distance(plain_statistics(fakes.features))
    kernel = kernel_distance(fakes.features, reals.rows.features)
    common_distance, common_kernel = distance, kernel
    if reals.common is not None:
        reduced = fakes.reduced_features
        common_distance = reals.common.stats.distance(plain_statistics(reduced))
        common_kernel = kernel_distance(reduced, reals.common.rows.features)
    joint = float("nan")
    if reals.joint_stats is not None:
        joint = reals.joint_stats.distance(joint_statistics(fakes, labels, reals.weight))
    return SetMetrics(
        distance=distance,
        common_distance=common_distance,
        joint=joint,
        kernel=kernel,
        common_kernel=common_kernel,
        precision=shares.precision,
        recall=shares.recall,
        coverage=shares.coverage,
        spread=variety,
        spread_within_labels=within,
        label_aps=average_precisions(fakes.rest[:, reals.shared], labels[:, reals.shared]),
        hair_hits=hits(fakes.tones, labels[:, reals.hair], reals.tones),
        memory=memorization(fakes.features, reals.train.features, reals.rows.features),
    )


def truncation_point(
    psi: float,
    fakes: FeatureRows,
    reals: Reference,
    *,
    metric: str,
    neighbours: int,
) -> dict[str, Any]:
    """Returns a point of the truncation curve: psi and distance, precision, recall and spread.

    Few fakes have a larger distance than many, so the points are compared with each other and not
    with the evaluation's own distance.
    """
    shares = overlap(reals.rows.features, fakes.features, k=neighbours)
    return {
        "psi": psi,
        metric: reals.stats.distance(plain_statistics(fakes.features)),
        "precision": shares.precision,
        "recall": shares.recall,
        "spread": finite_or_none(spread(pair_distances(fakes.features), reals.apart)[0]),
    }


def plain_statistics(features: Rows32) -> Statistics:
    """Returns the statistics of features [N,F], block by block."""
    running = RunningStatistics()
    for start in range(0, len(features), _BLOCK):
        running.add(features[start : start + _BLOCK])
    return running.result()


def joint_statistics(rows: FeatureRows, labels: Rows, weight: float) -> Statistics:
    """Returns the statistics of features with their labels [N,L] beside them, block by block."""
    running = RunningStatistics()
    for start in range(0, len(labels), _BLOCK):
        some = slice(start, start + _BLOCK)
        running.add(joint_features(rows.features[some], labels[some], weight=weight))
    return running.result()


def distances_over_sets(
    network: Extractor, found: list[SetMetrics], *, common_px: int
) -> dict[str, Any]:
    """Fréchet, joint and kernel distances: means, standard deviations, standard errors.

    Those `…_at128` (common_px) are to the reals at that side.
    """
    metric, kernel, at = network.metric, network.kernel_metric, f"_at{common_px}"
    distances = [one.distance for one in found]
    return {
        "metric": metric,
        metric: float(np.mean(distances)),
        "sigma": sigma_of(distances),
        "distances": distances,
        f"{metric}{at}": mean_of([one.common_distance for one in found]),
        f"joint_{metric}": mean_of([one.joint for one in found]),
        "kernel_metric": kernel,
        kernel: mean_of([one.kernel.value for one in found]),
        f"{kernel}_sigma": sigma_of([one.kernel.value for one in found]),
        f"{kernel}_se": standard_error([one.kernel for one in found]),
        f"{kernel}{at}": mean_of([one.common_kernel.value for one in found]),
        f"{kernel}{at}_se": standard_error([one.common_kernel for one in found]),
    }


def numbers_of_reals(
    reference: Reference,
    train_labels: Rows,
    *,
    count: int,
    seed: int,
    neighbours: int,
    common_px: int,
) -> dict[str, float | None]:
    """Returns what as many training reals have: what a perfect generator of the side would reach.

    train_labels [T,L]: of the reference's training reals.

    Its distance to the reals at the protocol's side is what is lost by a smaller side alone.
    """
    order = np.random.default_rng(seed).permutation(len(reference.train.rows))
    chosen = np.sort(order[: min(count, len(order))])
    train = np.asarray(reference.train.features[chosen])
    shares = overlap(reference.rows.features, train, k=neighbours)
    variety = spread(reference.apart_of(train, train_labels[chosen]), reference.apart)
    distance = at_common = reference.stats.distance(plain_statistics(train))
    if (common := reference.common) is not None:
        at_common = common.stats.distance(plain_statistics(common.train.features[chosen]))
    return {
        "real_fd": distance,
        f"real_fd_at{common_px}": at_common,
        "real_precision": shares.precision,
        "real_recall": shares.recall,
        "real_coverage": shares.coverage,
        "real_spread": finite_or_none(variety[0]),
        "real_spread_within_labels": finite_or_none(variety[1]),
    }


def variety_over_sets(found: list[SetMetrics]) -> dict[str, Any]:
    """Means over the sets, and standard deviations of all but what memory says."""
    return {
        "precision": mean_of([one.precision for one in found]),
        "precision_sigma": sigma_of([one.precision for one in found]),
        "recall": mean_of([one.recall for one in found]),
        "recall_sigma": sigma_of([one.recall for one in found]),
        "coverage": mean_of([one.coverage for one in found]),
        "coverage_sigma": sigma_of([one.coverage for one in found]),
        "spread": mean_of([one.spread for one in found]),
        "spread_sigma": sigma_of([one.spread for one in found]),
        "spread_within_labels": mean_of([one.spread_within_labels for one in found]),
        "spread_within_labels_sigma": sigma_of([one.spread_within_labels for one in found]),
        "memory_ratio": mean_of([one.memory.ratio for one in found]),
        "copied_frac": mean_of([one.memory.copied_frac for one in found]),
    }


def labels_over_sets(
    found: list[SetMetrics], ceiling: Precisions, names: list[str]
) -> dict[str, Any]:
    """Label scores: means over the labels that fakes and reals both have, and all of them."""
    occurring = np.isfinite(ceiling)
    for one in found:
        occurring = occurring & np.isfinite(one.label_aps)
    means = [mean_ap(one.label_aps, occurring) for one in found]
    return {
        "label_ap": mean_of(means),
        "label_ap_sigma": sigma_of(means),
        "real_label_ap": finite_or_none(mean_ap(ceiling, occurring)),
        "label_ap_by_label": {
            name: [mean_of_finite([one.label_aps[place] for one in found]), finite_or_none(real)]
            for place, (name, real) in enumerate(zip(names, ceiling.tolist(), strict=True))
        },
    }


def real_label_aps(
    judge: Judge, labels: Rows, train: FeatureRows, *, shared: list[int]
) -> Precisions:
    """Returns the judge's average precision [L] on training reals, which it never saw."""
    chunks = range(0, len(labels), 1024)
    logits = [
        judge.logits(train.features[at : at + 1024], train.rest[at : at + 1024]) for at in chunks
    ]
    return average_precisions(np.concatenate(logits)[:, shared], labels[:, shared])


def label_chance(reference: Reference) -> float | None:
    """Returns the mean part of the reals with a label: the average precision of chance."""
    parts = reference.labels[:, reference.shared].mean(axis=0)
    return float(parts[parts > 0].mean()) if (parts > 0).any() else None


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
    """Returns the standard deviation over the sets, None for a single one or if a value is nan."""
    return finite_or_none(float(np.std(values, ddof=1))) if len(values) > 1 else None


def finite_or_none(value: float) -> float | None:
    """Returns the value, None for nan and infinity, which JSON has not."""
    return float(value) if np.isfinite(value) else None


def mean_of_finite(values: list[float]) -> float | None:
    """Returns the mean of those that mean something, None if none does."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None
