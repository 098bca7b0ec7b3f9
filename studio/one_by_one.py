"""Draws every picture in a pass of its own, so that it never depends on its neighbours."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.families.base import GeneratorNet, Noise
from studio.turns import TURNS


class OneByOne(GeneratorNet):
    """A generator that draws the pictures of a batch one after the other, each in its turn.

    How a sum is rounded depends on how many pictures go through a network together. Drawn alone, a
    picture depends on its own latent and labels only, memory does not grow with their number, and
    those who wait get their turn in between.
    """

    def __init__(self, generator: GeneratorNet, drawn: Callable[[], None] = lambda: None) -> None:
        """Draws with `generator`; what drawn raises, which is called after each, ends the work."""
        super().__init__()
        self.spec = generator.spec
        self.generator = generator
        self._drawn = drawn

    def map(self, z: Tensor, labels: Tensor) -> Tensor | None:
        """Maps as the generator does."""
        return self.generator.map(z, labels)

    def truncated(self, w: Tensor, labels: Tensor, psi: float | Tensor) -> Tensor:
        """Truncates as the generator does."""
        return self.generator.truncated(w, labels, psi)

    def noise_sides(self) -> list[int]:
        """Returns the generator's own."""
        return self.generator.noise_sides()

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        psi: float | Tensor = 1.0,
        w: Tensor | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        """Draws [N,3,R,R] in [-1,1]; all arguments are as in `GeneratorNet.forward`."""
        pictures = []
        for at in range(len(z)):
            own = slice(at, at + 1)
            maps = noise if isinstance(noise, str) else [one[own] for one in noise]
            with TURNS.turn():
                pictures.append(
                    self.generator(
                        z[own],
                        labels[own],
                        psi=psi,
                        w=None if w is None else w[own],
                        noise=maps,
                    )
                )
            self._drawn()
        return torch.cat(pictures)
