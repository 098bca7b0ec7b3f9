"""Small changes of a face that leave its labels as they are; hue is never touched."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.tagger.config import TaggerConfig


def varied(images: Tensor, config: TaggerConfig, rng: torch.Generator, *, mirror: bool) -> Tensor:
    """Turns, scales, shifts, perhaps mirrors, and lights each picture anew.

    images [N,3,R,R] in [-1,1] -> the same shape; what comes in from outside repeats the border.
    Light and contrast change all three channels alike, so grey stays grey and blue stays blue.
    """
    count = len(images)
    frame = _frames(count, config, rng, mirror=mirror).to(images.device)
    places = F.affine_grid(frame, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, places, padding_mode="border", align_corners=False)
    contrast = 1 + config.brightness * _spread(count, rng)[:, None, None, None].to(images.device)
    light = config.brightness * _spread(count, rng)[:, None, None, None].to(images.device)
    return (moved * contrast + light).clamp(-1, 1)


def _frames(count: int, config: TaggerConfig, rng: torch.Generator, *, mirror: bool) -> Tensor:
    """Draws [N,2,3]: where each output place lies in the picture, both from -1 to 1."""
    angle = _spread(count, rng) * config.rotate_deg * math.pi / 180
    scale = 1 + _spread(count, rng) * config.scale_frac
    shift = torch.stack([_spread(count, rng), _spread(count, rng)], dim=1)
    shift = shift * 2 * config.translate_frac
    side = torch.ones(count)
    if mirror:
        side = torch.where(torch.rand(count, generator=rng) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    top = torch.stack([cos * side, -sin, shift[:, 0]], dim=1)
    bottom = torch.stack([sin * side, cos, shift[:, 1]], dim=1)
    return torch.stack([top, bottom], dim=1)


def _spread(count: int, rng: torch.Generator) -> Tensor:
    return torch.rand(count, generator=rng) * 2 - 1
