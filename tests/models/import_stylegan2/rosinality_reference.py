"""rosinality's generator by its published layout: modulated weights in one grouped convolution.

Written from the paper and the names of the tensors, to hold the import against; slow and plain.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def filter_taps(gain: float) -> Tensor:
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    taps = torch.outer(row, row)
    return taps / taps.sum() * gain


def smoothed(x: Tensor, taps: Tensor, pad: tuple[int, int]) -> Tensor:
    """Pads x [N,C,H,W] by zeros and convolves every channel with the turned-round filter."""
    x = F.pad(x, (*pad, *pad))
    count = x.shape[1]
    return F.conv2d(x, taps.flip(0, 1).expand(count, 1, 4, 4), groups=count)


class EqualLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int, lr: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), bias) + 0.1 * torch.randn(outputs) / lr)
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        scale = self.lr / math.sqrt(self.weight.shape[1])
        return F.linear(x, self.weight * scale, self.bias * self.lr)


class Dense(EqualLinear):
    def forward(self, x: Tensor) -> Tensor:
        return math.sqrt(2) * F.leaky_relu(super().forward(x), 0.2)


class PixelNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt((x**2).mean(dim=1, keepdim=True) + 1e-8)


class Filter(nn.Module):
    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", filter_taps(4.0))


class ModulatedConv(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, side: int, style: int, *, demodulate: bool, up: bool
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, side, side))
        self.modulation = EqualLinear(style, inputs, bias=1.0)
        self.demodulate = demodulate
        if up:
            self.blur = Filter()

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        n, inputs, height, width = x.shape
        _, outputs, _, side, _ = self.weight.shape
        style = self.modulation(w)[:, None, :, None, None]
        weight = self.weight * style / math.sqrt(inputs * side**2)  # [N,O,I,k,k]
        if self.demodulate:
            weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        x = x.reshape(1, n * inputs, height, width)
        if not hasattr(self, "blur"):
            x = F.conv2d(x, weight.flatten(0, 1), padding=side // 2, groups=n)
            return x.reshape(n, outputs, height, width)
        turned = weight.transpose(1, 2).flatten(0, 1)
        x = F.conv_transpose2d(x, turned, stride=2, groups=n)
        return smoothed(x.reshape(n, outputs, *x.shape[2:]), self.blur.kernel, (1, 1))


class Noise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(1))


class Activate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(0.2 * torch.randn(channels))


class StyledConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, style: int, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, style, demodulate=True, up=up)
        self.noise = Noise()
        self.activate = Activate(outputs)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        x = self.conv(x, w) + self.noise.weight * noise + self.activate.bias[:, None, None]
        return math.sqrt(2) * F.leaky_relu(x, 0.2)


class ToRGB(nn.Module):
    def __init__(self, inputs: int, style: int, *, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, 1, style, demodulate=False, up=False)
        self.bias = nn.Parameter(0.1 * torch.randn(1, 3, 1, 1))
        if up:
            self.upsample = Filter()

    def forward(self, x: Tensor, w: Tensor, skip: Tensor | None) -> Tensor:
        x = self.conv(x, w) + self.bias
        if skip is None:
            return x
        spread = torch.zeros(*skip.shape[:2], 2 * skip.shape[2], 2 * skip.shape[3])
        spread[:, :, ::2, ::2] = skip
        return x + smoothed(spread, self.upsample.kernel, (2, 1))


class Constant(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))


class Generator(nn.Module):
    """widths: channels at 4, 8, ... px; the public one has min(512, 16384 · multiplier / side)."""

    def __init__(self, widths: list[int], style_dim: int, n_mlp: int) -> None:
        super().__init__()
        layers = [Dense(style_dim, style_dim, lr=0.01) for _ in range(n_mlp)]
        self.style = nn.Sequential(PixelNorm(), *layers)
        self.input = Constant(widths[0])
        self.conv1 = StyledConv(widths[0], widths[0], style_dim)
        self.to_rgb1 = ToRGB(widths[0], style_dim, up=False)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for before, count in itertools.pairwise(widths):
            self.convs.append(StyledConv(before, count, style_dim, up=True))
            self.convs.append(StyledConv(count, count, style_dim))
            self.to_rgbs.append(ToRGB(count, style_dim, up=True))
        for number in range(2 * len(widths) - 1):
            side = 2 ** ((number + 5) // 2)
            self.noises.register_buffer(f"noise_{number}", torch.randn(1, 1, side, side))

    @torch.no_grad()
    def forward(
        self,
        z: Tensor,
        truncation: float = 1.0,
        latent_avg: Tensor | None = None,
        noises: list[Tensor] | None = None,
    ) -> Tensor:
        w: Tensor = self.style(z)
        if latent_avg is not None:
            w = latent_avg + truncation * (w - latent_avg)
        maps = noises or [getattr(self.noises, f"noise_{n}") for n in range(1 + len(self.convs))]
        x = self.input.input.repeat(len(z), 1, 1, 1)
        x = self.conv1(x, w, maps[0])
        skip: Tensor = self.to_rgb1(x, w, None)
        for at, to_rgb in enumerate(self.to_rgbs):
            x = self.convs[2 * at](x, w, maps[2 * at + 1])
            x = self.convs[2 * at + 1](x, w, maps[2 * at + 2])
            skip = to_rgb(x, w, skip)
        return skip


def small(seed: int = 0) -> Generator:
    """Returns a generator of 16 px with 12, 12 and 6 channels: min(96 / side, 12)."""
    torch.manual_seed(seed)
    return Generator([12, 12, 6], style_dim=8, n_mlp=3)


def save(path: Path, held: Any, *, old: bool = False) -> Path:
    """Writes what torch.save writes, in the form since torch 1.6 or the one before."""
    torch.save(held, path, _use_new_zipfile_serialization=not old)
    return path
