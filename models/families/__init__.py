"""The families of generators by name; each module holds one pair of networks."""

import dataclasses
from collections.abc import Callable

from dataset.errors import ConfigError, nearest
from models.families import dcgan64
from models.networks import DiscriminatorNet, GeneratorNet
from models.spec import GeneratorSpec


@dataclasses.dataclass(frozen=True)
class Family:
    """How to describe and build a family's networks.

    Attributes:
        resolutions_px: sides that its layers can draw.
        spec: (labels, *, width) -> GeneratorSpec.
        generator: GeneratorSpec -> G with `G(z, labels, psi, w, noise)`, `G.map` and `G.spec`.
        discriminator: GeneratorSpec -> D with `D(x, labels) -> (adversarial [N], auxiliary [N,L])`;
            its `width` is D's own and may differ from G's.

    """

    resolutions_px: tuple[int, ...]
    spec: Callable[..., GeneratorSpec]
    generator: Callable[[GeneratorSpec], GeneratorNet]
    discriminator: Callable[[GeneratorSpec], DiscriminatorNet]


FAMILIES: dict[str, Family] = {
    "dcgan64": Family(
        resolutions_px=(dcgan64.RESOLUTION_PX,),
        spec=dcgan64.spec,
        generator=dcgan64.Generator,
        discriminator=dcgan64.Discriminator,
    ),
}


def family_of(name: str) -> Family:
    """Returns a family by name; raises ConfigError with the nearest right name."""
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ConfigError(f'unknown family "{name}"{nearest(name, FAMILIES)}. Families: {known}.')
    return FAMILIES[name]
