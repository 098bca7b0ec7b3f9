"""StyleGAN2 as its paper has it, in plain PyTorch: what our training step is measured against.

Each picture's modulated weights are made, and one convolution with as many groups as pictures uses
them; D's and G's turns, the gradient penalty and the path length penalty each draw their own fakes
and step by themselves; penalties differentiate by `autograd.grad(create_graph=True)`. It is neither
slowed down nor tuned: adjoining layers are the stock operators of torch. Without labels and
augmentation. Source: Karras et al. 2020, arXiv:1912.04958.
"""

import copy
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE, GAIN = 0.2, math.sqrt(2)


@dataclasses.dataclass(frozen=True)
class PlainSize:
    """Widths: a layer at side s has min(channel_base / s, channel_max) channels."""

    resolution_px: int
    channel_base: int
    channel_max: int
    w_dim: int
    mapping_layers: int

    def channels(self, side: int) -> int:
        """Returns the channels at a side in px."""
        return max(1, min(self.channel_base // side, self.channel_max))

    @property
    def sides(self) -> list[int]:
        """The sides from 4 px up to the resolution."""
        return [1 << power for power in range(2, self.resolution_px.bit_length())]


def activated(x: Tensor) -> Tensor:
    """Leaky relu that keeps the variance."""
    return F.leaky_relu(x, SLOPE) * GAIN


class Smooth(nn.Module):
    """Filters each channel by [1,3,3,1] both ways after padding by zeros."""

    taps: Tensor

    def __init__(self, before: int, after: int, *, gain: float = 1.0, stride: int = 1) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("taps", gain * torch.outer(row, row)[None, None] / 64)
        self.pad, self.stride = (before, after, before, after), stride

    def forward(self, x: Tensor) -> Tensor:
        """Filters x [N,C,H,W]."""
        kernel = self.taps.expand(x.shape[1], -1, -1, -1)
        return F.conv2d(F.pad(x, self.pad), kernel, stride=self.stride, groups=x.shape[1])


class Upsample(nn.Module):
    """Doubles the side: zeros between the pixels, then the filter."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = Smooth(2, 1, gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,C,H,W] to [N,C,2H,2W]."""
        count, channels, height, width = x.shape
        spread = x.new_zeros(count, channels, height, 2, width, 2)
        spread[:, :, :, 0, :, 0] = x
        doubled: Tensor = self.smooth(spread.reshape(count, channels, 2 * height, 2 * width))
        return doubled


class Dense(nn.Module):
    """Dense layer with weights N(0,1) that are scaled at run time."""

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, lr: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.scale, self.lr = lr / math.sqrt(inputs), lr

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,I] to [N,O]."""
        return F.linear(x, self.weight * self.scale, self.bias * self.lr)


class Conv(nn.Module):
    """Convolution with weights N(0,1) that are scaled at run time."""

    def __init__(
        self, inputs: int, outputs: int, side: int, *, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale, self.stride = 1 / math.sqrt(inputs * side**2), stride
        self.padding = side // 2 if stride == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,I,H,W] to [N,O,H',W']."""
        weight = self.weight * self.scale
        return F.conv2d(x, weight, self.bias, stride=self.stride, padding=self.padding)


class ModulatedConv(nn.Module):
    """Convolution whose weights each picture scales by its style: groups are pictures."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        side: int,
        *,
        w_dim: int,
        demodulate: bool = True,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, side, side))
        self.style = Dense(w_dim, inputs, bias=1.0)
        self.scale, self.side = 1 / math.sqrt(inputs * side**2), side
        self.demodulate, self.up = demodulate, up
        self.smooth = Smooth(1, 1, gain=4.0) if up else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps x [N,I,H,W] and w [N,W] to [N,O,H',W']."""
        count, inputs, height, width = x.shape
        weight = self.scale * self.weight * self.style(w)[:, None, :, None, None]  # [N,O,I,k,k]
        if self.demodulate:
            norm = (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
            weight = weight * norm
        x = x.reshape(1, count * inputs, height, width)
        if self.smooth is not None:
            weight = weight.transpose(1, 2).flatten(0, 1)  # [N·I,O,k,k]
            x = F.conv_transpose2d(x, weight, stride=2, groups=count)
            smoothed: Tensor = self.smooth(x.view(count, -1, *x.shape[2:]))
            return smoothed
        x = F.conv2d(x, weight.flatten(0, 1), padding=self.side // 2, groups=count)
        return x.view(count, -1, height, width)


class StyledLayer(nn.Module):
    """Modulated convolution, noise, bias, activation."""

    def __init__(self, inputs: int, outputs: int, *, w_dim: int, up: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, w_dim=w_dim, up=up)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps x [N,I,H,W] and w [N,W] to [N,O,H',W']."""
        y = self.conv(x, w)
        noise = torch.randn(len(y), 1, *y.shape[2:], device=y.device)
        return activated(y + self.strength * noise + self.bias)


class ToRGB(nn.Module):
    """1x1 modulated convolution to colours, added to the doubled picture so far."""

    def __init__(self, inputs: int, *, w_dim: int, first: bool) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, 1, w_dim=w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.up = None if first else Upsample()

    def forward(self, x: Tensor, w: Tensor, picture: Tensor | None) -> Tensor:
        """Maps x [N,I,S,S], w [N,W] and the picture [N,3,S/2,S/2] so far to [N,3,S,S]."""
        colours: Tensor = self.conv(x, w) + self.bias
        if self.up is not None and picture is not None:
            colours = colours + self.up(picture)
        return colours


class PlainGenerator(nn.Module):
    """Mapping and skip synthesis; `G(w)` draws, `G.map(z)` maps."""

    def __init__(self, size: PlainSize) -> None:
        super().__init__()
        wide = size.w_dim
        self.w_layers = 2 * len(size.sides)
        self.mapping = nn.ModuleList(Dense(wide, wide, lr=0.01) for _ in range(size.mapping_layers))
        before = size.channels(4)
        self.const = nn.Parameter(torch.randn(1, before, 4, 4))
        self.layers, self.colours = nn.ModuleList(), nn.ModuleList()
        for side in size.sides:
            count = size.channels(side)
            if side > 4:
                self.layers.append(StyledLayer(before, count, w_dim=wide, up=True))
            self.layers.append(StyledLayer(count, count, w_dim=wide, up=False))
            self.colours.append(ToRGB(count, w_dim=wide, first=side == 4))
            before = count

    def map(self, z: Tensor) -> Tensor:
        """Maps z [N,W] to w [N,W]."""
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping:
            x = activated(layer(x))
        return x

    def forward(self, w: Tensor) -> Tensor:
        """Draws w [N,K,W] -> pictures [N,3,R,R]."""
        x = self.layers[0](self.const.repeat(len(w), 1, 1, 1), w[:, 0])
        picture: Tensor = self.colours[0](x, w[:, 1], None)
        for at in range(1, len(self.colours)):
            x = self.layers[2 * at - 1](x, w[:, 2 * at - 1])
            x = self.layers[2 * at](x, w[:, 2 * at])
            picture = self.colours[at](x, w[:, 2 * at + 1], picture)
        return picture


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, which halve the side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = Conv(inputs, inputs, 3)
        self.smooth = Smooth(2, 2)
        self.conv1 = Conv(inputs, outputs, 3, stride=2)
        self.halve = Smooth(1, 1, stride=2)
        self.skip = Conv(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,I,S,S] to [N,O,S/2,S/2]."""
        y = activated(self.conv1(self.smooth(activated(self.conv0(x)))))
        halved: Tensor = (y + self.skip(self.halve(x))) / math.sqrt(2)
        return halved


class PlainDiscriminator(nn.Module):
    """Residual discriminator with the spread of groups of four."""

    def __init__(self, size: PlainSize) -> None:
        super().__init__()
        self.from_rgb = Conv(3, size.channels(size.resolution_px), 1)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(size.channels(side), size.channels(side // 2))
                for side in reversed(size.sides[1:])
            )
        )
        deep = size.channels(4)
        self.conv = Conv(deep + 1, deep, 3)
        self.dense0, self.dense1 = Dense(deep * 16, deep), Dense(deep, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Judges pictures [N,3,R,R] -> logits [N]; N is a multiple of 4."""
        x = self.blocks(activated(self.from_rgb(x)))
        groups = x.view(4, -1, *x.shape[1:])
        spread = (groups.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3), keepdim=True)
        x = torch.cat([x, spread.repeat(4, 1, *x.shape[2:])], dim=1)
        x = activated(self.conv(x))
        logits: Tensor = self.dense1(activated(self.dense0(x.flatten(1)))).squeeze(1)
        return logits


@dataclasses.dataclass(frozen=True)
class PlainSettings:
    """As of the same names in `models.config.TrainConfig`."""

    batch: int
    lr: float
    r1_gamma: float
    r1_every: int
    pl_weight: float
    pl_every: int
    mixing: float
    ema_decay: float = 0.999


class PlainTraining:
    """The usual loop: D, then R1 every so often, then G, then path lengths, then the average."""

    def __init__(self, size: PlainSize, settings: PlainSettings, device: torch.device) -> None:
        self.G, self.D = PlainGenerator(size).to(device), PlainDiscriminator(size).to(device)
        self.average = copy.deepcopy(self.G).eval()
        self._settings, self._size, self._device = settings, size, device
        betas = (0.0, 0.99)
        self._opt_g = torch.optim.Adam(self.G.parameters(), lr=settings.lr, betas=betas)
        self._opt_d = torch.optim.Adam(self.D.parameters(), lr=settings.lr, betas=betas)
        self._path_mean = torch.zeros((), device=device)

    def step(self, number: int, reals: Tensor) -> None:
        """Takes step `number` (from 0) on reals [B,3,R,R] in [-1,1]."""
        settings = self._settings

        self.G.requires_grad_(False)
        self.D.requires_grad_(True)
        fakes = self.G(self._styles(settings.batch))
        _descend(self._opt_d, F.softplus(-self.D(reals)).mean() + F.softplus(self.D(fakes)).mean())
        if number % settings.r1_every == 0:
            images = reals.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.D(images).sum(), images, create_graph=True)
            penalty = slope.square().sum(dim=(1, 2, 3)).mean()
            _descend(self._opt_d, settings.r1_gamma / 2 * settings.r1_every * penalty)

        self.G.requires_grad_(True)
        self.D.requires_grad_(False)
        fakes = self.G(self._styles(settings.batch))
        _descend(self._opt_g, F.softplus(-self.D(fakes)).mean())
        if number % settings.pl_every == 0:
            penalty = self._path_penalty()
            _descend(self._opt_g, settings.pl_weight * settings.pl_every * penalty)

        with torch.no_grad():
            for kept, latest in zip(self.average.parameters(), self.G.parameters(), strict=True):
                kept.lerp_(latest, 1 - settings.ema_decay)

    def _path_penalty(self) -> Tensor:
        w = self._styles(self._settings.batch // 2)
        pictures = self.G(w)
        direction = torch.randn_like(pictures) / self._size.resolution_px
        (pull,) = torch.autograd.grad((pictures * direction).sum(), w, create_graph=True)
        lengths = (pull.float().square().sum(dim=2).mean(dim=1) + 1e-12).sqrt()
        self._path_mean.lerp_(lengths.detach().mean(), 0.01)
        penalty: Tensor = (lengths - self._path_mean).square().mean()
        return penalty

    def _styles(self, count: int) -> Tensor:
        """Draws w [N,K,W]; with the chance `mixing` all pictures cross over to a second one."""
        layers = self.G.w_layers
        w = self._mapped(count).expand(-1, layers, -1)
        if torch.rand(()).item() < self._settings.mixing:
            at = int(torch.randint(1, layers, ()))
            w = torch.cat([w[:, :at], self._mapped(count).expand(-1, layers - at, -1)], dim=1)
        return w

    def _mapped(self, count: int) -> Tensor:
        z = torch.randn(count, self._size.w_dim, device=self._device)
        return self.G.map(z)[:, None]


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
