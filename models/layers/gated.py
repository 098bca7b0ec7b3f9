"""A layer's end: batch norm, noise, scale and shift, a gate, and the division by the RMS."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.layers.norm import EPSILON as NORM_EPSILON
from models.layers.norm import BatchNorm2d
from models.training.distributed import world

EPSILON = 1e-6


def gated(
    x: Tensor, norm: BatchNorm2d, *, noise: Tensor | None, strength: Tensor, style: Tensor
) -> Tensor:
    """Ends a layer: maps x [N,2C,S,S] to [N,C,S,S], whose root mean square is 1 for each picture.

    norm: without weights; noise [N or 1,1,S,S] is added `strength` times; style [N,4C]: 2C scales,
    less 1, and 2C shifts. Of the 2C channels the second half gates the first.
    """
    if noise is not None and norm.training and _is_fused(x):
        fused: Tensor = _Gated.apply(x, norm, noise, strength, style)  # type: ignore[no-untyped-call]
        return fused
    x = norm(x)
    if noise is not None:
        x = x + (strength * noise).to(x.dtype)
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    x = torch.addcmul(shift, x, 1 + scale)
    x, gate = x.chunk(2, dim=1)
    return normed(x * gate.sigmoid(), (1, 2, 3))


def normed(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Scales x to a root mean square of 1 over some dimensions, for each picture."""
    return x * _factor(x, dims).to(x.dtype)


def _factor(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    mean = x.float().square().mean(dim=dims, keepdim=True)
    return (mean + EPSILON).rsqrt()


def _is_fused(x: Tensor) -> bool:
    """Tells whether x takes the short way: a CPU's, whose memory is slower than its arithmetic.

    It knows no second derivative, which the path penalty wants and torch.func takes, and no other
    rank's pictures.
    """
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x):
        return False
    return x.device.type == "cpu" and x.dtype == torch.float32 and world() == 1


class _Gated(torch.autograd.Function):
    """`gated` in training, with a gradient that reads and writes the maps half as often.

    Pictures and gradients differ from those of the plain way by rounding alone.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: BatchNorm2d, noise: Tensor, strength: Tensor, style: Tensor
    ) -> Tensor:
        mean, variance = norm.running_mean, norm.running_var
        noised, _, rate = torch.native_batch_norm(
            x, None, None, mean, variance, True, norm.momentum, NORM_EPSILON
        )
        noised += strength * noise
        scale, shift = style[:, :, None, None].chunk(2, dim=1)
        styled = torch.addcmul(shift, noised, 1 + scale)
        gates = styled.sigmoid()  # of both halves: a half of the channels alone takes twice as long
        half = styled.shape[1] // 2
        y = styled[:, :half] * gates[:, half:]
        factor = _factor(y, (1, 2, 3))
        y *= factor
        ctx.save_for_backward(noised, rate, noise, strength, style, styled, gates, y, factor)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, Tensor, Tensor]:
        noised, rate, noise, strength, style, styled, gates, y, factor = ctx.saved_tensors
        count, channels, height, width = noised.shape
        half, pixels = channels // 2, height * width
        # Of the division by the root mean square
        along = (slope * y).mean(dim=(1, 2, 3), keepdim=True)
        slope = torch.addcmul(slope * factor, y, -factor * along)
        # Of the gate: d(a·s)/db = a·s·(1 - s) = s·(a - a·s), and a·s is y / factor
        slopes = torch.empty_like(styled)
        torch.mul(slope, gates[:, half:], out=slopes[:, :half])
        others = torch.addcmul(styled[:, :half], y, -1 / factor)
        torch.mul(slopes[:, :half], others, out=slopes[:, half:])
        # Of scale, shift and noise: sums over the pixels [N,2C]
        scales = 1 + style[:, :channels]
        of_shift = slopes.sum(dim=(2, 3))
        of_scale = (slopes * noised).sum(dim=(2, 3))
        flat = slopes.permute(0, 2, 3, 1).reshape(count, pixels, channels)
        maps = noise.reshape(-1, 1, pixels).expand(count, 1, pixels)
        of_noise = torch.bmm(maps, flat)[:, 0]
        # Of the batch norm, whose output was noised - strength·noise
        total = count * pixels
        mean = (scales * of_shift).sum(dim=0) / total
        product = (scales * (of_scale - strength * of_noise)).sum(dim=0) / total
        by_output = (-rate * product)[:, None, None]
        slope = torch.addcmul((-rate * mean)[:, None, None], noised, by_output)
        slope.addcmul_(slopes, (rate * scales)[:, :, None, None])
        slope.addcmul_(-strength * noise, by_output)
        of_strength = (scales * of_noise).sum()
        return slope, None, None, of_strength, torch.cat([of_scale, of_shift], dim=1)
