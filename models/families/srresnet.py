"""The networks of MakeGirlsMoe: a generator like SRResNet, and a residual judge with two heads.

Layers at width 1 (channels are multiplied by `width`), L labels, B = 16 residual blocks of G
(`blocks`), side R of 64 or 128:

    G   z [128] ~ N(0,1) joined with the labels   Dense (128 + L) -> 16·16·64     BN, relu
        B blocks    x + (Conv 64 -> 64 k3, BN, relu, Conv 64 -> 64 k3, BN)
        Conv 64 -> 64 k3, BN, + what went into the first block
        2 (R = 64) or 3 (R = 128) stages, each Conv 64 -> 256 k3, pixel shuffle: twice the side and
            64 channels, BN, relu
        Conv 64 -> 3 k9                                                            tanh
    D   from side R to 2, each time Conv to half the side s, 2048/s channels, leaky relu, k4 s2 p1
            down to 16 px and k3 s2 p1 below: 64 px 32, 32 px 64, 16 px 128, 8 px 256, 4 px 512,
            2 px 1024 channels; R = 64 begins with the 64 channels at 32 px
        after each but the last, two blocks   leaky relu(x + (Conv k3, leaky relu, Conv k3))
        realness head   Dense 2·2·1024 -> 128 -> 128 -> 1, leaky relu between
        label head      Dense 2·2·1024 -> 128 -> 128 -> L, the same

The two heads share the features and nothing else; the realness head does not look at the labels. D
has no norms: the gradient penalties of `dragan` and `wgan-gp` look at each picture by itself. The
second convolution of its blocks starts at 0: ten sums without norms would else begin far too loud.

Parameters at width 1, L labels, R = 64:
    G: (128+L)·16384 + 2·64  (dense, norm)
       + B·(2·64·64·9 + 4·64)  (blocks, 73,984 each)  + 64·64·9 + 2·64  (after them)
       + 2·(64·256·9 + 2·64)  (stages, 147,584 each)  + 64·3·81+3  (last)
                                                        = 2,444,995 + 73,984·B + 16,384·L
    D: 3·64·16+64 + 64·128·16+128 + 128·256·9+256 + 256·512·9+512 + 512·1024·9+1024  (halvings)
       + 4·(64·64·9+64) + 4·(128·128·9+128) + 4·(256·256·9+256) + 4·(512·512·9+512)  (blocks)
       + 2·(4096·128+128 + 128·128+128) + 129 + L·129  (heads)
                                                        = 19,948,865 + 129·L
At R = 128 G has a stage more, 147,584, and D its first halving of 32 channels:
    3·32·16+32 + 4·(32·32·9+32) + 32·64·16+64 - (3·64·16+64), 68,256 more.

Source: Jin et al. 2017, arXiv:1708.05509; the residual stack and its long skip are those of Ledig
et al. 2017, arXiv:1609.04802; blocks that start at 0: Zhang et al. 2019, arXiv:1901.09321; a
pixel shuffle that starts even: Aitken et al. 2017, arXiv:1707.02937.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.families.base import (
    DiscriminatorNet,
    GeneratorSpec,
    GeneratorWithoutW,
    NetworkSize,
    scaled,
)
from models.layers.equalized import Dense, full_precision
from models.layers.norm import BatchNorm2d

RESOLUTIONS_PX = (64, 128)
Z_DIM = 128
SLOPE = 0.2  # of the leaky relu
G_SIDE = 16  # of G's map before its stages
G_CHANNELS = 64
D_SIDE = 2  # of D's features
D_BLOCKS = 2  # after each halving
LABEL_START = 4.0  # of the labels' weights: two or three labels would be lost beside 128 numbers
HEAD = 128  # numbers between the layers of a head


def spec(labels: tuple[str, ...], size: NetworkSize) -> GeneratorSpec:
    """Returns the spec of a network for the given label names, side, width and blocks of G."""
    return GeneratorSpec(
        family="srresnet",
        resolution_px=size.resolution_px,
        z_dim=Z_DIM,
        z_dist="normal",
        labels=labels,
        width=size.width,
        blocks=size.blocks,
    )


class NormedBlock(nn.Module):
    """A residual block of G."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Adds to x [N,C,H,W] what two convolutions make of it."""
        added: Tensor = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return x + added


