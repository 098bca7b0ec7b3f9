"""StyleGAN2 made multi-label: the skip generator and the residual discriminator, 8 to 1024 px.

R = 2^n is the side, c(s) = min(channel_base / s, channel_max) the channels at side s, W = w_dim (z
has as many numbers), L labels, K = 2n - 2 the layers with a w of their own. At R = 128, base 16384
and maximum 512: c = 512 at 4 to 32 px, 256 at 64, 128 at 128; K = 12.

    map   labels [L] -> Dense W, normed; joined behind z [W], normed to mean square 1
          Dense (2·W or, without labels, W) -> W -> ... -> W     lr x 0.01, leaky relu
    G     const [c(4),4,4]
          convs.0        c(4) -> c(4)      4 px, w 0;   rgbs.0 reads w 1
          convs.(2i-1)   c(s/2) -> c(s)    doubles the side to s = 4·2^i, w 2i-1
          convs.(2i)     c(s) -> c(s)      s px, w 2i;  rgbs.i reads w 2i+1
          convs k3, styled and demodulated, + noise, + bias, leaky relu; rgbs k1, only styled;
          the picture is the sum of all rgbs, each doubled by the filter [1,3,3,1] on its way up
    D     Conv 3 -> c(R) k1                                                    leaky relu
          for s = R ... 8:  Conv c(s) -> c(s) k3, smooth, Conv c(s) -> c(s/2) k3 s2   leaky relu
                            + Conv c(s) -> c(s/2) k1 of the halved input, / √2
          spread of groups of 4 pictures as one more channel, Conv c(4)+1 -> c(4) k3  leaky relu
          Dense 16·c(4) -> c(4)                                                leaky relu
          Dense c(4) -> 1, plus <Dense (L -> c(4), no bias) of the labels, features> / √c(4)

Every layer's weights are N(0,1) at the start and scaled when used; leaky relus (0.2) have gain √2.
The order of the w, the joining of the labels and the shapes of all parameters are those of the
public generators, so that their weights load by renaming.

Parameters, with M mapping layers:
    map         M·(W²+W), with labels + W² + L·W + W
    G           16·c(4)  +  each conv of i -> o: 9·i·o + o + (W+1)·i + 1
                +  each rgb of i: 3·i + 3 + (W+1)·i
    D           4·c(R)  +  each side s: 9·c(s)² + c(s) + 9·c(s)·c(s/2) + c(s/2) + c(s)·c(s/2)
                +  9·(c(4)+1)·c(4) + c(4)  +  16·c(4)² + c(4)  +  c(4) + 1  +  L·c(4)
At R = 128, base 16384, maximum 512, W = 512, M = 8:
    G: 24,525,213 without labels, 24,787,869 + 512·L with
    D: 23,882,369 + 512·L

Truncation moves w towards the mean w of its labels, taken over 64 fixed latents; without labels,
or with `truncation_centre` "global", towards the running mean of w that training keeps.

Sources: Karras et al. 2020, arXiv:1912.04958 (networks); Karras et al. 2019, arXiv:1812.04948
(mapping, noise, truncation); Karras et al. 2020, arXiv:2006.06676 (labels in the mapping);
Miyato and Koyama 2018, arXiv:1802.05637 (projection).
"""

import abc
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.errors import UsageError
from models.families.base import DiscriminatorNet, GeneratorNet, GeneratorSpec, NetworkSize, Noise
from models.layers.equalized import EqualConv, EqualDense, full_precision
from models.layers.stylegan2 import (
    GAIN,
    SLOPE,
    Blur,
    Down,
    ProjectionHead,
    StyledConv,
    ToRGB,
    doubled,
    with_minibatch_std,
)

RESOLUTIONS_PX = (8, 16, 32, 64, 128, 256, 512, 1024)
MAPPING_LR = 0.01
EPSILON = 1e-8
W_AVG_PACE = 0.002  # share of the newest batch in the running mean of w
ANCHORS = 64  # fixed latents whose mean w is the centre of a label row
ANCHOR_SEED = 20_191_204


