"""StyleGAN2's layers: smooth resampling, convolutions that w steers, and what D ends with.

Pictures are doubled and halved by one fixed filter, [1,3,3,1] both ways. Everything is sums of
shifted pictures or a convolution, whose second derivatives are right when compiled; those of
`F.interpolate` were not. Zeros lie outside of a picture.

StyleGAN2 scales the weights of a convolution for each picture and so needs a grouped convolution
with as many groups as pictures. Scaling the inputs by the style, and the outputs by what the scaled
weights' norms would have been, is the same sum with one ordinary convolution.
Source: Karras et al. 2020, arXiv:1912.04958, section 2.2 and appendix B.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.equalized import EqualDense, full_precision

TAPS = (0.125, 0.375, 0.375, 0.125)
SLOPE = 0.2  # of the leaky relu
GAIN = math.sqrt(2)  # of the leaky relu, so that it keeps the size of what goes through
EPSILON = 1e-8
GROUP = 4  # pictures


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


class StyledConv(nn.Module):
    """3x3 convolution styled and demodulated by w, noise, bias and leaky relu; may double the side.

    weight [O,I,3,3], bias [O], affine [I,W]+[I] from w to the inputs' scales, noise_strength [],
    noise_const [1,1,S,S] the map that is added where no other is given. A clamp above 0 bounds
    what comes out to ± itself.
    """

    noise_const: Tensor

    def __init__(
        self, inputs: int, outputs: int, *, w_dim: int, side: int, up: bool, clamp: float = 0.0
    ) -> None:
        super().__init__()
        self.side = side
        self.up = up
        self.clamp = clamp
        self.scale = 1 / math.sqrt(inputs * 9)
        self.affine = EqualDense(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(1, 1, side, side))
        self.blur = Blur(1, gain=4.0) if up else None

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Maps x [N,I,H,W], w [N,W], noise [N or 1,1,S,S] or None to [N,O,S,S]."""
        style, demodulation = self._factors(w)
        y = self._convolved(x * style.to(x.dtype)[:, :, None, None])
        # The activation's gain rides on the small factors, which spares a pass over the features.
        demodulation = (GAIN * demodulation).to(y.dtype)[:, :, None, None]
        bias = (GAIN * self.bias).to(y.dtype)[:, None, None]
        if noise is None:
            y = torch.addcmul(bias, y, demodulation)
        else:
            added = (GAIN * self.noise_strength * noise).to(y.dtype)
            y = torch.addcmul(added, y, demodulation) + bias
        return _clamped(F.leaky_relu(y, SLOPE), self.clamp)

    def _factors(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scales of the inputs [N,I] and of the outputs [N,O] for w [N,W], float32."""
        with full_precision(w):
            style = self.affine(w.float()) * self.scale
            energy = self.weight.float().square().sum(dim=(2, 3))  # [O,I]
            demodulation = (F.linear(style.square(), energy) + EPSILON).rsqrt()
        return style, demodulation

    def _convolved(self, x: Tensor) -> Tensor:
        if self.blur is None:
            return F.conv2d(x, self.weight, padding=1)
        # Zeros between the pixels, then a true convolution, which turns the kernel round.
        x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)  # [N,O,2H+1,2W+1]
        smoothed: Tensor = self.blur(x)
        return smoothed


class ToRGB(nn.Module):
    """1x1 convolution styled by w, without demodulation, to three channels, and a bias.

    weight [3,I,1,1], bias [3], affine [I,W]+[I]; clamp as in `StyledConv`. Three channels are few:
    here the weights are scaled for each picture, and one batched product spares a pass over the
    features.
    """

    def __init__(self, inputs: int, *, w_dim: int, clamp: float = 0.0) -> None:
        super().__init__()
        self.clamp = clamp
        self.scale = 1 / math.sqrt(inputs)
        self.affine = EqualDense(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps features x [N,I,H,W] and w [N,W] to colours [N,3,H,W], float32."""
        with full_precision(w):
            style = self.affine(w.float()) * self.scale  # [N,I]
            weights = style[:, None] * self.weight.flatten(1).float()  # [N,3,I]
        colours = torch.bmm(weights.to(x.dtype), x.flatten(2)).float()  # [N,3,H·W]
        colours = colours.view(-1, 3, *x.shape[2:]) + self.bias[:, None, None]
        return _clamped(colours, self.clamp)


def _clamped(x: Tensor, clamp: float) -> Tensor:
    return x.clamp(-clamp, clamp) if clamp else x


class ProjectionHead(nn.Module):
    """Dense I -> C, leaky relu, Dense C -> 1, plus <Dense (L -> C, no bias) of labels, them> / √C.

    Parameters: I·C + C + C + 1 + L·C.
    Source: Miyato and Koyama 2018, arXiv:1802.05637, equation 5.
    """

    def __init__(self, inputs: int, features: int, labels: int) -> None:
        super().__init__()
        self.dense = EqualDense(inputs, features, gain=GAIN)
        self.realness = EqualDense(features, 1)
        self.project = EqualDense(labels, features, bias=False) if labels else None

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges x [N,...] of I numbers a row, labels [N,L] -> realness [N], features [N,C].

        In float32, whatever the convolutions ran in.
        """
        with full_precision(x):
            features = F.leaky_relu(self.dense(x.float().flatten(1)), SLOPE)
            realness = self.realness(features).squeeze(1)
            if self.project is not None:
                agreement = (self.project(labels.float()) * features).sum(dim=1)
                realness = realness + agreement / math.sqrt(features.shape[1])
        return realness, features


def with_minibatch_std(x: Tensor, *, sets: int = 1) -> Tensor:
    """Joins the mean standard deviation of each group of rows to x [N,C,H,W] -> [N,C+1,H,W].

    Groups are 4 neighbouring rows, so that processes which share a batch see the same groups as
    one that has it whole; where N is no multiple of 4, the largest of 3, 2, 1 that divides it. The
    rows may be several sets of N rows, one after the other; no group has rows of two.
    Source: Karras et al. 2018, arXiv:1710.10196, section 3, in groups as in arXiv:1912.04958.
    """
    count, channels, height, width = x.shape
    size = next(size for size in range(GROUP, 0, -1) if count // sets % size == 0)
    groups = x.float().reshape(count // size, size, channels, height, width)  # [N/4,4,C,H,W]
    variance = (groups - groups.mean(dim=1, keepdim=True)).square().mean(dim=1)
    spread = (variance + EPSILON).sqrt().mean(dim=(1, 2, 3))  # [N/4]
    channel = spread.repeat_interleave(size).to(x.dtype)[:, None, None, None]
    return torch.cat([x, channel.expand(-1, 1, height, width)], dim=1)
