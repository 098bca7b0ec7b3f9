"""DCGAN at 64 px with multi-label conditions: the smallest family, which a laptop can train.

Layers at width 1 (channels are multiplied by `width`), L labels, E = 64 numbers of label embedding:

    G   z [100] joined with Linear(L, E)   Dense (100 + E) -> 3·3·512   conditional BN, leaky relu
        ConvT 512 -> 256  k3 s3    3 ->  9                              conditional BN, leaky relu
        ConvT 256 -> 128  k5 s2    9 -> 21                              conditional BN, leaky relu
        ConvT 128 -> 3    k4 s3   21 -> 64                              tanh
    D   Conv 3 -> 64 -> 128 -> 256, k5 s3 p2, 64 -> 22 -> 8 -> 3        leaky relu
        Dense 3·3·256 -> 1, plus the projection <V·labels, mean of the 3·3 features>
        Dense 3·3·256 -> L, the auxiliary label head

The labels rule in three places: beside z, where they choose the layout; in each batch norm, whose
scale and shift are linear in them, so that colour reaches every layer; and in D by the projection.

Parameters at width 1, L labels:
    G: L·64+64  (embedding)  +  164·4608+4608  (dense)
       + 512·256·9 + 256·128·25 + 128·3·16+3  (convs)
       + 2·(L+1)·(512+256+128)  (norms)                        = 2,767,171 + 1,856·L
    D: 3·64·25+64 + 64·128·25+128 + 128·256·25+256  (convs)  +  2304+1  (dense)
       + L·256  (projection)  + L·2305  (auxiliary)              = 1,031,553 + 2,561·L

Source of the table: Radford et al. 2016, arXiv:1511.06434, as the TensorFlow DCGAN for anime faces
had it; projection: Miyato and Koyama 2018, arXiv:1802.05637; conditional BN: de Vries et al. 2017,
arXiv:1707.00683.
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
from models.layers.norm import ConditionalNorm

RESOLUTION_PX = 64
Z_DIM = 100
EMBEDDING = 64
SLOPE = 0.2  # of the leaky relu


def spec(labels: tuple[str, ...], size: NetworkSize) -> GeneratorSpec:
    """Returns the spec of a network of this family for the given label names and width."""
    return GeneratorSpec(
        family="dcgan64",
        resolution_px=RESOLUTION_PX,
        z_dim=Z_DIM,
        z_dist="normal",
        labels=labels,
        width=size.width,
    )


class Generator(GeneratorWithoutW):
    """Latents and labels to pictures; see the module's docstring for the layers."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.spec = spec
        wide, middle, narrow = (scaled(count, spec.width) for count in (512, 256, 128))
        labels = len(spec.labels)
        self.embed = Dense(labels, EMBEDDING)
        self.dense = nn.Linear(spec.z_dim + EMBEDDING, wide * 9)
        self.norm0 = ConditionalNorm(wide, labels)
        self.up1 = nn.ConvTranspose2d(wide, middle, 3, stride=3, bias=False)  # 3 -> 9
        self.norm1 = ConditionalNorm(middle, labels)
        self.up2 = nn.ConvTranspose2d(middle, narrow, 5, stride=2, bias=False)  # 9 -> 21
        self.norm2 = ConditionalNorm(narrow, labels)
        self.up3 = nn.ConvTranspose2d(narrow, 3, 4, stride=3)  # 21 -> 64
        for layer in (self.dense, self.up1, self.up2, self.up3):
            nn.init.normal_(layer.weight, std=0.02)

    def style_weights(self) -> list[Tensor]:
        """Returns the first layer's weights [O,Z] of the latent."""
        return [self.dense.weight[:, : self.spec.z_dim]]

    def pictures(self, z: Tensor, labels: Tensor) -> Tensor:
        """Draws pictures: z [N,100], labels [N,L] of 0 and 1 -> [N,3,64,64] in [-1,1]."""
        x = torch.cat([z, self.embed(labels)], dim=1)
        x = self.dense(x).unflatten(1, (-1, 3, 3))  # [N,512,3,3]
        x = F.leaky_relu(self.norm0(x, labels), SLOPE)
        x = F.leaky_relu(self.norm1(self.up1(x), labels), SLOPE)  # [N,256,9,9]
        x = F.leaky_relu(self.norm2(self.up2(x), labels), SLOPE)  # [N,128,21,21]
        return torch.tanh(self.up3(x))  # [N,3,64,64]


class Discriminator(DiscriminatorNet):
    """Pictures and labels to realness and label logits; see the module's docstring."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        first, second, third = (scaled(count, spec.width) for count in (64, 128, 256))
        labels = len(spec.labels)
        self.conv1 = nn.Conv2d(3, first, 5, stride=3, padding=2)  # 64 -> 22
        self.conv2 = nn.Conv2d(first, second, 5, stride=3, padding=2)  # 22 -> 8
        self.conv3 = nn.Conv2d(second, third, 5, stride=3, padding=2)  # 8 -> 3
        self.dense = nn.Linear(third * 9, 1)
        self.project = Dense(labels, third, bias=False)
        self.auxiliary = Dense(third * 9, labels)
        for layer in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(layer.weight, SLOPE)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges pictures: x [N,3,64,64] in [-1,1], labels [N,L] -> realness [N], logits [N,L]."""
        x = F.leaky_relu(self.conv1(x), SLOPE)
        x = F.leaky_relu(self.conv2(x), SLOPE)
        x = F.leaky_relu(self.conv3(x), SLOPE)  # [N,256,3,3]
        with full_precision(x):
            x = x.float()
            flat = x.flatten(1)
            agreement = (self.project(labels) * x.mean(dim=(2, 3))).sum(dim=1)
            return self.dense(flat).squeeze(1) + agreement, self.auxiliary(flat)