def spec(labels: tuple[str, ...], size: NetworkSize) -> GeneratorSpec:
    """Returns the spec of a network of this family for the given label names and sizes."""
    return spec_of("stylegan2", labels, size)


def spec_of(family: str, labels: tuple[str, ...], size: NetworkSize) -> GeneratorSpec:
    """Returns the spec of a family that draws with this module's generator."""
    return GeneratorSpec(
        family=family,
        resolution_px=size.resolution_px,
        z_dim=size.w_dim,
        z_dist="normal",
        labels=labels,
        channel_base=size.channel_base,
        channel_max=size.channel_max,
        w_dim=size.w_dim,
        mapping_layers=size.mapping_layers,
        can_w=True,
        can_mixing=True,
        can_noise=True,
    )


def channels(spec: GeneratorSpec, side: int) -> int:
    """Returns the channels of the layers at a side in px, at least 1."""
    return max(1, min(spec.channel_base // side, spec.channel_max))


def sides(spec: GeneratorSpec) -> list[int]:
    """Returns the sides of the layers, 4 px up to the resolution."""
    return [1 << exponent for exponent in range(2, spec.resolution_px.bit_length())]


class Mapping(nn.Module):
    """z and labels to w: `layers.0` and on, and with labels `embed`."""

    def __init__(self, spec: GeneratorSpec, *, lr_multiplier: float = MAPPING_LR) -> None:
        super().__init__()
        labels, wide = len(spec.labels), spec.w_dim
        self.embed = EqualDense(labels, wide) if labels else None
        inputs = [spec.z_dim + (wide if labels else 0)] + [wide] * (spec.mapping_layers - 1)
        self.layers = nn.ModuleList(
            EqualDense(count, wide, lr_multiplier=lr_multiplier, gain=GAIN) for count in inputs
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Maps z [N,Z] and labels [N,L] to w [N,W], in float32 whatever the rest runs in."""
        with full_precision(z):
            x = _normed(z.float())
            if self.embed is not None:
                x = torch.cat([x, _normed(self.embed(labels.float()))], dim=1)
            for layer in self.layers:
                x = F.leaky_relu(layer(x), SLOPE)
        return x


class GeneratorWithW(GeneratorNet):
    """A generator that maps latents and labels to w, and draws from w; truncates towards a mean.

    A subclass has the layers: `draw`, `noise_consts` and what they need.
    """

    w_avg: Tensor
    anchors: Tensor

    def __init__(self, spec: GeneratorSpec, *, mapping_lr: float) -> None:
        super().__init__()
        self.spec = spec
        self.mapping = Mapping(spec, lr_multiplier=mapping_lr)
        self.register_buffer("w_avg", torch.zeros(spec.w_dim))
        self.register_buffer("anchors", _anchors(spec.z_dim), persistent=False)

    @abc.abstractmethod
    def draw(self, w: Tensor, noise: list[Tensor | None]) -> Tensor:
        """Draws [N,3,R,R] from w [N,K,W] and a map (or None) for each of `noise_sides()`."""

    @abc.abstractmethod
    def noise_consts(self) -> list[Tensor]:
        """Returns the generator's own noise maps, each [1,1,s,s]."""

    def map(self, z: Tensor, labels: Tensor) -> Tensor:
        """Maps z [N,Z] and labels [N,L] to w [N,K,W], all K rows equal, float32."""
        w: Tensor = self.mapping(z, labels)
        return w[:, None].expand(-1, self.spec.w_layers, -1)

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        psi: float | Tensor = 1.0,
        w: Tensor | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        """Draws pictures: z [N,W], labels [N,L] of 0 and 1 -> [N,3,R,R] in about [-1,1], float32.

        psi, w and noise: as in `GeneratorNet.forward`. Raises UsageError for an unknown noise, or
        maps that do not fit `noise_sides()`.
        """
        if w is None:
            w = self.map(z, labels)
            if isinstance(psi, Tensor) or psi != 1:
                w = self.truncated(w, labels, psi)
        return self.draw(w, self._noise_maps(noise, w))

    def truncated(self, w: Tensor, labels: Tensor, psi: float | Tensor) -> Tensor:
        """Moves w [N,K,W] towards the mean w of its labels [N,L]: 1 leaves it, 0 is that mean.

        Without labels (L = 0), or if `truncation_centre` is "global", that is the running mean of
        all w. psi above 1 goes beyond w.
        """
        if isinstance(psi, Tensor):  # an exported program cannot tell equal rows apart
            return torch.lerp(self._centres(labels)[:, None].expand_as(w), w, psi.to(w.dtype))
        if psi == 1:
            return w
        centres = self._centres_of_rows(labels)
        return torch.lerp(centres[:, None].expand_as(w), w, psi)

    def noise_sides(self) -> list[int]:
        """Returns the side of each noise input, from the first layer on."""
        return [noise.shape[-1] for noise in self.noise_consts()]

    @torch.no_grad()
    def track(self, w: Tensor) -> None:
        """Moves the running mean of w towards this batch's mean [W]."""
        self.w_avg.lerp_(w.to(self.w_avg), W_AVG_PACE)

    def _centres(self, labels: Tensor) -> Tensor:
        """Returns the centre of truncation [N,W] of each row of labels [N,L]."""
        if self._one_centre():
            return self.w_avg.expand(labels.shape[0], -1)
        count = labels.shape[0]
        z = self.anchors.expand(count, -1, -1).flatten(0, 1)  # [N·64,Z]
        each = labels[:, None].expand(-1, ANCHORS, -1).flatten(0, 1)  # [N·64,L]
        w: Tensor = self.mapping(z, each)  # [N·64,W]
        return w.view(count, ANCHORS, -1).mean(dim=1)

    def _centres_of_rows(self, labels: Tensor) -> Tensor:
        """Returns the same [N,W]; rows that stand more than once are mapped only once."""
        if self._one_centre():
            return self._centres(labels)
        rows, of_row = torch.unique(labels, dim=0, return_inverse=True)
        return self._centres(rows)[of_row]

    def _one_centre(self) -> bool:
        return not self.spec.labels or self.truncation_centre == "global"

    def _noise_maps(self, noise: Noise, w: Tensor) -> list[Tensor | None]:
        wanted = self.noise_sides()
        if noise == "const":
            return list(self.noise_consts())
        if noise == "none":
            return [None] * len(wanted)
        if noise == "random":
            return [torch.randn(w.shape[0], 1, side, side, device=w.device) for side in wanted]
        found = noise if isinstance(noise, str) else [each.shape[-1] for each in noise]
        if isinstance(noise, str) or found != wanted:
            raise UsageError(f"noise is {found}; const, none, random or maps of {wanted} px wanted")
        return list(noise)


class Generator(GeneratorWithW):
    """Latents and labels to pictures; see the module's docstring for the layers."""

    # Noise is the quickest way to something like texture, and the worst: at the full pace it stood
    # for strands of hair before there was a head.
    slow = ("noise_strength",)

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__(spec, mapping_lr=MAPPING_LR)
        wide = spec.w_dim
        first, *others = sides(spec)
        self.const = nn.Parameter(torch.randn(channels(spec, first), first, first))
        count = channels(spec, first)
        clamp = spec.conv_clamp
        convs = [StyledConv(count, count, w_dim=wide, side=first, up=False, clamp=clamp)]
        for side in others:
            before, count = count, channels(spec, side)
            convs.append(StyledConv(before, count, w_dim=wide, side=side, up=True, clamp=clamp))
            convs.append(StyledConv(count, count, w_dim=wide, side=side, up=False, clamp=clamp))
        self.convs = nn.ModuleList(convs)
        self.rgbs = nn.ModuleList(
            ToRGB(channels(spec, side), w_dim=wide, clamp=clamp) for side in (first, *others)
        )

    def draw(self, w: Tensor, noise: list[Tensor | None]) -> Tensor:
        """Draws [N,3,R,R] in about [-1,1] from w [N,K,W] and noise maps, float32."""
        # Not len(w): an exported program would be made for that very number of pictures.
        x = self.const.expand(w.shape[0], -1, -1, -1)
        x = self.convs[0](x, w[:, 0], noise[0])
        picture = self.rgbs[0](x, w[:, 1])  # [N,3,4,4]
        for at in range(1, len(self.rgbs)):
            x = self.convs[2 * at - 1](x, w[:, 2 * at - 1], noise[2 * at - 1])
            x = self.convs[2 * at](x, w[:, 2 * at], noise[2 * at])
            picture = doubled(picture) + self.rgbs[at](x, w[:, 2 * at + 1])
        drawn: Tensor = picture
        return drawn

    def style_weights(self) -> list[Tensor]:
        """Returns for each w the weights [O,W] of its layer's style, as they are used."""
        first, *others = [
            conv.affine.weight * conv.affine.scale * conv.scale
            for conv in self.convs
            if isinstance(conv, StyledConv)
        ]
        rgbs = [
            rgb.affine.weight * rgb.affine.scale * rgb.scale
            for rgb in self.rgbs
            if isinstance(rgb, ToRGB)
        ]
        weights = [first]
        for at, weight in enumerate(others):  # w 2i+1 is read by rgbs.i and convs.(2i+1)
            weights.append(torch.cat([rgbs[at // 2], weight]) if at % 2 == 0 else weight)
        return [*weights, rgbs[-1]]

    def noise_consts(self) -> list[Tensor]:
        """Returns the K - 1 noise maps, of sides 4, 8, 8, 16, 16, ..."""
        return [conv.noise_const for conv in self.convs if isinstance(conv, StyledConv)]


class Block(nn.Module):
    """Two convolutions and a shortcut that halve the side; half of the sum's energy from each."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = EqualConv(inputs, inputs, 3, gain=GAIN)
        self.blur = Blur(2)
        self.conv1 = EqualConv(inputs, outputs, 3, stride=2, gain=1.0)  # √2 · 1/√2
        self.down = Down()
        self.skip = EqualConv(inputs, outputs, 1, bias=False, gain=math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,I,S,S] to [N,O,S/2,S/2]."""
        y = F.leaky_relu(self.conv0(x), SLOPE)
        y = F.leaky_relu(self.conv1(self.blur(y)), SLOPE)
        halved: Tensor = y + self.skip(self.down(x))
        return halved


class Discriminator(DiscriminatorNet):
    """Pictures and labels to realness; no label head. See the module's docstring."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        *larger, last = reversed(sides(spec))
        deep = channels(spec, last)
        self.from_rgb = EqualConv(3, channels(spec, spec.resolution_px), 1, gain=GAIN)
        self.blocks = nn.ModuleList(
            Block(channels(spec, side), channels(spec, side // 2)) for side in larger
        )
        self.conv = EqualConv(deep + 1, deep, 3, gain=GAIN)
        self.head = ProjectionHead(deep * last**2, deep, len(spec.labels))

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges pictures: x [N,3,R,R] in [-1,1], labels [N,L] -> realness [N], nothing [N,0]."""
        x = F.leaky_relu(self.from_rgb(x), SLOPE)
        for block in self.blocks:
            x = block(x)
        x = F.leaky_relu(self.conv(with_minibatch_std(x)), SLOPE)  # [N,C,4,4]
        realness, features = self.head(x, labels)
        return realness, features[:, :0]


def _normed(x: Tensor) -> Tensor:
    """Scales each row of x [N,C] to mean square 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()


def _anchors(z_dim: int) -> Tensor:
    """Draws the fixed latents [64,Z], in pairs of opposites, which halves what chance does."""
    rng = torch.Generator("cpu").manual_seed(ANCHOR_SEED)
    # On the CPU even inside `torch.device("meta")`: a checkpoint does not hold the constants.
    half = torch.randn(ANCHORS // 2, z_dim, generator=rng, device="cpu")
    return torch.cat([half, -half])
