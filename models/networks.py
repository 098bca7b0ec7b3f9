"""The one interface of all families: what a generator and a discriminator can be asked."""

import abc

from torch import Tensor, nn

from models.spec import GeneratorSpec


class GeneratorNet(nn.Module, abc.ABC):
    """Latents and labels to pictures; `spec` says what it can do."""

    spec: GeneratorSpec

    @abc.abstractmethod
    def map(self, z: Tensor, labels: Tensor) -> Tensor | None:
        """Maps z [N,Z] and labels [N,L] to w, or returns None if the family has no W."""

    @abc.abstractmethod
    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        psi: float = 1.0,
        w: Tensor | None = None,
        noise: str = "const",
    ) -> Tensor:
        """Draws [N,3,R,R] in [-1,1] from z [N,Z] and labels [N,L] of 0 and 1."""


class DiscriminatorNet(nn.Module, abc.ABC):
    """Pictures and labels to realness and label logits."""

    @abc.abstractmethod
    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges x [N,3,R,R] in [-1,1] with labels [N,L] -> adversarial [N], auxiliary [N,L]."""
