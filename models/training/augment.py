"""What is done to pictures before D sees them; hue is never touched, since that would undo labels.

All draws are made for the batch of all ranks from one source, so that N ranks see what one would;
`rng` is a source on the device of the images, so that no step copies its draws there.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.training.distributed import share, world


@dataclasses.dataclass(frozen=True)
class Strength:
    """How far pictures may go: pixels both ways, a share of their size, degrees both ways."""

    translate_px: int = 0
    scale_frac: float = 0.0
    rotate_deg: float = 0.0


def flipped(images: Tensor, rng: torch.Generator) -> Tensor:
    """Mirrors each picture with a chance of one half: images [N,C,H,W] -> the same shape."""
    draws = torch.rand(len(images) * world(), generator=rng, device=images.device)
    return torch.where(share(draws < 0.5)[:, None, None, None], images.flip(3), images)


def augmented(images: Tensor, strength: Strength, chance: Tensor, rng: torch.Generator) -> Tensor:
    """Shifts, resizes and turns each picture, each of the three with `chance`; differentiable.

    images [N,C,R,R] -> the same shape; chance is a scalar in [0,1] on the images' device. What
    comes in from outside is the mirrored border. Where Strength has shifts alone, they move by
    whole pixels and repeat the border, with no resampling. A picture that gets none of the three
    keeps its values; Strength() returns the images themselves.

    Source: Karras et al. 2020, arXiv:2006.06676, appendix B, and Zhao et al. 2020,
    arXiv:2006.10738; both pad with zeros or noise and have colour changes besides.
    """
    if strength == Strength():
        return images
    count, device = len(images) * world(), images.device
    draws = torch.rand(count, 3, generator=rng, device=device)
    for column, amount in enumerate(dataclasses.astuple(strength)):
        if amount == 0:
            draws[:, column].fill_(1.0)  # is below no chance
    applied = share(draws) < chance
    amounts = share(torch.rand(count, 4, generator=rng, device=device)) * 2 - 1
    if strength.scale_frac == 0 and strength.rotate_deg == 0:
        pixels = (amounts[:, :2] * (strength.translate_px + 0.5)).round()
        pixels = pixels.clamp(-strength.translate_px, strength.translate_px)
        return _shifted(images, pixels.long() * applied[:, :1])
    warped = _warped(images, amounts, applied, strength)
    # Resampling in place is not quite the identity: those that stay keep their very values.
    return torch.where(applied.any(dim=1)[:, None, None, None], warped, images)


def _shifted(images: Tensor, pixels: Tensor) -> Tensor:
    """Shifts images [N,C,H,W] by whole pixels [N,2], rows and columns; the border is repeated."""
    height, width = images.shape[2:]
    rows = pixels[:, :1] + torch.arange(height, device=images.device)
    columns = pixels[:, 1:] + torch.arange(width, device=images.device)
    rows = rows.clamp(0, height - 1)[:, None, :, None].expand(images.shape)
    columns = columns.clamp(0, width - 1)[:, None, None, :].expand(images.shape)
    return images.gather(2, rows).gather(3, columns)  # forth and back in half an index's time


def _warped(images: Tensor, amounts: Tensor, applied: Tensor, strength: Strength) -> Tensor:
    """Moves square images [N,C,R,R] by amounts [N,4] in [-1,1]: two shifts, a scale, an angle.

    applied [N,3]: which of shift, scale and angle each picture gets.
    """
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
