import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.families.base import GeneratorNet, GeneratorSpec, Noise
from models.training.losses import (
    DRAGAN_SPREAD,
    around,
    between,
    input_gradients,
    path_lengths,
    r1_penalty,
    slope_penalty,
)

SIDE = 4
LABELS = torch.zeros(5, 2)


class SumOf(nn.Module):
    """D(x) = a·Σx, whose gradient is a everywhere."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.slope * x.sum(dim=(1, 2, 3)), labels


class HalfSquare(nn.Module):
    """D(x) = |x|²/2, whose gradient is x."""

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return x.square().sum(dim=(1, 2, 3)) / 2, labels


class LinearGenerator(GeneratorNet):
    """G(w) = the sum over layers k of A_k·w_k: J is [A_1 … A_K], whatever w is."""

    def __init__(self, layers: int, w_dim: int) -> None:
        super().__init__()
        self.spec = GeneratorSpec("linear", SIDE, w_dim, "normal", (), w_dim=w_dim, can_w=True)
        self.matrices = nn.Parameter(torch.randn(layers, w_dim, 3 * SIDE * SIDE))

    def map(self, z: Tensor, labels: Tensor) -> Tensor | None:
        return z[:, None].expand(-1, len(self.matrices), -1)

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        psi: float | Tensor = 1.0,
        w: Tensor | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        assert w is not None
        flat: Tensor = torch.einsum("nkw,kwp->np", w, self.matrices)
        return flat.view(-1, 3, SIDE, SIDE)


@settings(max_examples=20, deadline=None)
@given(
    slope=st.floats(-8, 8).filter(lambda a: abs(a) > 1e-3),
    channels=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_penalties_of_a_linear_d_have_their_closed_forms(
    slope: float, channels: int, height: int, width: int
) -> None:
    D, images = SumOf(slope), torch.randn(5, channels, height, width)
    pixels = channels * height * width
    r1 = r1_penalty(D, images, LABELS)
    assert r1.shape == (5,)
    assert r1.tolist() == pytest.approx([slope**2 * pixels] * 5, rel=1e-5)
    one_centred = slope_penalty(D, images, LABELS)
    wanted = (abs(slope) * math.sqrt(pixels) - 1) ** 2
    assert one_centred.tolist() == pytest.approx([wanted] * 5, rel=1e-4, abs=1e-4)


def test_each_picture_is_penalised_by_itself() -> None:
    images = torch.randn(5, 3, SIDE, SIDE)
    assert torch.equal(input_gradients(HalfSquare(), images, LABELS), images)
    squares = images.square().sum(dim=(1, 2, 3))
    assert torch.allclose(r1_penalty(HalfSquare(), images, LABELS), squares)
    assert torch.allclose(slope_penalty(HalfSquare(), images, LABELS), (squares.sqrt() - 1) ** 2)


def test_a_flat_d_has_slope_penalty_one_and_a_finite_gradient() -> None:
    D = SumOf(0.0)
    penalty = slope_penalty(D, torch.randn(2, 3, SIDE, SIDE), LABELS[:2])
    assert penalty.tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    (gradient,) = torch.autograd.grad(penalty.sum(), D.slope)
    assert bool(gradient.isfinite())


@pytest.mark.parametrize(
    ("penalty", "wanted"),
    [
        (r1_penalty, 2 * 3 * 4),  # d(a²·4)/da
        (slope_penalty, 2 * (3 * 2 - 1) * 2),  # d(2a - 1)²/da
    ],
)
def test_penalties_reach_the_weights_of_d(
    penalty: Callable[[nn.Module, Tensor, Tensor], Tensor], wanted: float
) -> None:
    D = SumOf(3.0)
    mean = penalty(D, torch.randn(2, 1, 2, 2), torch.zeros(2, 1)).mean()
    (gradient,) = torch.autograd.grad(mean, D.slope)
    assert gradient.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("layers", [1, 3])
def test_path_lengths_of_a_linear_g_have_their_closed_form(layers: int) -> None:
    torch.manual_seed(0)
    G = LinearGenerator(layers, 6)
    w = torch.randn(5, layers, 6)
    direction = torch.randn(5, 3, SIDE, SIDE)
    lengths = path_lengths(G, w, LABELS, direction=direction, noise="none")
    gradient = torch.einsum("kwp,np->nkw", G.matrices, direction.flatten(1)) / SIDE  # Aᵀy/R
    wanted = gradient.square().sum(dim=2).mean(dim=1).sqrt()
    assert lengths.shape == (5,)
    assert torch.allclose(lengths, wanted, rtol=1e-5)


def test_path_lengths_grow_with_g_and_reach_its_weights() -> None:
    G = LinearGenerator(2, 6)
    w, direction = torch.randn(3, 2, 6), torch.randn(3, 3, SIDE, SIDE)
    lengths = path_lengths(G, w, LABELS[:3], direction=direction, noise="none")
    (gradient,) = torch.autograd.grad(lengths.sum(), G.matrices)
    # Lengths are of degree 1 in A, so that <A, dl/dA> is l (Euler).
    assert (G.matrices * gradient).sum().item() == pytest.approx(lengths.sum().item(), rel=1e-4)


def test_between_goes_from_the_fake_to_the_real() -> None:
    reals, fakes = torch.randn(3, 3, SIDE, SIDE), torch.randn(3, 3, SIDE, SIDE)
    places = between(reals, fakes, torch.tensor([0.0, 1.0, 0.25]))
    assert torch.equal(places[0], fakes[0])
    assert torch.equal(places[1], reals[1])
    assert torch.allclose(places[2], 0.25 * reals[2] + 0.75 * fakes[2])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_between_stays_between(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    reals, fakes = torch.rand(2, 4, 3, SIDE, SIDE, generator=rng) * 2 - 1
    places = between(reals, fakes, torch.rand(4, generator=rng))
    assert bool((places >= torch.minimum(reals, fakes) - 1e-6).all())
    assert bool((places <= torch.maximum(reals, fakes) + 1e-6).all())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_around_stays_within_half_a_standard_deviation(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    reals = torch.rand(4, 3, SIDE, SIDE, generator=rng) * 2 - 1
    noise = torch.rand(4, 3, SIDE, SIDE, generator=rng)
    share = torch.rand(4, generator=rng)
    moved = around(reals, share, noise) - reals
    most = DRAGAN_SPREAD * reals.std(correction=0)
    assert bool((moved >= -1e-6).all())
    assert bool((moved <= most * share[:, None, None, None] + 1e-6).all())
    assert torch.allclose(moved, most * share[:, None, None, None] * noise, atol=1e-6)


def test_around_pictures_of_one_colour_is_those_pictures() -> None:
    reals = torch.full((2, 3, SIDE, SIDE), 0.5)
    assert torch.equal(around(reals, torch.ones(2), torch.rand(2, 3, SIDE, SIDE)), reals)
