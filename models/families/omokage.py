"""Omokage, the flagship: a small generator with W, judged on frozen features instead of pixels.

R is the side, s0 = R / 2^n the first one (4 for powers of two, 6 for 96 px), c(s) =
min(channel_base / s, channel_max) the channels at side s, W = w_dim, L labels, K the layers with a
w of their own, two a side.

    map     as in `models.families.stylegan2`, all of it at the full learning rate
    G       Dense W -> c(s0)·s0², from w 0
            layers.0        c(s0) -> c(s0)    s0 px, w 1
            layers.(2i-1)   c(s/2) -> c(s)    doubles the side, w 2i
            layers.(2i)     c(s) -> c(s)      s px, w 2i+1; not at the full side
            a layer: each pixel doubled both ways, Conv k3 to 2·c, batch norm, + noise, scaled and
            shifted per channel by Dense (W -> 4·c) of its w, gated (half · sigmoid of the other
            half), and divided by the root mean square of the picture's features
            rgb: the features scaled per channel by Dense (W -> c(R)) of w K-1, whose root mean
            square is 1, Conv c(R) -> 3 k3, tanh
    D       of pictures enlarged to its own R (`d_resolution_px`), if it is another one:
            four maps of C = min(d_channel_base / 16, channel_max) channels at strides 4 to 32, by
            `models.layers.frozen_features`, and the picture at a quarter of its side, COLOUR_SCALE
            times as strong (frozen features hardly say brightness and hue); a head for each:
            Conv C -> C k4 s2, leaky relu, until the side is at most 4; Conv C -> C k3, leaky relu
            (from 3 px on); spread of groups of 4 pictures as one more channel; Conv C+1 -> C k3
            without padding (k = side below 3 px), leaky relu: F features
            Dense F -> 1, plus <Dense (L -> F, no bias) of the labels, features> / √F
            convolutions and the first Dense have a spectral norm of 1
            Dense 16·C + 192 -> HIDDEN, leaky relu, Dense HIDDEN -> L: the label head, of all maps'
            quarters, averaged, and of the picture at 8x8 px. Frozen features say a label so plainly
            that it learns in 100 steps what the heads' own had not in 1,000

Parameters, with M mapping layers:
    map     M·(W²+W), with labels + W² + L·W + W
    G       (W+1)·c(s0)·s0²  +  each layer of i -> o: 18·i·o + 4·(W+1)·o + 1
            +  (W+1)·c(R)  +  27·c(R) + 3
    D       each head, of S = R/4 ... R/32 px, halved h times: h·(16·C²+C)
            +  where S/2^h > 2: 9·C²+C  +  k²·(C+1)·C + C  +  F+1  +  L·F
            with k = min(S/2^h, 3) and F = C·(S/2^h - k + 1)²; that of the colours, S = R/4, has
            16·C·(C-3) fewer; and HIDDEN·(16·C+193) + L·(HIDDEN+1)
At R = 128, base 8192, maximum 512, W = 512, M = 8:
    G: 41,462,797 without labels, 41,725,453 + 512·L with
    D: 58,288,261 + 10,369·L, and none of the frozen network

Beside D's heads, the energy distance between the features of fakes and reals moves G
(`energy_weight`): a mean distance to reals, less one among the fakes, so that variety is wanted
from the first step on. Labels stand beside the features: a fake is drawn to reals with labels like
its own. Without the distance all fakes had one composition. Still, faces of equal labels were too
much alike, and more so the longer a training was: so fakes come in pairs with one real's labels,
and G lowers the pairs' energy score as well (`pair_weight`). z decided the contrast alone, until
the division by the root mean square took that away. The last doubling is a convolution too:
shuffled into place, pixels showed their lattice as a pattern of dots. Pictures of 64 px are judged
at 96 px: the frozen network halves the side at once, and what is fine was lost. docs/omokage.md has
the figures.

The spec says whose features the training saw; another extractor must judge.

Sources: Sauer et al. 2021, arXiv:2111.01007 (D, and the gated layers of its generator after Liu et
al. 2021, arXiv:2101.04775); Karras et al. 2019, arXiv:1812.04948 (w, noise); Bellemare et al. 2017,
arXiv:1705.10743 (energy distance of features); Gneiting and Raftery 2007, J. Am. Stat. Assoc. 102
(energy score); Miyato et al. 2018, arXiv:1802.05957 (spectral norm); Miyato and Koyama 2018,
arXiv:1802.05637 (projection); Odena et al. 2017, arXiv:1610.09585 (label head).
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from models.families.base import FeatureDiscriminatorNet, GeneratorSpec, NetworkSize
from models.families.stylegan2 import GeneratorWithW, channels, spec_of
from models.layers import frozen_features
from models.layers.equalized import Dense, full_precision
from models.layers.frozen_features import FrozenFeatures
from models.layers.gated import gated, normed
from models.layers.norm import BatchNorm2d
from models.layers.stylegan2 import SLOPE, with_minibatch_std

# Multiples of 32: every layer of stride 2 of the frozen network is to see an even side.
RESOLUTIONS_PX = (32, 64, 96, 128, 256, 512)
STYLE_START = 0.3  # standard deviation of the first scales and shifts
RGB_START = 0.02  # of the colours' weights: the first pictures are grey, not noise
FEATURES_PX = 16  # side at which D's channels are counted
STRIDES = (4, 8, 16, 32)  # of D's maps of frozen features
SUMMARY_PX = 2  # side that a map is averaged to for labels and the energy distance
COLOURS_PX = 8  # and the picture itself
COLOUR_SCALE = 4.0  # of colours beside features, which are about 1 in size
LABEL_SCALE = 2.0  # of labels beside all of them, in the energy distance
HIDDEN = 128  # width of the label head


def spec(labels: tuple[str, ...], size: NetworkSize) -> GeneratorSpec:
    """Returns the spec of a network of this family for the given label names and sizes."""
    seen = (frozen_features.NAME,)
    return dataclasses.replace(spec_of("omokage", labels, size), trained_on_features=seen)


def sides(spec: GeneratorSpec) -> list[int]:
    """Returns the sides of the layers: 4 to 7 px, and doubled up to the resolution."""
    steps = spec.w_layers // 2
    return [spec.resolution_px >> (steps - 1 - at) for at in range(steps)]


class Layer(nn.Module):
    """A convolution whose normed outputs w and noise move, gated; may double the side first."""

    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, *, w_dim: int, side: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(inputs, 2 * outputs, 3, padding=1, bias=False)
        nn.init.orthogonal_(self.conv.weight)
        self.norm = BatchNorm2d(2 * outputs, affine=False)
        self.style = Dense(w_dim, 4 * outputs)
        nn.init.normal_(self.style.weight, std=STYLE_START / math.sqrt(w_dim))
        nn.init.zeros_(self.style.bias)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Maps x [N,I,H,W], w [N,W], noise [N or 1,1,S,S] or None to [N,O,S,S]."""
        if self.up:
            kernel = doubling_kernel(self.conv.weight)
            x = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2, padding=1)
        else:
            x = self.conv(x)
        style = self.style(w)
        return gated(x, self.norm, noise=noise, strength=self.noise_strength, style=style)


