"""Metrics: closed forms, symmetry, order, blocks, refusals, and the numbers of other packages."""

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dataset.errors import TrainingError
from models.metrics.distances import (
    RunningStatistics,
    Statistics,
    frechet_distance,
    joint_features,
    joint_weight,
    kernel_distance,
    standard_error,
    statistics,
)
from models.metrics.label_control import average_precisions, flip_success
from models.metrics.neighbours import (
    PairDistances,
    memorization,
    overlap,
    pair_distances,
    spread,
)
from tests.hypothesis_profiles import examples

Numbers = npt.NDArray[np.floating[Any]]


def feature_sets(
    fakes: int = 240, reals: int = 300, *, width: int = 48, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns fakes [N,F] and reals [M,F], positive and unevenly spread, as after a relu."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) / np.sqrt(width)
    spread = np.geomspace(2, 0.2, width)
    real = np.abs((rng.normal(size=(reals, width)) * spread) @ mixing + 0.3)
    fake = np.abs((rng.normal(size=(fakes, width)) * spread * 0.9) @ mixing + 0.36)
    return fake.astype(np.float32), real.astype(np.float32)


def on_disk(features: Numbers, path: Path) -> Numbers:
    """Returns the same features as a read-only memmap."""
    held = np.memmap(path, dtype=features.dtype, mode="w+", shape=features.shape)
    held[:] = features
    held.flush()
    return np.memmap(path, dtype=features.dtype, mode="r", shape=features.shape)


FAKES, REALS = feature_sets()
RNG = np.random.default_rng(5)


# Fréchet distance


def of_gaussian(mean: float, spread: float, features: int = 6) -> Statistics:
    return Statistics(np.full(features, mean), np.eye(features) * spread**2, 1000)


def test_gaussians_have_the_closed_form() -> None:
    # |m1 - m2|² + F·(s1 - s2)²
    distance = frechet_distance(of_gaussian(0, 1), of_gaussian(2, 3))
    assert distance == pytest.approx(6 * 2**2 + 6 * (1 - 3) ** 2)


@pytest.mark.parametrize("rows", [12, 400])  # fewer and more rows than features
def test_distance_is_symmetric_and_agrees_with_the_eigenvalues_of_the_product(rows: int) -> None:
    one, two = statistics(RNG.normal(size=(rows, 40))), statistics(RNG.gamma(2, size=(rows, 40)))
    distance = frechet_distance(one, two)
    assert distance == pytest.approx(frechet_distance(two, one), rel=1e-6)
    roots = np.sqrt(np.linalg.eigvals(one.covariance @ two.covariance).real.clip(min=0))
    apart = np.square(one.mean - two.mean).sum()
    traces = np.trace(one.covariance) + np.trace(two.covariance)
    assert distance == pytest.approx(apart + traces - 2 * roots.sum(), rel=1e-4)


def test_too_few_or_broken_features_are_refused() -> None:
    with pytest.raises(TrainingError, match="2 pictures or more"):
        statistics(np.zeros((1, 4)))
    with pytest.raises(TrainingError, match="not finite"):
        statistics(np.full((4, 4), np.nan))


@settings(max_examples=examples(40), deadline=None)
@given(
    rows=st.integers(2, 40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    far=st.sampled_from([0.0, 1e3, 1e6]),
    seed=st.integers(0, 99),
)
def test_running_statistics_are_those_of_the_whole_in_any_chunking(
    rows: int, cuts: list[int], far: float, seed: int
) -> None:
    features = np.random.default_rng(seed).normal(size=(rows, 5)) + far
    running = RunningStatistics()
    edges = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    for start, stop in itertools.pairwise(edges):
        running.add(features[start:stop])  # empty chunks too
    found = running.result()
    assert found.rows == rows
    assert np.allclose(found.mean, features.mean(axis=0), rtol=1e-12)
    exact = np.cov(features - far, rowvar=False)
    assert np.allclose(found.covariance, exact, atol=1e-9 * max(1.0, far))


def test_running_statistics_refuse_what_cannot_be_measured() -> None:
    with pytest.raises(TrainingError, match="2 pictures or more on each side, not 0"):
        RunningStatistics().result()
    broken = RunningStatistics()
    broken.add(np.ones((3, 2)))
    broken.add(np.array([[np.inf, 0.0]]))
    broken.add(np.ones((3, 2)))
    with pytest.raises(TrainingError, match="not finite"):
        broken.result()
    with pytest.raises(TrainingError, match=r"\[3,4\] after 2 wide"):
        broken.add(np.ones((3, 4)))


def test_statistics_of_a_memmap_are_those_of_the_array(tmp_path: Path) -> None:
    rows = RNG.normal(size=(9000, 3)).astype(np.float32)  # more than one block
    whole, mapped = statistics(rows), statistics(on_disk(rows, tmp_path / "rows"))
    assert np.array_equal(whole.covariance, mapped.covariance)
    assert np.allclose(whole.covariance, np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-10)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_distance_is_symmetric_zero_for_equal_sets_and_blind_to_order(seed: int) -> None:
    fakes, reals = feature_sets(30, 40, width=8, seed=seed)
    one, two = statistics(fakes), statistics(reals)
    distance = frechet_distance(one, two)
    assert distance == pytest.approx(frechet_distance(two, one), rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    mixed = statistics(np.random.default_rng(seed).permutation(fakes))
    assert frechet_distance(mixed, two) == pytest.approx(distance, rel=1e-6)


def test_joint_weight_makes_labels_as_long_as_features() -> None:
    features, labels = np.full((4, 9), 2.0), np.tile([1, 0, 1, 1, 1], (4, 1))
    weight = joint_weight(features, labels)
    assert weight == pytest.approx(6 / 2)
    joined = joint_features(features, labels, weight=weight)
    assert joined.shape == (4, 14)
    assert np.linalg.norm(joined[:, 9:], axis=1) == pytest.approx(6)


def test_without_labels_the_joint_distance_is_the_plain_one() -> None:
    none = np.zeros((len(FAKES), 2))
    weight = joint_weight(FAKES, none)
    assert weight == 0
    joint = frechet_distance(
        statistics(joint_features(FAKES, none, weight=weight)),
        statistics(joint_features(REALS, np.ones((len(REALS), 2)), weight=weight)),
    )
    assert joint == pytest.approx(frechet_distance(statistics(FAKES), statistics(REALS)))


def test_joint_distance_grows_with_the_share_of_shuffled_labels() -> None:
    labels = (REALS[:, :4] > np.median(REALS[:, :4], axis=0)).astype(np.float32)
    weight = joint_weight(REALS, labels)
    reference = statistics(joint_features(REALS, labels, weight=weight))
    distances = []
    for share in (0.0, 0.25, 0.5, 1.0):
        shuffled = labels.copy()
        some = np.arange(round(share * len(labels)))
        shuffled[some] = labels[np.random.default_rng(1).permutation(some)]
        found = statistics(joint_features(REALS, shuffled, weight=weight))
        distances.append(frechet_distance(found, reference))
    assert all(a < b for a, b in itertools.pairwise(distances)), distances


# Kernel distance


def test_kernel_distance_has_the_closed_form_of_two_points() -> None:
    # Fakes 0, reals 2 in one dimension: k(0,0) = 1, k(2,2) = 125, k(0,2) = 1
    found = kernel_distance(np.zeros((3, 1)), np.full((4, 1), 2.0))
    assert found.value == pytest.approx(1 + 125 - 2 * 1)
    assert standard_error([found]) == pytest.approx(0, abs=1e-12)


def test_kernel_distance_without_a_row_is_that_of_the_other_rows() -> None:
    fakes, reals = feature_sets(9, 7, width=5, seed=0)
    found = kernel_distance(fakes, reals, block=4)
    others = [kernel_distance(np.delete(fakes, row, axis=0), reals).value for row in range(9)]
    assert found.without_fake == pytest.approx(others)
    others = [kernel_distance(fakes, np.delete(reals, row, axis=0)).value for row in range(7)]
    assert found.without_real == pytest.approx(others)
    assert found.value == pytest.approx(kernel_distance(fakes, reals).value)


@pytest.mark.parametrize(
    ("shift", "sets", "least", "most"),
    [(0.5, 1, 0.9, 1.2), (0.5, 3, 0.85, 1.15), (0.0, 1, 1.0, 1.8)],
)
def test_the_standard_error_is_the_spread_over_other_fakes_and_other_reals(
    shift: float, sets: int, least: float, most: float
) -> None:
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(200):
        reals = rng.normal(size=(40, 16))
        found = [kernel_distance(rng.normal(shift, size=(60, 16)), reals) for _ in range(sets)]
        values.append(np.mean([one.value for one in found]))
        errors.append(standard_error(found))
    ratio = np.sqrt(np.mean(np.square(errors))) / np.std(values, ddof=1)
    assert least < ratio < most, ratio


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_kernel_distance_is_symmetric_and_blind_to_order(seed: int) -> None:
    fakes, reals = feature_sets(30, 30, width=6, seed=seed)
    rng = np.random.default_rng(seed)
    distance = kernel_distance(fakes, reals).value
    assert kernel_distance(reals, fakes).value == pytest.approx(distance, rel=1e-4, abs=1e-6)
    mixed = kernel_distance(rng.permutation(fakes), rng.permutation(reals)).value
    assert mixed == pytest.approx(distance, rel=1e-4, abs=1e-6)


def test_kernel_distance_of_one_distribution_is_within_its_noise_of_zero() -> None:
    rows = RNG.normal(size=(2000, 16))
    same = kernel_distance(rows[:1000], rows[1000:])
    other = kernel_distance(rows[:1000], rows[1000:] + 0.3)
    assert abs(same.value) < 2 * standard_error([same])
    assert other.value > 5 * standard_error([other])


# Precision and recall


def test_a_set_lies_wholly_within_itself_and_not_within_a_far_one() -> None:
    assert overlap(REALS, REALS) == (1.0, 1.0, 1.0)
    assert overlap(REALS, REALS + 100) == (0.0, 0.0, 0.0)


def test_the_shares_on_a_line_are_counted_by_hand() -> None:
    reals = np.arange(6.0)[:, None]  # each reaches 1 or 2 to its second neighbour
    fakes = np.array([[2.5], [2.6], [2.7], [50.0]])  # .2, .1 and .2 far; 50 reaches 47.4
    # The fake at 50 is outside. Its own reach takes in 2.6 and more: the reals 3, 4 and 5.
    # 2 and 3 reach 1, and have 2.5; 0, 1, 4 and 5 reach less far than to the nearest fake.
    assert overlap(reals, fakes, k=2) == (3 / 4, 3 / 6, 2 / 6)


def test_coverage_does_not_trust_the_reach_of_fakes_far_off() -> None:
    reals, fakes = np.arange(6.0)[:, None], np.array([[-1000.0], [1000.0]])
    assert overlap(reals, fakes, k=1) == (0.0, 1.0, 0.0)  # each fake reaches the other one


def test_recall_of_a_collapsed_set_is_zero_and_precision_is_not() -> None:
    collapsed = REALS[7] + RNG.normal(scale=1e-3, size=(200, REALS.shape[1]))
    found = overlap(REALS, collapsed)
    assert found.precision == 1.0
    assert found.recall <= 1 / len(REALS)


@settings(max_examples=examples(25), deadline=None)
@given(seed=st.integers(0, 999), block=st.integers(1, 70), k=st.integers(1, 4))
def test_precision_and_recall_swap_with_the_sets_and_are_blind_to_blocks_and_order(
    seed: int, block: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    # Whole numbers: many pictures are equal, and many as far away as a radius reaches
    reals = rng.integers(0, 4, size=(40, 3)).astype(np.float64)
    fakes = rng.integers(1, 6, size=(30, 3)).astype(np.float64)
    found = overlap(reals, fakes, k=k)
    assert overlap(fakes, reals, k=k)[:2] == (found.recall, found.precision)
    assert overlap(reals, fakes, k=k, block=block) == found
    mixed = rng.permutation(reals), rng.permutation(fakes)
    assert overlap(*mixed, k=k, block=block) == found


# Spread

PAIRED = np.arange(len(REALS))[:, None] % 60 == np.arange(60)  # [N,60]: 5 pictures each


def test_one_picture_again_and_again_has_no_spread_and_the_reals_have_their_own() -> None:
    reals = pair_distances(REALS, PAIRED)
    assert spread(pair_distances(np.resize(REALS[3], REALS.shape), PAIRED), reals) == (0, 0)
    assert spread(reals, reals) == (1, 1)
    assert spread(pair_distances(2 * REALS, PAIRED), reals) == (2, 2)


def test_spread_on_a_line_is_counted_by_hand() -> None:
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    reals = pair_distances(line, labels)
    assert reals.mean == (1 + 3 + 7 + 2 + 6 + 4) / 6
    assert sorted(reals.alike.values()) == [(1.0, 1), (4.0, 1)]
    # Fakes: 3 pairs of the first row at a mean distance of 2, of the second none
    fakes = pair_distances(np.array([[0.0], [2.0], [3.0], [9.0]]), labels[[0, 0, 0, 3]])
    assert spread(fakes, reals) == pytest.approx(((2 + 3 + 9 + 1 + 7 + 6) / 23, 2.0))


def test_faces_that_differ_in_their_labels_alone_have_no_spread_within_labels() -> None:
    reals = pair_distances(REALS, PAIRED)
    places = np.arange(len(REALS)) % 60
    everywhere, within = spread(pair_distances(REALS[places], PAIRED), reals)
    assert everywhere > 0.9
    assert within == 0


@pytest.mark.parametrize("labels", [None, np.zeros((300, 0)), np.eye(300)])
def test_without_pairs_of_equal_labels_there_is_no_spread_within_them(labels: Any) -> None:
    everywhere, within = spread(pair_distances(REALS, labels), pair_distances(REALS, labels))
    assert (everywhere, np.isnan(within)) == (1.0, True)
    assert np.isnan(spread(pair_distances(REALS), PairDistances(0.0, {}))[0])


@settings(max_examples=examples(20), deadline=None)
@given(seed=st.integers(0, 999), block=st.integers(1, 70))
def test_spread_is_that_of_all_pairs_in_any_blocks_and_order(seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    rows, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, size=(40, 3))
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    others = ~np.eye(40, dtype=np.bool_)
    order = rng.permutation(40)
    for found in (
        pair_distances(rows, labels, block=block),
        pair_distances(rows[order], labels[order], block=block),
    ):
        assert found.mean == pytest.approx(apart[others].mean(), rel=1e-12)
        for row in np.unique(labels, axis=0):
            same = (labels == row).all(axis=1)
            pairs = np.outer(same, same) & others
            mean, count = found.alike.get(row.astype(np.bool_).tobytes(), (0.0, 0))
            assert 2 * count == pairs.sum()
            assert mean == pytest.approx(apart[pairs].mean() if count else 0, rel=1e-12)


# Memorization


def test_copies_are_distinguished_from_unseen_pictures() -> None:
    train, unseen = RNG.normal(size=(400, 24)), RNG.normal(size=(200, 24))
    copies = memorization(train[50:90] + 1e-6, train, unseen)
    assert copies.ratio == pytest.approx(0, abs=1e-4)
    assert copies.copied_frac == 1.0
    assert copies.nearest.tolist() == list(range(50, 90))
    assert copies.distances == pytest.approx(1e-6 * np.sqrt(24), rel=1e-3)
    new = memorization(RNG.normal(size=(200, 24)), train, unseen)
    assert new.ratio == pytest.approx(1, abs=0.05)
    assert new.copied_frac <= 0.05
    half = memorization(np.concatenate([train[:100], RNG.normal(size=(100, 24))]), train, unseen)
    assert half.copied_frac == pytest.approx(0.5, abs=0.05)


def test_exact_copies_count_even_where_unseen_pictures_are_copies_too() -> None:
    train = RNG.normal(size=(20, 4))
    found = memorization(train[:3], train, train[:10])
    assert (found.copied_frac, np.isnan(found.ratio)) == (1.0, True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), block=st.integers(1, 60))
def test_nearest_pictures_are_those_of_a_plain_search_in_any_blocks(seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    fakes, train, unseen = (rng.normal(size=(rows, 5)) for rows in (17, 40, 23))
    found = memorization(fakes, train, unseen, block=block)
    apart = np.linalg.norm(fakes[:, None] - train[None], axis=2)
    assert found.nearest.tolist() == apart.argmin(axis=1).tolist()
    assert found.distances == pytest.approx(apart.min(axis=1), rel=1e-12)
    usual = np.linalg.norm(unseen[:, None] - train[None], axis=2).min(axis=1)
    assert found.ratio == pytest.approx(np.median(apart.min(axis=1)) / np.median(usual))
    assert found.copied_frac == (apart.min(axis=1) < np.percentile(usual, 1)).mean()


# All of them


def test_memmaps_give_the_results_of_arrays(tmp_path: Path) -> None:
    fakes, reals = on_disk(FAKES, tmp_path / "fakes"), on_disk(REALS, tmp_path / "reals")
    assert kernel_distance(fakes, reals).value == kernel_distance(FAKES, REALS).value
    assert overlap(reals, fakes, block=64) == overlap(REALS, FAKES)
    assert pair_distances(fakes, block=64).mean == pair_distances(FAKES, block=64).mean
    mapped, whole = (
        memorization(a, b, b[:50], block=64) for a, b in ((fakes, reals), (FAKES, REALS))
    )
    assert np.array_equal(mapped.nearest, whole.nearest)
    assert np.array_equal(mapped.distances, whole.distances)
    assert joint_weight(fakes, np.ones((len(FAKES), 1))) == joint_weight(
        FAKES, np.ones((len(FAKES), 1))
    )


def test_sets_that_cannot_be_compared_are_refused_by_name() -> None:
    with pytest.raises(TrainingError, match=r"needs 3 pictures or more .* fakes \[2, 48\]"):
        kernel_distance(FAKES[:2], REALS)
    with pytest.raises(TrainingError, match=r"k 3 needs 4 pictures .* fakes \[3, 48\]"):
        overlap(REALS, FAKES[:3])
    with pytest.raises(TrainingError, match=r"one extractor: .* eval_reals \[300, 9\]"):
        memorization(FAKES, REALS, REALS[:, :9])
    with pytest.raises(TrainingError, match=r"\[rows,features\]; there are fakes \[48\]"):
        kernel_distance(FAKES[0], REALS)
    broken = REALS.copy()
    broken[-1, 3] = np.nan
    for measure in (
        lambda: kernel_distance(FAKES, broken),
        lambda: overlap(broken, FAKES),
        lambda: memorization(FAKES, REALS, broken),
    ):
        with pytest.raises(TrainingError, match="not finite"):
            measure()


# Labels


def test_average_precision_is_one_for_a_right_order_and_nan_for_an_unused_label() -> None:
    probabilities = np.array([[0.9, 0.1, 0.5], [0.8, 0.9, 0.5], [0.1, 0.8, 0.5]])
    present = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert average_precisions(probabilities, present).tolist()[:2] == [1.0, 1.0]
    assert np.isnan(average_precisions(probabilities, present)[2])
    assert average_precisions(np.zeros((3, 0)), np.zeros((3, 0))).shape == (0,)


def test_average_precision_of_equal_scores_is_the_share_of_rows_that_have_the_label() -> None:
    assert average_precisions(np.full((4, 1), 0.3), np.array([[1], [0], [0], [0]])) == [0.25]


def test_flips_that_change_nothing_have_not_succeeded() -> None:
    same = np.array([0.2, 0.7, 0.7])
    assert flip_success(same, same) == 0.0
    assert flip_success(np.array([0.3, 0.7, 0.8]), same) == pytest.approx(2 / 3)
    assert np.isnan(flip_success(np.zeros(0), np.zeros(0)))


# The numbers of torch-fidelity and torchmetrics on the same features

THEIRS = pytest.mark.usefixtures("torchvision_operators")

SETS = {
    "more rows than features": feature_sets(240, 300, width=48),
    "fewer rows than features": feature_sets(40, 60, width=96, seed=2),
}
CLOSE = 1e-3


class Features(nn.Module):
    """Stands where torchmetrics wants a network; the pictures are the features already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures


def of_torchmetrics(metric: Any, fakes: Any, reals: Any) -> Any:
    metric.update(torch.from_numpy(reals), real=True)
    metric.update(torch.from_numpy(fakes), real=False)
    return metric.compute()


@pytest.fixture(params=SETS)
def sets(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return SETS[request.param]


@THEIRS
def test_frechet_distance_is_theirs(sets: tuple[Any, Any]) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torchmetrics.image.fid import FrechetInceptionDistance

    fakes, reals = sets
    ours = frechet_distance(statistics(fakes), statistics(reals))
    theirs = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(side).double()) for side in sets), False
    )
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=CLOSE)
    metric = FrechetInceptionDistance(Features(fakes.shape[1]))
    assert ours == pytest.approx(float(of_torchmetrics(metric, fakes, reals)), rel=CLOSE)


@THEIRS
def test_kernel_distance_on_all_rows_is_theirs(sets: tuple[Any, Any]) -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    rows = min(len(side) for side in sets)
    fakes, reals = (side[:rows] for side in sets)
    ours = kernel_distance(fakes, reals)
    theirs = kid_of_fidelity(fakes, reals, size=rows)
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=CLOSE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it keeps all features, it says
        metric = KernelInceptionDistance(Features(fakes.shape[1]), subsets=1, subset_size=rows)
    mean, _ = of_torchmetrics(metric, fakes, reals)
    assert ours.value == pytest.approx(float(mean), rel=CLOSE)


def kid_of_fidelity(fakes: Any, reals: Any, *, size: int) -> Any:
    from torch_fidelity.metric_kid import kid_features_to_metric

    return kid_features_to_metric(
        torch.from_numpy(fakes), torch.from_numpy(reals),
        kid_subsets=1, kid_subset_size=size, verbose=False,
    )  # fmt: skip


@THEIRS
@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_theirs(sets: tuple[Any, Any], k: int) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    fakes, reals = sets
    theirs = prc_features_to_metric(
        torch.from_numpy(fakes), torch.from_numpy(reals), prc_neighborhood=k, verbose=False
    )
    precision, recall, _ = overlap(reals, fakes, k=k, block=64)
    assert 0 < precision < 1
    assert 0 < recall < 1
    assert precision == pytest.approx(theirs["precision"], rel=CLOSE)
    assert recall == pytest.approx(theirs["recall"], rel=CLOSE)
