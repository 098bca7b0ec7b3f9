"""DCGAN at 96 px whose first block is residual, with dropout and a softmax judge of two classes.

Layers at width 1 (channels are multiplied by `width`), L labels, P = 72 + L:

    G   z [72] ~ U(0,1) joined with the labels, as a map of P channels at 1x1
        residual block  ConvT P -> 512 k3 s1    1 -> 3              conditional BN, relu
                        ConvT 512 -> 512 k2 s2  3 -> 6              conditional BN
                        + Conv P -> 512 k1 of the 1x1 map, at each of the 6x6 places; then relu
        ConvT 512 -> 256 -> 128 -> 64, k4 s2 p1, 6 -> 12 -> 24 -> 48  conditional BN, relu
        ConvT 64 -> 3    k4 s2 p1   48 -> 96                          tanh
    D   Conv 3 -> 64 -> 128 -> 256 -> 512, k4 s2 p1, 96 -> 48 -> 24 -> 12 -> 6
                                                                      leaky relu, dropout 0.4
        Dense 6·6·512 -> 2, the logits of "fake" and "real", to whose "real" comes the projection
            <V·labels, mean of the 6x6 features>
        Dense 6·6·512 -> L, the auxiliary label head

D's loss in the described system is the softmax cross-entropy of the two classes. Since
-log softmax(real) = softplus(fake - real), that is the loss `ns` of the difference of the two
logits: D returns this difference as its realness, and any other loss of ours takes it as well.

The described system knew no labels. With L = 0 the conditional norms are plain ones, projection and
label head are empty, and the described network is what is left.

Parameters at width 1, L labels:
    G: (72+L)·512·9 + 512·512·4 + (72+L)·512  (residual block)
       + 512·256·16 + 256·128·16 + 128·64·16 + 64·3·16+3  (convs)
       + 2·(L+1)·(512+512+256+128+64)  (norms)                  = 4,175,747 + 8,064·L
    D: 3·64·16+64 + 64·128·16+128 + 128·256·16+256 + 256·512·16+512  (convs)
       + 18432·2+2  (dense)  + L·512  (projection)  + L·18433  (auxiliary)
                                                                = 2,793,410 + 18,945·L

Source of the table: Radford et al. 2016, arXiv:1511.06434, as a Paddle port of a Chainer DCGAN for
anime faces had it; projection: Miyato and Koyama 2018, arXiv:1802.05637.
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
from models.layers.norm import ConditionalNorm, Dropout

RESOLUTION_PX = 96
Z_DIM = 72
SLOPE = 0.2  # of the leaky relu
DROPOUT = 0.4
# Weight of the newest batch, as torch counts. Chainer and Paddle give the weight of the older ones
# under the same name; at one half the two are one.
MOMENTUM = 0.5
CHANNELS = (512, 256, 128, 64)


def spec(labels: tuple[str, ...], size: NetworkSize) -> GeneratorSpec:
    """Returns the spec of a network of this family for the given label names and width."""
    return GeneratorSpec(
        family="dcgan96",
        resolution_px=RESOLUTION_PX,
        z_dim=Z_DIM,
        z_dist="uniform",
        labels=labels,
        width=size.width,
    )


class FirstBlock(nn.Module):
    """A latent to a map of 6x6: two transposed convolutions beside a short cut."""

    def __init__(self, z_dim: int, channels: int, labels: int) -> None:
        super().__init__()
        latent = z_dim + labels
        self.up1 = nn.ConvTranspose2d(latent, channels, 3, bias=False)  # 1 -> 3
        self.norm1 = ConditionalNorm(channels, labels, momentum=MOMENTUM)
        self.up2 = nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)  # 3 -> 6
        self.norm2 = ConditionalNorm(channels, labels, momentum=MOMENTUM)
        self.shortcut = nn.Conv2d(latent, channels, 1, bias=False)
        # The mean of U(0,1) gives every face one map, three times as strong as what z moves in it.
        # With weights that cancel the mean at the start, faces of equal labels differ .24 as much
        # as real ones after three minutes, and not .07; without, ten minutes made it .13.
        nn.init.normal_(self.up1.weight, std=0.1)
        nn.init.normal_(self.shortcut.weight, std=0.3)
        with torch.no_grad():
            self.up1.weight[:z_dim] -= self.up1.weight[:z_dim].mean(dim=0)
            of_z = self.shortcut.weight[:, :z_dim]
            of_z -= of_z.mean(dim=1, keepdim=True)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Widens x [N,P,1,1] with labels [N,L] to [N,512,6,6]."""
        inner = F.relu(self.norm1(self.up1(x), labels))  # [N,512,3,3]
        inner = self.norm2(self.up2(inner), labels)  # [N,512,6,6]
        return F.relu(inner + self.shortcut(x))


