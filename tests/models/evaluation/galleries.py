"""Generators that show pictures they were given: copiers, honest, deaf and monotonous ones."""

import functools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.families.base import GeneratorNet, GeneratorSpec, Noise
from models.metrics.extractors import Extractor, resized
from tests.models.drawn_heads import LABELS
from tests.models.homes import SIDE_PX

Pictures = npt.NDArray[np.uint8]


class Gallery(GeneratorNet):
    """Shows one of its pictures [M,S,S,3], chosen by z among those whose labels fit best.

    One that is deaf chooses among all of them. `drawn` counts the pictures shown.
    """

    def __init__(
        self, pictures: Pictures, labels: npt.NDArray[np.bool_], *, deaf: bool = False
    ) -> None:
        super().__init__()
        self.spec = GeneratorSpec("dcgan64", pictures.shape[1], 4, "normal", LABELS)
        shown = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        self.pictures = nn.Parameter(shown, requires_grad=False)
        self.labels = torch.from_numpy(labels).float()
        self.deaf, self.drawn = deaf, 0

    def map(self, z: Tensor, labels: Tensor) -> Tensor | None:
        return None

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        psi: float | Tensor = 1.0,
        w: Tensor | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        self.drawn += len(z)
        places = []
        for latent, row in zip(z, labels, strict=True):
            apart = (self.labels - row).abs().sum(dim=1)
            fitting = torch.arange(len(apart)) if self.deaf else (apart == apart.min()).nonzero()
            part = float(torch.special.ndtr(latent[0]))  # 0 to 1
            places.append(int(fitting.flatten()[min(int(part * len(fitting)), len(fitting) - 1)]))
        return self.pictures[places]


def colours(name: str = "colours") -> Extractor:
    """Returns an extractor of 48 numbers, mean colours of a 4 x 4 grid, that takes no time."""

    def network(images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)

    def resize(images: Tensor) -> Tensor:
        return images.float() / 127.5 - 1

    return Extractor(name, "ab" * 32, SIDE_PX, 48, network, resize, "none")


def edges(name: str = "edges") -> Extractor:
    """Returns an extractor of 48 numbers that grow with sharpness and take no time."""

    def network(images: Tensor) -> Tensor:
        steps = (images[..., 1:] - images[..., :-1]).abs()
        return 40 * nn.functional.adaptive_avg_pool2d(steps, 4).flatten(1)

    resize = functools.partial(resized, side_px=SIDE_PX)
    return Extractor(name, "cd" * 32, SIDE_PX, 48, network, resize, "bilinear")
