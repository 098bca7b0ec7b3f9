"""The one interface of all families: what a generator and a discriminator can be asked."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from dataset.errors import UsageError
from models.families.spec import GeneratorSpec

Noise = str | Sequence[Tensor]  # "const", "none", "random", or a tensor [N,1,s,s] an input


class GeneratorNet(nn.Module, abc.ABC):
    """Latents and labels to pictures; `spec` says what it can do."""

    spec: GeneratorSpec
    # Ends of the names of parameters that learn at a hundredth of the pace.
    slow: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def map(self, z: Tensor, labels: Tensor) -> Tensor | None:
        """Maps z [N,Z] and labels [N,L] to w [N,K,W], or returns None if the family has no W.

        K is the number of layers that take a w; all K rows are equal until styles are mixed.
        """

    @abc.abstractmethod
    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        psi: float | Tensor = 1.0,
        w: Tensor | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        """Draws [N,3,R,R] in [-1,1] from z [N,Z] and labels [N,L] of 0 and 1.

        psi truncates the w that is mapped from z (a family without W scales z). A given w [N,K,W]
        is drawn as it is: z and psi then mean nothing. noise: "const" (the generator's own maps),
        "none", "random" (drawn anew from torch's default source), or one tensor [N,1,s,s] for each
        side s of `noise_sides()`.
        """

    def truncated(self, w: Tensor, labels: Tensor, psi: float | Tensor) -> Tensor:
        """Pulls w [N,K,W] towards the centre of its labels [N,L]: 1 leaves it, 0 is the centre.

        Raises UsageError if the family has no W; the families with W have their own.
        """
        raise UsageError(f"{self.spec.family} has no W, which truncation needs")

    def noise_sides(self) -> list[int]:
        """Returns the side of each noise input, from the first layer on; [] without noise."""
        return []

    def track(self, w: Tensor) -> None:
        """Moves the running mean of w towards this batch's [W]; only the families with W do."""


class GeneratorWithoutW(GeneratorNet):
    """A generator that draws straight from its latent: psi pulls z towards its mean."""

    @abc.abstractmethod
    def pictures(self, z: Tensor, labels: Tensor) -> Tensor:
        """Draws [N,3,R,R] in [-1,1] from truncated z [N,Z] and labels [N,L] of 0 and 1."""

    def map(self, z: Tensor, labels: Tensor) -> Tensor | None:
        """Returns None: there is no W."""
        return None

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        psi: float | Tensor = 1.0,
        w: Tensor | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        """Draws [N,3,R,R] in [-1,1]: psi 1 is full variety, 0 the mean face of the labels.

        w and noise mean nothing here (`spec.can_w`, `spec.can_noise`) and are ignored.
        """
        return self.pictures(pulled(z, psi, self.spec), labels)


class DiscriminatorNet(nn.Module, abc.ABC):
    """Pictures and labels to realness and label logits."""

    @abc.abstractmethod
    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges x [N,3,R,R] in [-1,1] with labels [N,L] -> adversarial [N], auxiliary [N,L].

        A family without a label head returns an auxiliary of [N,0].
        """


@dataclasses.dataclass(frozen=True)
class NetworkSize:
    """Asked-for sizes of G or D; a family reads those that mean something to it.

    Attributes:
        resolution_px: side of the pictures.
        width: multiplier of the channel counts (families that count by width).
        blocks: residual blocks (`srresnet`).
        channel_base, channel_max: a layer at side s has min(base / s, max) channels.
        w_dim, mapping_layers: of the mapping network; z has w_dim numbers too.

    """

    resolution_px: int
    width: float = 1.0
    blocks: int = 16
    channel_base: int = 16_384
    channel_max: int = 512
    w_dim: int = 512
    mapping_layers: int = 8


def scaled(channels: int, width: float) -> int:
    """Returns `channels` of a family's table at a width; at least 4, so that something is left."""
    return max(4, round(channels * width))


def pulled(z: Tensor, psi: float | Tensor, spec: GeneratorSpec) -> Tensor:
    """Pulls z [N,Z] towards its mean: psi 1 leaves it, 0 is the mean, for every row the same.

    N(0,1) has its mean at 0, so there z is scaled; U(0,1) has it at 0.5 of `spec.z_std`, and 0
    would be a corner that hardly any latent comes near.
    """
    if spec.z_dist == "normal":
        return z * psi
    if not isinstance(psi, Tensor):  # 1 - psi is to be rounded as in an exported program
        psi = torch.tensor(psi, dtype=torch.float32)
    return z * psi + 0.5 * spec.z_std * (1 - psi)
