import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.sampling.clips import ClosedWalk, closed_curve, lerp, slerp

NUMBERS = st.floats(-100, 100, width=32)
VECTORS = st.lists(NUMBERS, min_size=3, max_size=3).map(torch.tensor)
TIMES = st.floats(0, 1)


@given(VECTORS, VECTORS, TIMES)
def test_both_ways_have_exact_ends_and_stay_finite(a: Tensor, b: Tensor, t: float) -> None:
    for way in (lerp, slerp):
        assert torch.equal(way(a, b, 0), a)
        assert torch.equal(way(a, b, 1), b)
        assert torch.isfinite(way(a, b, t)).all()


@given(VECTORS.filter(lambda a: a.norm() > 1e-3), VECTORS.filter(lambda b: b.norm() > 1e-3), TIMES)
def test_the_length_on_an_arc_goes_straight_from_one_to_the_other(
    a: Tensor, b: Tensor, t: float
) -> None:
    length = slerp(a.double(), b.double(), t).norm()
    wanted = (1 - t) * a.double().norm() + t * b.double().norm()
    assert float(length) == pytest.approx(float(wanted), rel=1e-5)


@given(VECTORS, TIMES)
def test_between_equal_points_there_is_only_that_point(a: Tensor, t: float) -> None:
    assert torch.allclose(slerp(a, a, t), a, rtol=1e-5, atol=1e-30)
    assert torch.allclose(lerp(a, a, t), a)


@given(VECTORS.filter(lambda a: a.norm() > 1e-3), TIMES)
def test_opposite_points_are_joined_by_half_a_circle(a: Tensor, t: float) -> None:
    start = a.double() / a.double().norm()
    place = slerp(start, -start, t)
    assert place.norm() == pytest.approx(1, rel=1e-6)
    assert torch.dot(place, start) == pytest.approx(math.cos(math.pi * t), abs=1e-6)


def test_an_arc_turns_evenly_and_rows_turn_alone() -> None:
    a, b = torch.eye(4)[:2], torch.eye(4)[2:]
    third = slerp(a, b, 1 / 3)
    assert torch.allclose(third[0], torch.tensor([math.cos(math.pi / 6), 0, 0.5, 0]))
    assert torch.equal(third[1], slerp(a[1], b[1], 1 / 3))


@pytest.mark.parametrize("zero", [torch.zeros(3), torch.zeros(1)])
def test_a_point_without_direction_goes_straight(zero: Tensor) -> None:
    to = torch.ones_like(zero)
    assert torch.allclose(slerp(zero, to, 0.25), to / 4)


@pytest.mark.parametrize("z_dist", ["normal", "uniform"])
def test_a_walk_begins_and_ends_at_its_start_and_goes_smoothly(z_dist: str) -> None:
    rng = torch.Generator().manual_seed(1)
    start = (torch.randn if z_dist == "normal" else torch.rand)(500, generator=rng)
    walk = ClosedWalk(start, rng, z_dist=z_dist)
    assert torch.equal(walk.at(0), start)
    assert torch.equal(walk.at(1), start)
    frames = torch.stack([walk.at(number / 100) for number in range(101)])
    steps = (frames[1:] - frames[:-1]).norm(dim=1)
    assert steps.max() < 4 * steps.min()
    assert (frames[50] - start).norm() > 0.3 * start.norm()


def test_the_places_of_walks_are_distributed_as_latents_are() -> None:
    rng = torch.Generator().manual_seed(2)
    start = torch.randn(20_000, generator=rng)
    walk = ClosedWalk(start, rng)
    uniform = ClosedWalk(torch.rand(20_000, generator=rng), rng, z_dist="uniform")
    for t in (0.1, 0.37, 0.5, 0.8):
        assert walk.at(t).mean().abs() < 0.05
        assert walk.at(t).std() == pytest.approx(1, abs=0.03)
        tenths = torch.histc(uniform.at(t), bins=10, min=0, max=1) / 2000
        assert tenths.sum() == pytest.approx(10)
        assert (tenths - 1).abs().max() < 0.1


def test_a_closed_curve_passes_its_points_and_bends_nowhere_sharply() -> None:
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    for number in range(5):
        assert torch.allclose(closed_curve(points, number / 5), points[number], atol=1e-6)
    assert torch.equal(closed_curve(points, 1), points[0])
    small = 1e-3
    for number in range(5):
        before, here, after = (
            closed_curve(points.double(), number / 5 + shift) for shift in (-small, 0, small)
        )
        assert torch.allclose(here - before, after - here, atol=1e-3)
