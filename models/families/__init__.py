"""The families of generators by name; each module holds one pair of networks."""

import dataclasses
from collections.abc import Callable

from dataset.errors import ConfigError, nearest
from models.families import acgan64, dcgan64, dcgan96, omokage, srresnet, stylegan2
from models.families.base import DiscriminatorNet, GeneratorNet, GeneratorSpec, NetworkSize
from models.layers.stylegan2 import GROUP

Labels = tuple[str, ...]


def _all(labels: Labels) -> Labels:
    return labels


@dataclasses.dataclass(frozen=True)
class Family:
    """How to describe and build a family's networks.

    Attributes:
        resolutions_px: sides that its layers can draw.
        spec: (labels, size) -> GeneratorSpec.
        generator: GeneratorSpec -> G with `G(z, labels, psi, w, noise)`, `G.map` and `G.spec`.
        discriminator: GeneratorSpec -> D with `D(x, labels) -> (adversarial [N], auxiliary [N,L])`;
            its sizes are D's own and may differ from G's.
        sizes: the settings of TrainConfig that scale it; others of them are refused.
        labels: which of a manifest's labels it is conditioned on, in their order.
        group: how many neighbouring pictures G or D sees together; 1 where each is by itself, 0
            where it is the whole batch (batch norm, a mask of dropout).
        d_group: the same of D alone where `group` is 0: processes share a norm, and no spread.
        scaled_weights: whether D's weights are N(0,1) and scaled where they are used; none of them
            survives being clipped to ±0.01.
        frozen_features: whether D judges features that do not learn (`FeatureDiscriminatorNet`).

    """

    resolutions_px: tuple[int, ...]
    spec: Callable[[Labels, NetworkSize], GeneratorSpec]
    generator: Callable[[GeneratorSpec], GeneratorNet]
    discriminator: Callable[[GeneratorSpec], DiscriminatorNet]
    sizes: tuple[str, ...]
    labels: Callable[[Labels], Labels] = _all
    group: int = 0
    d_group: int = 1
    scaled_weights: bool = False
    frozen_features: bool = False

    @property
    def has_w(self) -> bool:
        """Whether G maps z to w."""
        return self.spec((), NetworkSize(self.resolutions_px[0])).can_w


BY_WIDTH = ("g_width", "d_width")
BY_CHANNELS = ("g_channel_base", "d_channel_base", "channel_max", "w_dim", "mapping_layers")

FAMILIES: dict[str, Family] = {
    "dcgan64": Family(
        resolutions_px=(dcgan64.RESOLUTION_PX,),
        spec=dcgan64.spec,
        generator=dcgan64.Generator,
        discriminator=dcgan64.Discriminator,
        sizes=BY_WIDTH,
    ),
    "dcgan96": Family(
        resolutions_px=(dcgan96.RESOLUTION_PX,),
        spec=dcgan96.spec,
        generator=dcgan96.Generator,
        discriminator=dcgan96.Discriminator,
        sizes=BY_WIDTH,
    ),
    "acgan64": Family(
        resolutions_px=(acgan64.RESOLUTION_PX,),
        spec=acgan64.spec,
        generator=acgan64.Generator,
        discriminator=acgan64.Discriminator,
        sizes=BY_WIDTH,
        labels=acgan64.conditions,
    ),
    "srresnet": Family(
        resolutions_px=srresnet.RESOLUTIONS_PX,
        spec=srresnet.spec,
        generator=srresnet.Generator,
        discriminator=srresnet.Discriminator,
        sizes=(*BY_WIDTH, "blocks"),
    ),
    "stylegan2": Family(
        resolutions_px=stylegan2.RESOLUTIONS_PX,
        spec=stylegan2.spec,
        generator=stylegan2.Generator,
        discriminator=stylegan2.Discriminator,
        sizes=BY_CHANNELS,
        group=GROUP,
        scaled_weights=True,
    ),
    "omokage": Family(
        resolutions_px=omokage.RESOLUTIONS_PX,
        spec=omokage.spec,
        generator=omokage.Generator,
        discriminator=omokage.Discriminator,
        sizes=BY_CHANNELS,
        d_group=GROUP,
        frozen_features=True,
    ),
}


def family_of(name: str) -> Family:
    """Returns a family by name; raises ConfigError with the nearest right name."""
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ConfigError(f'unknown family "{name}"{nearest(name, FAMILIES)}. Families: {known}.')
    return FAMILIES[name]


def spec_faults(spec: GeneratorSpec) -> list[str]:
    """Returns a sentence for each field that no spec of this family has; raises as `family_of`.

    How latents are drawn (z_dist, z_std) may be any, z_dim too where z is mapped to a w, and
    conv_clamp of `stylegan2`: imported networks have other ones. So may what its training saw
    (trained_on_features).
    """
    family = family_of(spec.family)
    faults = []
    if spec.resolution_px not in family.resolutions_px:
        able = ", ".join(map(str, family.resolutions_px))
        faults.append(f"resolution_px is {spec.resolution_px}; {spec.family} draws {able}")
    size = NetworkSize(
        resolution_px=spec.resolution_px,
        width=spec.width,
        blocks=spec.blocks,
        channel_base=spec.channel_base,
        channel_max=spec.channel_max,
        w_dim=spec.w_dim,
        mapping_layers=spec.mapping_layers,
    )
    usual = family.spec(spec.labels, size)
    free = {"resolution_px", "z_dist", "z_std", "trained_on_features"}
    free |= {"z_dim"} if usual.can_w else set()
    free |= {"conv_clamp"} if spec.family == "stylegan2" else set()
    for name, wanted in dataclasses.asdict(usual).items():
        found = getattr(spec, name)
        if name not in free and found != wanted:
            faults.append(f"{name} is {found}; {spec.family} has {wanted}")
    if usual.can_w:
        sizes = ("channel_base", "channel_max", "w_dim", "mapping_layers")
        faults += [
            f"{name} is 0; {spec.family} needs at least 1"
            for name in sizes
            if not getattr(spec, name)
        ]
    return faults