def doubling_kernel(weight: Tensor) -> Tensor:
    """Returns the kernel [O,I,4,4] that doubles a side and convolves by weight [O,I,3,3] in one.

    As a transposed convolution of stride 2 it does what the weight does to pixels that are doubled
    both ways, with 4 products for a pixel instead of 9: in half the time on a CPU.
    """
    turned = F.pad(weight.flip(2, 3), (1, 1, 1, 1))
    rows = turned[:, :, :4] + turned[:, :, 1:]
    return rows[..., :4] + rows[..., 1:]


class Generator(GeneratorWithW):
    """Latents and labels to pictures; see the module's docstring for the layers."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__(spec, mapping_lr=1.0)
        wide = spec.w_dim
        first, *others = sides(spec)
        count = channels(spec, first)
        self.start = Dense(wide, count * first**2)
        layers = [Layer(count, count, w_dim=wide, side=first, up=False)]
        for side in others:
            before, count = count, channels(spec, side)
            layers.append(Layer(before, count, w_dim=wide, side=side, up=True))
            if side < spec.resolution_px:
                layers.append(Layer(count, count, w_dim=wide, side=side, up=False))
        self.layers = nn.ModuleList(layers)
        self.colours = Dense(wide, count)
        nn.init.normal_(self.colours.weight, std=STYLE_START / math.sqrt(wide))
        nn.init.ones_(self.colours.bias)
        self.rgb = nn.Conv2d(count, 3, 3, padding=1)
        nn.init.normal_(self.rgb.weight, std=RGB_START)
        assert self.rgb.bias is not None  # it has one
        nn.init.zeros_(self.rgb.bias)

    def draw(self, w: Tensor, noise: list[Tensor | None]) -> Tensor:
        """Draws [N,3,R,R] in [-1,1] from w [N,K,W] and noise maps, float32."""
        first = sides(self.spec)[0]
        x = self.start(w[:, 0]).view(-1, channels(self.spec, first), first, first)
        x = x.contiguous(memory_format=torch.channels_last)
        for at, layer in enumerate(self.layers):
            x = layer(x, w[:, at + 1], noise[at])
        colours = normed(self.colours(w[:, -1]), (1,))
        return torch.tanh(self.rgb(x * colours[:, :, None, None]).float())

    def style_weights(self) -> list[Tensor]:
        """Returns for each w the weights [O,W] of its layer's style; of the first the start's."""
        layers = [layer.style.weight for layer in self.layers if isinstance(layer, Layer)]
        return [self.start.weight, *layers, self.colours.weight]

    def noise_consts(self) -> list[Tensor]:
        """Returns the K - 2 noise maps, two a side but for the first and the last one."""
        return [layer.noise_const for layer in self.layers if isinstance(layer, Layer)]


class Head(nn.Module):
    """Judges one map: of frozen features, or of colours."""

    def __init__(self, side: int, inputs: int, *, count: int, labels: int) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        while side > 4:
            convs += [spectral_norm(nn.Conv2d(inputs, count, 4, 2, 1)), nn.LeakyReLU(SLOPE)]
            side, inputs = side // 2, count
        if side > 2:
            convs += [spectral_norm(nn.Conv2d(inputs, count, 3, 1, 1)), nn.LeakyReLU(SLOPE)]
        self.convs = nn.Sequential(*convs)
        kernel = min(side, 3)
        self.last = spectral_norm(nn.Conv2d(count + 1, count, kernel))
        features = count * (side - kernel + 1) ** 2
        self.realness = spectral_norm(nn.Linear(features, 1))
        self.project = Dense(labels, features, bias=False)
        nn.init.normal_(self.project.weight, std=0.05)

    def forward(self, x: Tensor, labels: Tensor, *, sets: int = 1) -> Tensor:
        """Judges maps x [N,I,S,S] with labels [N,L] -> realness [N]; sets: as of `judge`."""
        x = F.leaky_relu(self.last(with_minibatch_std(self.convs(x), sets=sets)), SLOPE)
        with full_precision(x):
            features = x.float().flatten(1)
            agreement = (self.project(labels.float()) * features).sum(dim=1)
            realness = self.realness(features).squeeze(1)
            judged: Tensor = realness + agreement / math.sqrt(features.shape[1])
        return judged


class Discriminator(FeatureDiscriminatorNet):
    """Pictures and labels to a realness of each map, and label logits; see the module."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.resolution_px = spec.resolution_px
        count, labels = channels(spec, FEATURES_PX), len(spec.labels)
        self.frozen = FrozenFeatures(count)
        sides = [spec.resolution_px // stride for stride in STRIDES]
        heads = [Head(side, count, count=count, labels=labels) for side in sides]
        self.heads = nn.ModuleList([*heads, Head(sides[0], 3, count=count, labels=labels)])
        averages = len(sides) * count * SUMMARY_PX**2 + 3 * COLOURS_PX**2
        self.auxiliary = nn.Sequential(
            Dense(averages, HIDDEN), nn.LeakyReLU(SLOPE), Dense(HIDDEN, labels)
        )

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps images [N,3,S,S] in [-1,1] to four maps [N,C,R/4,R/4] ... [N,C,R/32,R/32].

        They are first enlarged to side R if theirs is another one. The last map is the picture's
        colours [N,3,R/4,R/4], COLOUR_SCALE times as strong.
        """
        if images.shape[-1] != self.resolution_px:
            images = F.interpolate(images, size=self.resolution_px, mode="bilinear")
        colours = F.avg_pool2d(images, STRIDES[0]) * COLOUR_SCALE
        return [*self.frozen(images), colours]

    def judge(
        self, features: list[Tensor], labels: Tensor, *, sets: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Judges maps with labels [N,L] -> realness [N,5], label logits [N,L]."""
        pairs = zip(self.heads, features, strict=True)
        realness = [head(x, labels, sets=sets) for head, x in pairs]
        seen = torch.cat(_averaged(features), dim=1)
        with full_precision(seen):
            return torch.stack(realness, dim=1), self.auxiliary(seen)

    def summary(self, features: list[Tensor], labels: Tensor) -> Tensor:
        """Returns averages of each map's quarters, colours and labels [N,16·C+192+L].

        An RMS of 1 of a map is a length of 1, and so is half a label.
        """
        averages = [x / math.sqrt(x.shape[1]) for x in _averaged(features)]
        return torch.cat([*averages, LABEL_SCALE * labels.float()], dim=1)


def _averaged(features: list[Tensor]) -> list[Tensor]:
    """Returns the averages of each map's quarters [N,4·C], and the colours [N,192]; float32."""
    *maps, colours = features
    pooled = [F.adaptive_avg_pool2d(x, SUMMARY_PX) for x in maps]
    pooled.append(F.adaptive_avg_pool2d(colours, COLOURS_PX))
    return [x.flatten(1).float() for x in pooled]
