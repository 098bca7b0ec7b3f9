"""The spread within small groups of pictures as one more channel: it shows D too little variety."""

import torch
from torch import Tensor

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
