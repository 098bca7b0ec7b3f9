"""Layers against sums written out by hand: norms, dropout, and those of the W families."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers import gated as gated_layer
from models.layers import norm
from models.layers.equalized import Dense, EqualConv, EqualDense
from models.layers.gated import gated
from models.layers.norm import BatchNorm2d, ConditionalNorm, Dropout
from models.layers.stylegan2 import (
    Blur,
    Down,
    Filter,
    StyledConv,
    ToRGB,
    doubled,
    with_minibatch_std,
)

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])


def smoothed(x: Tensor, *, before: int, after: int, gain: float = 1.0) -> Tensor:
    """Applies the filter to the zero-padded x by a sum over its sixteen shifts."""
    x = F.pad(x, (before, after, before, after))
    height, width = x.shape[2] - 3, x.shape[3] - 3
    total = torch.zeros(*x.shape[:2], height, width)
    for row in range(4):
        for column in range(4):
            weight = gain * TAPS[row] * TAPS[column] / 64
            total += weight * x[:, :, row : row + height, column : column + width]
    return total


def stuffed(x: Tensor) -> Tensor:
    """Puts a zero behind each pixel, both ways."""
    wide = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return wide


def grouped(conv: StyledConv, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
    """The same layer with a weight tensor for each picture and a convolution in N groups."""
    count, inputs = x.shape[:2]
    style = w @ conv.affine.weight.t() / w.shape[1] ** 0.5 + conv.affine.bias
    weight = conv.weight[None] * style[:, None, :, None, None] / (9 * inputs) ** 0.5
    weight = weight / (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
    outputs = weight.shape[1]
    if conv.up:
        # Zeros between the pixels, the kernel turned round, then the filter.
        x = F.pad(stuffed(x)[:, :, :-1, :-1], (2, 2, 2, 2))
        weight = weight.flip(3, 4)
    else:
        x = F.pad(x, (1, 1, 1, 1))
    wide = x.reshape(1, count * inputs, *x.shape[2:])
    y = F.conv2d(wide, weight.reshape(count * outputs, inputs, 3, 3), groups=count)
    y = y.reshape(count, outputs, *y.shape[2:])
    y = smoothed(y, before=1, after=1, gain=4.0) if conv.up else y
    y = y if noise is None else y + conv.noise_strength * noise
    return F.leaky_relu(y + conv.bias[:, None, None], 0.2) * 2**0.5


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
def test_scaled_activations_equal_a_grouped_convolution(up: bool, noisy: bool) -> None:
    torch.manual_seed(1)
    conv = StyledConv(6, 5, w_dim=7, side=16 if up else 8, up=up)
    torch.nn.init.normal_(conv.bias)
    torch.nn.init.constant_(conv.noise_strength, 0.7)
    x, w = torch.randn(3, 6, 8, 8), torch.randn(3, 7)
    noise = torch.randn(3, 1, conv.side, conv.side) if noisy else None
    wanted = grouped(conv, x, w, noise)
    assert wanted.shape == (3, 5, conv.side, conv.side)
    torch.testing.assert_close(conv(x, w, noise), wanted, rtol=1e-5, atol=1e-5)


def test_colours_are_a_styled_product_without_demodulation() -> None:
    rgb = ToRGB(6, w_dim=7)
    torch.nn.init.normal_(rgb.bias)
    x, w = torch.randn(3, 6, 8, 8), torch.randn(3, 7)
    style = w @ rgb.affine.weight.t() / 7**0.5 + 1
    wanted = torch.einsum("nihw,ni,oi->nohw", x, style, rgb.weight[:, :, 0, 0] / 6**0.5)
    wanted = wanted + rgb.bias[:, None, None]
    torch.testing.assert_close(rgb(x, w), wanted, rtol=1e-5, atol=1e-5)


def test_doubling_and_halving_equal_sums_over_the_filters_shifts() -> None:
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(doubled(x), smoothed(stuffed(x), before=2, after=1, gain=4.0))
    torch.testing.assert_close(Down()(x), smoothed(x, before=1, after=1)[:, :, ::2, ::2])
    torch.testing.assert_close(Blur(2)(x), smoothed(x, before=2, after=2))


@pytest.mark.parametrize("layer", [Blur(1, gain=4.0), Blur(2), Down()])
def test_filtering_on_a_gpu_gives_what_it_does_on_a_cpu(layer: Filter) -> None:
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(layer.by_shifts(x), layer.by_convolution(x))
    odd = torch.randn(2, 3, 17, 17)  # as a doubling convolution leaves it
    torch.testing.assert_close(layer.by_shifts(odd), layer.by_convolution(odd))


def test_doubling_and_halving_leave_flat_colour_inside_the_border() -> None:
    flat = torch.full((1, 1, 8, 8), 0.5)
    assert torch.equal(doubled(flat)[:, :, 1:-1, 1:-1], torch.full((1, 1, 14, 14), 0.5))
    assert torch.equal(Down()(flat)[:, :, 1:-1, 1:-1], torch.full((1, 1, 2, 2), 0.5))


def test_scaled_layers_equal_plain_ones_with_the_scaled_weights() -> None:
    dense = EqualDense(6, 4, lr_multiplier=0.01, bias_init=2.0, gain=3.0)
    x = torch.randn(5, 6)
    wanted = 3 * (x @ (dense.weight.t() * 0.01 / 6**0.5) + 0.02)
    torch.testing.assert_close(dense(x), wanted)
    assert 50 < dense.weight.std().item() < 200  # 1 / lr_multiplier

    conv = EqualConv(6, 4, 3, gain=3.0)
    assert conv.bias is not None
    torch.nn.init.normal_(conv.bias)
    pictures = torch.randn(2, 6, 8, 8)
    wanted = 3 * F.conv2d(pictures, conv.weight / 54**0.5, conv.bias, padding=1)
    torch.testing.assert_close(conv(pictures), wanted)


def test_spread_is_of_neighbouring_rows_in_fours() -> None:
    x = torch.randn(8, 3, 4, 4)
    x[4:] = x[4:5]  # the second four are all the same
    channel = with_minibatch_std(x)[:, 3]
    wanted = (x[:4].var(dim=0, unbiased=False) + 1e-8).sqrt().mean().item()
    torch.testing.assert_close(channel[:4], torch.full((4, 4, 4), wanted))
    torch.testing.assert_close(channel[4:], torch.full((4, 4, 4), 1e-4))


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (2, 1), (3, 1), (6, 2), (8, 2), (5, 5)])
def test_groups_are_the_largest_up_to_four_that_divide_the_batch(count: int, groups: int) -> None:
    channel = with_minibatch_std(torch.randn(count, 3, 4, 4))[:, 3, 0, 0]
    assert len(torch.unique(channel)) == (groups if groups < count else 1)


@pytest.mark.parametrize("count", [6, 8])
def test_no_group_has_rows_of_two_sets(count: int) -> None:
    one, other = torch.randn(2, count, 3, 4, 4)
    alone = torch.cat([with_minibatch_std(one), with_minibatch_std(other)])
    assert torch.equal(with_minibatch_std(torch.cat([one, other]), sets=2), alone)


@pytest.mark.parametrize("maps", [1, 6])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_fused_gate_draws_and_learns_what_the_plain_one_does(
    maps: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 8, 5, 5).contiguous(memory_format=layout).requires_grad_()
    style, strength = torch.randn(6, 16).requires_grad_(), torch.tensor(0.7).requires_grad_()
    noise, slope = torch.randn(maps, 1, 5, 5), torch.randn(6, 4, 5, 5)
    found = []
    for is_fused in (True, False):
        monkeypatch.setattr(gated_layer, "_is_fused", lambda _x, fused=is_fused: fused)
        batch_norm = BatchNorm2d(8, affine=False)
        y = gated(x, batch_norm, noise=noise, strength=strength, style=style)
        assert ("Gated" in type(y.grad_fn).__name__) is is_fused
        slopes = torch.autograd.grad(y, [x, style, strength], slope)
        found.append([y, *slopes, batch_norm.running_mean, batch_norm.running_var])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    torch.manual_seed(0)
    dropped = Dropout(0.4)(torch.ones(64, 32, 16, 16))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.002)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.6])


def test_dropped_places_follow_no_pattern() -> None:
    torch.manual_seed(0)
    masks = torch.stack([Dropout(0.4)(torch.ones(64 * 64, 16)) == 0 for _ in range(2)]).float()
    centred = masks - 0.4
    for shift in (1, 2, 16, 256):  # neighbours, the same place of the next row, farther ones
        flat = centred[0].flatten()
        assert (flat[shift:] * flat[:-shift]).mean().item() == pytest.approx(0, abs=0.005)
    assert (centred[0] * centred[1]).mean().item() == pytest.approx(0, abs=0.005)


def test_dropout_follows_the_default_source_of_the_cpu() -> None:
    x = torch.ones(4, 8)
    torch.manual_seed(3)
    first, second = Dropout(0.5)(x), Dropout(0.5)(x)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.5)(x), first)
    assert not torch.equal(first, second)


def test_two_ranks_drop_what_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(6, 3, 4, 4)
    torch.manual_seed(0)
    whole = Dropout(0.4)(x)
    parts = []
    for number in range(2):
        monkeypatch.setattr(norm, "rank", lambda number=number: number)
        torch.manual_seed(0)
        parts.append(Dropout(0.4)(x[3 * number : 3 * number + 3]))
    assert torch.equal(torch.cat(parts), whole)


def test_dropout_passes_everything_outside_training() -> None:
    x = torch.rand(4, 8)
    assert torch.equal(Dropout(0.4).eval()(x), x)


def test_conditional_norm_without_labels_is_a_plain_one() -> None:
    x = torch.randn(4, 8, 5, 5) * 3 + 1
    conditional, plain = ConditionalNorm(8, 0, momentum=0.5), BatchNorm2d(8, momentum=0.5)
    torch.testing.assert_close(conditional(x, torch.zeros(4, 0)), plain(x))
    torch.testing.assert_close(conditional.norm.running_mean, plain.running_mean)
    assert sum(weight.numel() for weight in conditional.parameters()) == 16


def test_momentum_is_the_weight_of_the_newest_batch() -> None:
    norm = BatchNorm2d(1, momentum=0.25)
    norm(torch.full((2, 1, 2, 2), 8.0))
    assert norm.running_mean.item() == pytest.approx(2.0)


@pytest.mark.filterwarnings("error")
def test_dense_layer_of_no_inputs_gives_its_bias_and_warns_of_nothing() -> None:
    assert Dense(0, 3)(torch.zeros(2, 0)).tolist() == [[0.0] * 3] * 2
    assert Dense(3, 0)(torch.zeros(2, 3)).shape == (2, 0)
