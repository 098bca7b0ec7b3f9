"""What is done to pictures before D sees them; hue is never touched, since that would undo labels.

All draws are made for the batch of all ranks from one source, so that N ranks see what one would.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.parallel import share, world


@dataclasses.dataclass(frozen=True)
class Strength:
    """How far pictures may go: pixels both ways, a share of their size, degrees both ways."""

    translate_px: int = 0
    scale_frac: float = 0.0
    rotate_deg: float = 0.0


def flipped(images: Tensor, rng: torch.Generator) -> Tensor:
    """Mirrors each picture with a chance of one half: images [N,C,H,W] -> the same shape."""
    mirror = share(torch.rand(len(images) * world(), generator=rng) < 0.5)
    mirror = mirror.to(images.device)[:, None, None, None]
    return torch.where(mirror, images.flip(3), images)


def augmented(images: Tensor, strength: Strength, chance: Tensor, rng: torch.Generator) -> Tensor:
    """Shifts, resizes and turns each picture, each of the three with `chance`; differentiable.

    images [N,C,H,W] -> the same shape; chance is a scalar in [0,1] on the images' device. What
    comes in from outside is the mirrored border. Shifts alone move by whole pixels and repeat the
    border, with no resampling. Strength() returns the images themselves.

    Source: Karras et al. 2020, arXiv:2006.06676, appendix B, and Zhao et al. 2020,
    arXiv:2006.10738; both pad with zeros or noise and have colour changes besides.
    """
    if strength == Strength():
        return images
    count = len(images) * world()
    applied = share(torch.rand(count, 3, generator=rng)).to(images.device) < chance
    amounts = share(torch.rand(count, 4, generator=rng)).to(images.device) * 2 - 1
    if strength.scale_frac == 0 and strength.rotate_deg == 0:
        pixels = (amounts[:, :2] * (strength.translate_px + 0.5)).round()
        pixels = pixels.clamp(-strength.translate_px, strength.translate_px)
        return _shifted(images, pixels.long() * applied[:, :1], strength.translate_px)
    return _warped(images, amounts, applied, strength)


def _shifted(images: Tensor, pixels: Tensor, most: int) -> Tensor:
    """Shifts images [N,C,H,W] by whole pixels [N,2] within ±most; the border is repeated."""
    count, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most), mode="replicate")
    corner = (pixels + most).T[:, :, None]
    rows = corner[0] + torch.arange(height, device=images.device)  # [N,H]
    columns = corner[1] + torch.arange(width, device=images.device)  # [N,W]
    which = torch.arange(count, device=images.device)[:, None, None]
    shifted = padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2)


def _warped(images: Tensor, amounts: Tensor, applied: Tensor, strength: Strength) -> Tensor:
    """Moves images [N,C,H,W] by amounts [N,4] in [-1,1]: two shifts, a scale, an angle."""
    side = images.shape[-1]
    shift = amounts[:, :2] * (2 * strength.translate_px / side) * applied[:, :1]  # in half sides
    scale = (1 + strength.scale_frac) ** (amounts[:, 2] * applied[:, 1])
    angle = amounts[:, 3] * math.radians(strength.rotate_deg) * applied[:, 2]
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = [
        torch.stack([cosine, -sine, shift[:, 0]], dim=1),
        torch.stack([sine, cosine, shift[:, 1]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(
        images, grid.to(images.dtype), padding_mode="reflection", align_corners=False
    )
