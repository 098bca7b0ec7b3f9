"""Flips and shifts of pictures before D; hue is never touched, since that would undo labels."""

import torch
import torch.nn.functional as F
from torch import Tensor


def flipped(images: Tensor, rng: torch.Generator) -> Tensor:
    """Mirrors each picture with a chance of one half: images [N,C,H,W] -> the same shape."""
    mirror = torch.rand(len(images), generator=rng) < 0.5
    mirror = mirror.to(images.device)[:, None, None, None]
    return torch.where(mirror, images.flip(3), images)


def translated(images: Tensor, by_px: int, rng: torch.Generator) -> Tensor:
    """Shifts each picture by up to `by_px` both ways, the border repeated outwards.

    images [N,C,H,W] -> the same shape; differentiable; by_px = 0 returns the images themselves.
    Source: Zhao et al. 2020, arXiv:2006.10738, which pads with zeros instead.
    """
    if by_px == 0:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images, (by_px, by_px, by_px, by_px), mode="replicate")
    corner = torch.randint(0, 2 * by_px + 1, (2, count, 1), generator=rng).to(images.device)
    rows = corner[0] + torch.arange(height, device=images.device)  # [N,H]
    columns = corner[1] + torch.arange(width, device=images.device)  # [N,W]
    which = torch.arange(count, device=images.device)[:, None, None]
    shifted = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2)
