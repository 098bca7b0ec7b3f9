"""Omokage, the flagship: StyleGAN2's generator against a cheaper discriminator without tricks.

G is that of `models.families.stylegan2`, whose docstring has its layers, the parameters and
c(s) = min(channel_base / s, channel_max). D is a plain residual network for the relativistic loss
with R1 and R2, which need neither minibatch spread nor norms to stay on course:

    D     2x2 pixels as 12 channels, Conv 12 -> c(R/2) k3
          for s = R/2 ... 8:
              leaky relu, Conv c(s) -> c(s) k3, leaky relu, halve, Conv c(s) -> c(s/2) k3
              + halved input, through Conv k1 where c(s) != c(s/2)
          leaky relu, Conv c(4) -> c(4) k3, leaky relu, Conv c(4) -> c(4) k3, + input
          leaky relu, Dense 16·c(4) -> c(4), leaky relu: the features
          Dense c(4) -> 1, plus <Dense (L -> c(4), no bias) of the labels, features> / √c(4)
          Dense c(4) -> L, the label head

Why so: the stage at full side is half of StyleGAN2's memory traffic and sees but three channels'
worth of news, so D begins at half the side with nothing lost. Halving before the last convolution
needs a quarter of the smoothing. That convolution is zero at the start: D is then nearly linear in
the picture, no branch outgrows the others and no norm is wanted. Scaled weights keep Adam's step
the same for both networks. The projection judges whether picture and labels belong together; the
label head tells G, picture by picture, which label it missed, which small sets need.

Parameters of D, L labels:
    108·c(R/2) + c(R/2)  +  each side s = R/2 ... 8: 9·c(s)² + c(s) + 9·c(s)·c(s/2) + c(s/2),
    and c(s)·c(s/2) where they differ  +  18·c(4)² + 2·c(4)  +  16·c(4)² + c(4)  +  c(4) + 1
    +  L·c(4)  +  L·c(4) + L
At R = 128, base 8192, maximum 512: 20,744,961 + 1,025·L; G with W = 512, 8 mapping layers:
19,258,333 without labels, 19,520,989 + 512·L with.

Sources: Huang et al. 2024, arXiv:2501.05441 (relativistic loss, R1 + R2, D without norms);
Zhang et al. 2019, arXiv:1901.09321 (zero at the start instead of norms); Karras et al. 2020,
arXiv:1912.04958 (G); Odena et al. 2017, arXiv:1610.09585 (label head).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.families import stylegan2
from models.families.base import DiscriminatorNet, GeneratorSpec, NetworkSize
from models.families.stylegan2 import channels, sides
from models.layers.equalized import EqualConv, EqualDense, full_precision
from models.layers.heads import ProjectionHead
from models.layers.modulated import GAIN, SLOPE
from models.layers.resample import Down

RESOLUTIONS_PX = stylegan2.RESOLUTIONS_PX
RGB_START = 0.1  # of the colours' weights: the first pictures are grey, not noise


def spec(labels: tuple[str, ...], size: NetworkSize) -> GeneratorSpec:
    """Returns the spec of a network of this family for the given label names and sizes."""
    return stylegan2.spec_of("omokage", labels, size)


class Generator(stylegan2.Generator):
    """StyleGAN2's, which begins with grey pictures instead of noise."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__(spec)
        for rgb in self.rgbs:
            nn.init.normal_(rgb.get_parameter("weight"), std=RGB_START)


class Block(nn.Module):
    """A residual block that adds nothing at the start; halves the side by default."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool = True) -> None:
        super().__init__()
        self.conv0 = EqualConv(inputs, inputs, 3, gain=GAIN**2)  # of both leaky relus around it
        self.conv1 = EqualConv(inputs, outputs, 3)
        nn.init.zeros_(self.conv1.weight)
        self.down = Down() if halve else nn.Identity()
        same = inputs == outputs
        self.skip = nn.Identity() if same else EqualConv(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,I,S,S] to [N,O,S/2,S/2], or to [N,O,S,S] without halving."""
        y = F.leaky_relu(self.conv0(F.leaky_relu(x, SLOPE)), SLOPE)
        changed: Tensor = self.skip(self.down(x)) + self.conv1(self.down(y))
        return changed


class Discriminator(DiscriminatorNet):
    """Pictures and labels to realness and label logits; see the module's docstring."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        *larger, last = reversed(sides(spec)[:-1])
        deep, labels = channels(spec, last), len(spec.labels)
        self.stem = EqualConv(12, channels(spec, spec.resolution_px // 2), 3)
        self.blocks = nn.Sequential(
            *(Block(channels(spec, side), channels(spec, side // 2)) for side in larger),
            Block(deep, deep, halve=False),
        )
        self.head = ProjectionHead(deep * last**2, deep, labels)
        self.auxiliary = EqualDense(deep, labels) if labels else None

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges pictures: x [N,3,R,R] in [-1,1], labels [N,L] -> realness [N], logits [N,L]."""
        x = self.blocks(self.stem(F.pixel_unshuffle(x, 2)))  # [N,C,4,4]
        realness, features = self.head(F.leaky_relu(x, SLOPE), labels)
        if self.auxiliary is None:
            return realness, features[:, :0]
        with full_precision(features):
            return realness, self.auxiliary(features)
