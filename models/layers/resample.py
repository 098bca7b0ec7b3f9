"""Smooth doubling and halving of pictures by one fixed filter, [1,3,3,1] both ways.

All are plain convolutions, a channel by itself: their second derivatives are right when compiled,
which those of `F.interpolate` were not. On one core the depthwise filter over a transposed
convolution beat slices and sums (35 against 53 ms), and one convolution with the filter multiplied
into its weights (56 ms).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Filter(nn.Module):
    """The filter [1,3,3,1] / 8 both ways; `gain` multiplies its sum of 1.

    Zeros lie outside of the picture.
    """

    taps: Tensor

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        # On the CPU even inside `torch.device("meta")`: a checkpoint does not hold the constants.
        row = torch.tensor([1.0, 3.0, 3.0, 1.0], device="cpu") / 8
        self.register_buffer("taps", gain * torch.outer(row, row)[None, None], persistent=False)

    def _kernel(self, x: Tensor) -> Tensor:
        return self.taps.expand(x.shape[1], 1, 4, 4)


class Blur(Filter):
    """Smooths x [N,C,H,W] padded by `padding` zeros -> side H + 2 · padding - 3."""

    def __init__(self, padding: int, *, gain: float = 1.0) -> None:
        super().__init__(gain)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,C,H,W] to [N,C,H+2p-3,W+2p-3]."""
        return F.conv2d(x, self._kernel(x), padding=self.padding, groups=x.shape[1])


class Down(Filter):
    """Halves the side of x [N,C,H,W]: smooths it and takes every second pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,C,H,W] to [N,C,H/2,W/2]."""
        return F.conv2d(x, self._kernel(x), stride=2, padding=1, groups=x.shape[1])


class Up(Filter):
    """Doubles the side of x [N,C,H,W]: puts zeros between its pixels and smooths them."""

    def __init__(self) -> None:
        super().__init__(gain=4.0)  # three of four pixels are zeros

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,C,H,W] to [N,C,2H,2W]."""
        return F.conv_transpose2d(x, self._kernel(x), stride=2, padding=1, groups=x.shape[1])
