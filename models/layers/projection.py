"""The end of a discriminator: realness of features, and how well they agree with the labels."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.equalized import EqualDense
from models.layers.modulated import GAIN, SLOPE
from models.layers.precision import full_precision


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
