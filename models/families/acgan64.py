"""ACGAN on a DCGAN at 64 px, conditioned on hair and eye colours alone.

Layers at width 1 (channels are multiplied by `width`), L labels:

    G   z [100] ~ N(0, e^(-1/π)²) joined with the labels   Dense (100 + L) -> 4·4·512   BN, relu
        ConvT 512 -> 256 -> 128 -> 64, k4 s2 p1, 4 -> 8 -> 16 -> 32                     BN, relu
        ConvT 64 -> 3    k4 s2 p1   32 -> 64                                            tanh
    D   Conv 3 -> 64 -> 128 -> 256 -> 512, k4 s2 p1, 64 -> 32 -> 16 -> 8 -> 4           leaky relu
        Dense 4·4·512 -> 1, realness, which does not look at the labels
        Dense 4·4·512 -> L, the class head

Labels enter G beside z and nowhere else; G learns to obey them from D's class head alone, whose
loss is weighted by λ (`g_label_weight`, `d_label_weight`). Each class is a logit of its own and not
one of a softmax, since a face has a hair colour and an eye colour. D has no norms: a batch norm
would tie the pictures of a batch together, and the gradient penalties look at each by itself.

Parameters at width 1, L labels:
    G: (100+L)·8192  (dense)  +  512·256·16 + 256·128·16 + 128·64·16 + 64·3·16+3  (convs)
       + 2·(512+256+128+64)  (norms)                             = 3,576,707 + 8,192·L
    D: 3·64·16+64 + 64·128·16+128 + 128·256·16+256 + 256·512·16+512  (convs)
       + 8192+1  (realness)  + L·8193  (classes)                 = 2,764,737 + 8,193·L

Source: Odena et al. 2017, arXiv:1610.09585; the stacks are those of Radford et al. 2016,
arXiv:1511.06434.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.errors import ConfigError
from dataset.vocabulary import appearance
from models.families.base import (
    DiscriminatorNet,
    GeneratorSpec,
    GeneratorWithoutW,
    NetworkSize,
    scaled,
)
from models.layers.equalized import Dense, full_precision
from models.layers.norm import BatchNorm2d

RESOLUTION_PX = 64
Z_DIM = 100
Z_STD = math.exp(-1 / math.pi)  # 0.727
SLOPE = 0.2  # of the leaky relu
CHANNELS = (512, 256, 128, 64)
CONDITIONS = ("hair_colour", "eye_colour")  # groups of the vocabulary


def conditions(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Returns those of a manifest's labels that are hair or eye colours, in their order.

    Raises ConfigError, naming the labels, if there is none.
    """
    groups = appearance().groups
    chosen = tuple(label for label in labels if groups.get(label) in CONDITIONS)
    if not chosen:
        there = ", ".join(labels) or "none"
        raise ConfigError(
            f"acgan64 is conditioned on hair and eye colours, and the manifest has no such label "
            f"(its labels: {there}). Build the labels of a set with some, such as blonde_hair or "
            "blue_eyes, or train dcgan64, which takes any labels or none."
        )
    return chosen


def spec(labels: tuple[str, ...], size: NetworkSize) -> GeneratorSpec:
    """Returns the spec of a network of this family for the given label names and width."""
    return GeneratorSpec(
        family="acgan64",
        resolution_px=RESOLUTION_PX,
        z_dim=Z_DIM,
        z_dist="normal",
        z_std=Z_STD,
        labels=labels,
        width=size.width,
    )


class Generator(GeneratorWithoutW):
    """Latents and labels to pictures; see the module's docstring for the layers."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.spec = spec
        first, second, third, fourth = (scaled(count, spec.width) for count in CHANNELS)
        self.dense = nn.Linear(spec.z_dim + len(spec.labels), first * 16, bias=False)
        self.norm0 = BatchNorm2d(first)
        self.up1 = nn.ConvTranspose2d(first, second, 4, stride=2, padding=1, bias=False)  # -> 8
        self.norm1 = BatchNorm2d(second)
        self.up2 = nn.ConvTranspose2d(second, third, 4, stride=2, padding=1, bias=False)  # -> 16
        self.norm2 = BatchNorm2d(third)
        self.up3 = nn.ConvTranspose2d(third, fourth, 4, stride=2, padding=1, bias=False)  # -> 32
        self.norm3 = BatchNorm2d(fourth)
        self.up4 = nn.ConvTranspose2d(fourth, 3, 4, stride=2, padding=1)  # 32 -> 64
        for layer in (self.dense, self.up1, self.up2, self.up3, self.up4):
            nn.init.normal_(layer.weight, std=0.02)

    def style_weights(self) -> list[Tensor]:
        """Returns the first layer's weights [O,Z] of the latent."""
        return [self.dense.weight[:, : self.spec.z_dim]]

    def pictures(self, z: Tensor, labels: Tensor) -> Tensor:
        """Draws pictures: z [N,100], labels [N,L] of 0 and 1 -> [N,3,64,64] in [-1,1]."""
        x = torch.cat([z, labels], dim=1)
        x = self.dense(x).unflatten(1, (-1, 4, 4))  # [N,512,4,4]
        x = F.relu(self.norm0(x))
        x = F.relu(self.norm1(self.up1(x)))  # [N,256,8,8]
        x = F.relu(self.norm2(self.up2(x)))  # [N,128,16,16]
        x = F.relu(self.norm3(self.up3(x)))  # [N,64,32,32]
        return torch.tanh(self.up4(x))  # [N,3,64,64]


class Discriminator(DiscriminatorNet):
    """Pictures to realness and class logits; see the module's docstring."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        fourth, third, second, first = (scaled(count, spec.width) for count in CHANNELS)
        self.conv1 = nn.Conv2d(3, first, 4, stride=2, padding=1)  # 64 -> 32
        self.conv2 = nn.Conv2d(first, second, 4, stride=2, padding=1)  # 32 -> 16
        self.conv3 = nn.Conv2d(second, third, 4, stride=2, padding=1)  # 16 -> 8
        self.conv4 = nn.Conv2d(third, fourth, 4, stride=2, padding=1)  # 8 -> 4
        self.realness = nn.Linear(fourth * 16, 1)
        self.classes = Dense(fourth * 16, len(spec.labels))
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            nn.init.kaiming_normal_(layer.weight, SLOPE)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges pictures x [N,3,64,64] in [-1,1] -> realness [N], class logits [N,L].

        labels [N,L] are not looked at: that a picture shows them is the class head's to say.
        """
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.leaky_relu(layer(x), SLOPE)  # at last [N,512,4,4]
        with full_precision(x):
            flat = x.float().flatten(1)
            return self.realness(flat).squeeze(1), self.classes(flat)
