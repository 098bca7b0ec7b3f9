"""Smooth doubling and halving of pictures by one fixed filter, [1,3,3,1] both ways.

Everything is sums of shifted pictures or a convolution, whose second derivatives are right when
compiled; those of `F.interpolate` were not. Zeros lie outside of a picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = (0.125, 0.375, 0.375, 0.125)


class Filter(nn.Module):
    """The filter both ways over each channel of x [N,C,H,W]; `gain` multiplies its sum of 1.

    On a CPU it is a depthwise convolution: after a doubling convolution, forth and back, that took
    35 ms where sums of shifts took 53 and one convolution with the filter multiplied into its
    weights 56. On a GPU it is sums of shifts, which `torch.compile` makes one pass over memory.
    """

    taps: Tensor

    def __init__(self, *, padding: int, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.padding, self.stride, self.gain = padding, stride, gain
        # On the CPU even inside `torch.device("meta")`: a checkpoint does not hold the constants.
        row = torch.tensor(TAPS, device="cpu")
        self.register_buffer("taps", gain * torch.outer(row, row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,C,H,W] to [N,C,H',W'], H' = (H + 2 · padding - 4) // stride + 1."""
        return self.by_shifts(x) if x.is_cuda else self.by_convolution(x)

    def by_convolution(self, x: Tensor) -> Tensor:
        """Filters by a convolution in as many groups as channels."""
        channels = x.shape[1]
        kernel = self.taps.expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=channels)

    def by_shifts(self, x: Tensor) -> Tensor:
        """Filters by sums of the shifted pictures, one way and then the other."""
        x = F.pad(x, (self.padding,) * 4)
        return self.gain * _summed(_summed(x, 2, self.stride), 3, self.stride)


class Blur(Filter):
    """Smooths x [N,C,H,W] padded by `padding` zeros -> side H + 2 · padding - 3."""

    def __init__(self, padding: int, *, gain: float = 1.0) -> None:
        super().__init__(padding=padding, gain=gain)


class Down(Filter):
    """Halves the side of x [N,C,H,W]: smooths it and takes every second pixel."""

    def __init__(self) -> None:
        super().__init__(padding=1, stride=2)


def doubled(x: Tensor) -> Tensor:
    """Doubles the side of x [N,C,H,W]: puts zeros between its pixels and smooths them, x 4.

    The zeros need no sums: of every two new pixels, each is 3/4 the old one and 1/4 its neighbour
    on that side.
    """
    return _doubled(_doubled(x, 2), 3)


def _doubled(x: Tensor, dim: int) -> Tensor:
    count = x.shape[dim]
    padded = F.pad(x, (1, 1) if dim == 3 else (0, 0, 1, 1))
    even = torch.lerp(x, padded.narrow(dim, 0, count), 0.25)
    odd = torch.lerp(x, padded.narrow(dim, 2, count), 0.25)
    return torch.stack([even, odd], dim=dim + 1).flatten(dim, dim + 1)


def _summed(x: Tensor, dim: int, stride: int) -> Tensor:
    """Filters x [N,C,H,W] along dim 2 or 3, at every `stride`-th place where the filter fits."""
    reach = (x.shape[dim] - 4) // stride * stride + 1
    index = [slice(None)] * 4
    shifts = []
    for start in range(4):
        index[dim] = slice(start, start + reach, stride)
        shifts.append(x[tuple(index)])
    return TAPS[0] * (shifts[0] + shifts[3]) + TAPS[1] * (shifts[1] + shifts[2])
