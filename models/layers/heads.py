"""What D ends with: the projection of labels, and the spread within groups of pictures."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.equalized import EqualDense, full_precision
from models.layers.modulated import GAIN, SLOPE


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


GROUP = 4  # pictures
EPSILON = 1e-8


def with_minibatch_std(x: Tensor) -> Tensor:
    """Joins the mean standard deviation of each group of rows to x [N,C,H,W] -> [N,C+1,H,W].

    Groups are 4 neighbouring rows, so that processes which share a batch see the same groups as
    one that has it whole; where N is no multiple of 4, the largest of 3, 2, 1 that divides it.
    Source: Karras et al. 2018, arXiv:1710.10196, section 3, in groups as in arXiv:1912.04958.
    """
    count, channels, height, width = x.shape
    size = next(size for size in range(GROUP, 0, -1) if count % size == 0)
    groups = x.float().reshape(count // size, size, channels, height, width)  # [N/4,4,C,H,W]
    variance = (groups - groups.mean(dim=1, keepdim=True)).square().mean(dim=1)
    spread = (variance + EPSILON).sqrt().mean(dim=(1, 2, 3))  # [N/4]
    channel = spread.repeat_interleave(size).to(x.dtype)[:, None, None, None]
    return torch.cat([x, channel.expand(-1, 1, height, width)], dim=1)
