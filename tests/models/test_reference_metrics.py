"""Our numbers are those of torch-fidelity and of torchmetrics, on the same features."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.metrics.frechet import frechet_distance, statistics
from models.metrics.kid import kernel_distance
from models.metrics.neighbours import precision_recall
from tests.models.feature_sets import feature_sets

pytestmark = pytest.mark.usefixtures("torchvision_operators")

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


def test_kernel_distance_on_all_rows_is_theirs(sets: tuple[Any, Any]) -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    rows = min(len(side) for side in sets)
    fakes, reals = (side[:rows] for side in sets)
    ours = kernel_distance(fakes, reals)
    theirs = kid_of_fidelity(fakes, reals, subsets=1, size=rows, seed=0)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=CLOSE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it keeps all features, it says
        metric = KernelInceptionDistance(Features(fakes.shape[1]), subsets=1, subset_size=rows)
    mean, _ = of_torchmetrics(metric, fakes, reals)
    assert ours.mean == pytest.approx(float(mean), rel=CLOSE)


def test_kernel_distance_on_subsets_of_one_seed_is_theirs(sets: tuple[Any, Any]) -> None:
    ours = kernel_distance(*sets, subsets=12, subset_size=30, seed=11)
    theirs = kid_of_fidelity(*sets, subsets=12, size=30, seed=11)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=CLOSE)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=CLOSE)


def kid_of_fidelity(fakes: Any, reals: Any, *, subsets: int, size: int, seed: int) -> Any:
    from torch_fidelity.metric_kid import kid_features_to_metric

    return kid_features_to_metric(
        torch.from_numpy(fakes), torch.from_numpy(reals),
        kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False,
    )  # fmt: skip


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_theirs(sets: tuple[Any, Any], k: int) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    fakes, reals = sets
    theirs = prc_features_to_metric(
        torch.from_numpy(fakes), torch.from_numpy(reals), prc_neighborhood=k, verbose=False
    )
    precision, recall = precision_recall(reals, fakes, k=k, block=64)
    assert 0 < precision < 1
    assert 0 < recall < 1
    assert precision == pytest.approx(theirs["precision"], rel=CLOSE)
    assert recall == pytest.approx(theirs["recall"], rel=CLOSE)
