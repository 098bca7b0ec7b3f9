"""The tagger's network: a small residual net from pictures to one logit a label.

At width 1 and 64 px, L labels (channels are multiplied by `width`):

    stem   Conv 3 -> 32, k3 s2                      64 -> 32
    block  32 -> 32                                 32
    block  32 -> 64, s2                             32 -> 16
    block  64 -> 128, s2                            16 -> 8
    block  128 -> 192, s2                           8 -> 4
    head   mean and maximum over the places, joined [384], Linear 384 -> L

A block is conv k3, batch norm, relu, conv k3, batch norm, added to its input (by a 1x1 conv after
2x2 means where the shape changes), relu. Mean and maximum are both needed: hair is everywhere, eyes
are two small places. Parameters at width 1: 885,280 + 385·L.

Source of the block: He et al. 2016, arXiv:1512.03385; means before the 1x1: He et al. 2019,
arXiv:1812.01187.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHANNELS = (32, 64, 128, 192)


class TaggerNet(nn.Module):
    """Pictures [N,3,R,R] in [-1,1] to logits [N,L]; R is any multiple of 16."""

    def __init__(self, labels: int, *, width: float = 1.0) -> None:
        super().__init__()
        first, *others = (max(4, round(count * width)) for count in _CHANNELS)
        self.stem = nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(first)
        blocks = [Residual(first, first, stride=1)]
        for channels in others:
            blocks.append(Residual(first, channels, stride=2))
            first = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(2 * first, labels)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Judges pictures [N,3,R,R] in [-1,1] -> logits [N,L]."""
        x = F.relu(self.norm(self.stem(x)))
        x = self.blocks(x)
        features = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        logits: Tensor = self.head(features)
        return logits


class Residual(nn.Module):
    """Two 3x3 convolutions beside a short cut: [N,C,H,W] -> [N,C',H/stride,W/stride]."""

    def __init__(self, channels: int, made: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, made, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(made)
        self.conv2 = nn.Conv2d(made, made, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(made)
        nn.init.zeros_(self.norm2.weight)  # each block begins as its short cut
        self.stride = stride
        self.short = nn.Conv2d(channels, made, 1, bias=False) if channels != made else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's output."""
        short = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        if self.short is not None:
            short = self.short(short)
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + short)


def begin_at_frequency(network: TaggerNet, frequency: Tensor) -> None:
    """Sets the head's bias so that an untrained network says each label's frequency [L]."""
    logits = [math.log(f / (1 - f)) for f in frequency.double().clamp(1e-3, 1 - 1e-3).tolist()]
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor(logits))