class Stage(nn.Module):
    """Doubles the side: four times the channels, laid out as pixels of 2x2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1, bias=False)
        # The four pixels of a place begin alike: else training begins with a chequered pattern.
        alike = self.conv.weight[::4].detach().repeat_interleave(4, dim=0)
        self.conv.weight = nn.Parameter(alike)
        self.norm = BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Widens x [N,C,H,W] to [N,C,2H,2W]."""
        return F.relu(self.norm(F.pixel_shuffle(self.conv(x), 2)))


class Generator(GeneratorWithoutW):
    """Latents and labels to pictures; see the module's docstring for the layers."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.spec = spec
        channels = scaled(G_CHANNELS, spec.width)
        numbers = channels * G_SIDE**2
        self.dense = nn.Linear(spec.z_dim + len(spec.labels), numbers, bias=False)
        with torch.no_grad():
            self.dense.weight[:, spec.z_dim :] *= LABEL_START
        self.norm0 = BatchNorm2d(channels)
        self.blocks = nn.Sequential(*(NormedBlock(channels) for _ in range(spec.blocks)))
        self.after = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = BatchNorm2d(channels)
        doublings = (spec.resolution_px // G_SIDE).bit_length() - 1
        self.stages = nn.Sequential(*(Stage(channels) for _ in range(doublings)))
        self.last = nn.Conv2d(channels, 3, 9, padding=4)

    def style_weights(self) -> list[Tensor]:
        """Returns the first layer's weights [O,Z] of the latent."""
        return [self.dense.weight[:, : self.spec.z_dim]]

    def pictures(self, z: Tensor, labels: Tensor) -> Tensor:
        """Draws pictures: z [N,128], labels [N,L] of 0 and 1 -> [N,3,R,R] in [-1,1]."""
        x = torch.cat([z, labels], dim=1)
        x = self.dense(x).unflatten(1, (-1, G_SIDE, G_SIDE))  # [N,64,16,16]
        x = F.relu(self.norm0(x))
        x = x + self.norm1(self.after(self.blocks(x)))  # [N,64,16,16]
        return torch.tanh(self.last(self.stages(x)))  # [N,3,R,R]


class PlainBlock(nn.Module):
    """A residual block of D, without norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.conv1.weight, SLOPE)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Adds to x [N,C,H,W] what two convolutions make of it."""
        added = self.conv2(F.leaky_relu(self.conv1(x), SLOPE))
        return F.leaky_relu(x + added, SLOPE)


class Head(nn.Module):
    """Three dense layers from the features to a judgement."""

    def __init__(self, features: int, between: int, out: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(features, between)
        self.dense2 = nn.Linear(between, between)
        self.dense3 = Dense(between, out)

    def forward(self, features: Tensor) -> Tensor:
        """Judges features [N,F] -> [N,out]."""
        x = F.leaky_relu(self.dense1(features), SLOPE)
        x = F.leaky_relu(self.dense2(x), SLOPE)
        judged: Tensor = self.dense3(x)
        return judged


class Discriminator(DiscriminatorNet):
    """Pictures to realness and label logits; see the module's docstring."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side = 3, spec.resolution_px
        while side > D_SIDE:
            side //= 2
            wider = scaled(2048 // side, spec.width)
            layers.append(_halving(channels, wider, side))
            if side > D_SIDE:
                layers += [PlainBlock(wider) for _ in range(D_BLOCKS)]
            channels = wider
        self.features = nn.Sequential(*layers)
        between = scaled(HEAD, spec.width)
        self.realness = Head(channels * D_SIDE**2, between, 1)
        self.labels = Head(channels * D_SIDE**2, between, len(spec.labels))

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges pictures x [N,3,R,R] in [-1,1] -> realness [N], label logits [N,L].

        labels [N,L] are not looked at: that a picture shows them is the label head's to say.
        """
        features = self.features(x).flatten(1)  # [N,1024·2·2]
        with full_precision(features):
            features = features.float()
            return self.realness(features).squeeze(1), self.labels(features)


def _halving(channels: int, wider: int, side: int) -> nn.Sequential:
    """A convolution down to `side` px and its leaky relu."""
    kernel = 4 if side >= G_SIDE else 3  # as in the paper: k3 where the maps are small
    conv = nn.Conv2d(channels, wider, kernel, stride=2, padding=1)
    nn.init.kaiming_normal_(conv.weight, SLOPE)
    return nn.Sequential(conv, nn.LeakyReLU(SLOPE))
