import numpy as np
import pytest

from dataset.errors import TrainingError
from models.metrics.frechet import Statistics, frechet_distance, statistics

RNG = np.random.default_rng(0)


def of_gaussian(mean: float, spread: float, features: int = 6) -> Statistics:
    return Statistics(np.full(features, mean), np.eye(features) * spread**2, 1000)


def test_gaussians_have_the_closed_form() -> None:
    # |m1 - m2|² + F·(s1 - s2)²
    distance = frechet_distance(of_gaussian(0, 1), of_gaussian(2, 3))
    assert distance == pytest.approx(6 * 2**2 + 6 * (1 - 3) ** 2)


def test_equal_statistics_are_zero_apart() -> None:
    found = statistics(RNG.normal(size=(500, 20)))
    assert frechet_distance(found, found) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rows", [12, 400])  # fewer and more rows than features
def test_distance_is_symmetric_and_agrees_with_the_eigenvalues_of_the_product(rows: int) -> None:
    one, two = statistics(RNG.normal(size=(rows, 40))), statistics(RNG.gamma(2, size=(rows, 40)))
    distance = frechet_distance(one, two)
    assert distance == pytest.approx(frechet_distance(two, one), rel=1e-6)
    roots = np.sqrt(np.linalg.eigvals(one.covariance @ two.covariance).real.clip(min=0))
    apart = np.square(one.mean - two.mean).sum()
    traces = np.trace(one.covariance) + np.trace(two.covariance)
    assert distance == pytest.approx(apart + traces - 2 * roots.sum(), rel=1e-4)


def test_more_noise_is_further_away() -> None:
    features = RNG.normal(size=(300, 30))
    reference = statistics(features)
    distances = [
        frechet_distance(statistics(features + RNG.normal(scale=s, size=features.shape)), reference)
        for s in (0.1, 0.3, 1.0, 3.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] < distances[-1] / 10


def test_too_few_or_broken_features_are_refused() -> None:
    with pytest.raises(TrainingError, match="2 pictures or more"):
        statistics(np.zeros((1, 4)))
    with pytest.raises(TrainingError, match="not finite"):
        statistics(np.full((4, 4), np.nan))