class Generator(GeneratorWithoutW):
    """Latents and labels to pictures; see the module's docstring for the layers."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.spec = spec
        labels = len(spec.labels)
        first, second, third, fourth = (scaled(count, spec.width) for count in CHANNELS)
        self.block = FirstBlock(spec.z_dim, first, labels)
        self.up1 = nn.ConvTranspose2d(first, second, 4, stride=2, padding=1, bias=False)  # -> 12
        self.norm1 = ConditionalNorm(second, labels, momentum=MOMENTUM)
        self.up2 = nn.ConvTranspose2d(second, third, 4, stride=2, padding=1, bias=False)  # -> 24
        self.norm2 = ConditionalNorm(third, labels, momentum=MOMENTUM)
        self.up3 = nn.ConvTranspose2d(third, fourth, 4, stride=2, padding=1, bias=False)  # -> 48
        self.norm3 = ConditionalNorm(fourth, labels, momentum=MOMENTUM)
        self.up4 = nn.ConvTranspose2d(fourth, 3, 4, stride=2, padding=1)  # 48 -> 96
        for layer in (self.up1, self.up2, self.up3, self.up4):
            nn.init.normal_(layer.weight, std=0.02)

    def style_weights(self) -> list[Tensor]:
        """Returns the weights [O,Z] of the latent in the first convolution and beside it."""
        beside = self.block.shortcut.weight.flatten(1)
        first = self.block.up1.weight.flatten(1).t()
        return [torch.cat([first, beside])[:, : self.spec.z_dim]]

    def pictures(self, z: Tensor, labels: Tensor) -> Tensor:
        """Draws pictures: z [N,72] in [0,1], labels [N,L] of 0 and 1 -> [N,3,96,96] in [-1,1]."""
        x = torch.cat([z, labels], dim=1)[:, :, None, None]
        x = self.block(x, labels)  # [N,512,6,6]
        x = F.relu(self.norm1(self.up1(x), labels))  # [N,256,12,12]
        x = F.relu(self.norm2(self.up2(x), labels))  # [N,128,24,24]
        x = F.relu(self.norm3(self.up3(x), labels))  # [N,64,48,48]
        return torch.tanh(self.up4(x))  # [N,3,96,96]


class Discriminator(DiscriminatorNet):
    """Pictures and labels to realness and label logits; see the module's docstring."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        labels = len(spec.labels)
        fourth, third, second, first = (scaled(count, spec.width) for count in CHANNELS)
        self.conv1 = nn.Conv2d(3, first, 4, stride=2, padding=1)  # 96 -> 48
        self.conv2 = nn.Conv2d(first, second, 4, stride=2, padding=1)  # 48 -> 24
        self.conv3 = nn.Conv2d(second, third, 4, stride=2, padding=1)  # 24 -> 12
        self.conv4 = nn.Conv2d(third, fourth, 4, stride=2, padding=1)  # 12 -> 6
        self.dropout = Dropout(DROPOUT)
        self.dense = nn.Linear(fourth * 36, 2)
        self.project = Dense(labels, fourth, bias=False)
        self.auxiliary = Dense(fourth * 36, labels)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            nn.init.kaiming_normal_(layer.weight, SLOPE)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges pictures: x [N,3,96,96] in [-1,1], labels [N,L] -> realness [N], logits [N,L]."""
        classes, auxiliary = self.classes(x, labels)
        fake, real = classes.unbind(dim=1)
        return real - fake, auxiliary

    def classes(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the logits [N,2] of "fake" and "real", and the label logits [N,L]."""
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = self.dropout(F.leaky_relu(layer(x), SLOPE))  # at last [N,512,6,6]
        with full_precision(x):
            x = x.float()
            flat = x.flatten(1)
            agreement = (self.project(labels) * x.mean(dim=(2, 3))).sum(dim=1)
            fake, real = self.dense(flat).unbind(dim=1)
            return torch.stack([fake, real + agreement], dim=1), self.auxiliary(flat)
