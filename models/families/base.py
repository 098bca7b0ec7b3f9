"""The interface of all families: the spec of a generator, G and D, and the sizes of networks."""

import abc
import dataclasses
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from dataset.errors import TrainingError, UsageError, listed, nearest
from models.io.safe_io import Kind, fact_faults, shown

Noise = str | Sequence[Tensor]  # "const", "none", "random", or a tensor [N,1,s,s] an input
Z_DISTS = ("normal", "uniform")
CENTRES = ("labels", "global")  # of truncation; see `GeneratorNet.truncation_centre`
MAX_NAME = 200  # characters of a family's or label's name
MAX_LABELS = 10_000
MAX_EXTRACTORS = 16
MAX_LAYERS = 64  # of the mapping network, and residual blocks: each is a module of its own
MAX_CLAMP = 1 << 20  # of activations; half precision ends at 65,504
# Fields that the first specs lacked. `to_json` leaves them out at their default: the digest of a
# generator is taken over that text, and must stay what it was.
LATER_FIELDS = ("conv_clamp", "trained_on_features")


@dataclasses.dataclass(frozen=True)
class GeneratorSpec:
    """Size, latent, labels in order, and what the family can do; `spec.json` beside the weights.

    Attributes:
        family: name in `models.families`.
        resolution_px: side of the square pictures.
        z_dim: numbers in a latent.
        z_dist: "normal" for N(0, 1), "uniform" for U(0, 1).
        z_std: what each number of a latent is multiplied by before G sees it.
        labels: label names; column i of a label tensor means labels[i].
        width: multiplier of the family's channel counts, 1 = as in its table.
        blocks: residual blocks of G (`srresnet`), 0 = the family has no such choice.
        channel_base, channel_max: a layer at side s has min(channel_base / s, channel_max)
            channels (`stylegan2`, `omokage`), 0 = the family counts by `width`.
        w_dim: numbers in a w, 0 = the family has no W.
        mapping_layers: dense layers from z to w.
        can_w, can_mixing, can_noise: whether `w`, style mixing and `noise` mean anything to it.
        conv_clamp: activations are clamped to ± this behind each convolution (`stylegan2`), 0 =
            they are not. Imported networks that ran in half precision have it.
        trained_on_features: extractors (`models.metrics`) whose features the training saw. A
            distance on these is what the training made small, so no ranking goes by it.

    """

    family: str
    resolution_px: int
    z_dim: int
    z_dist: str
    labels: tuple[str, ...]
    width: float = 1.0
    z_std: float = 1.0
    blocks: int = 0
    channel_base: int = 0
    channel_max: int = 0
    w_dim: int = 0
    mapping_layers: int = 0
    can_w: bool = False
    can_mixing: bool = False
    can_noise: bool = False
    conv_clamp: float = 0.0
    trained_on_features: tuple[str, ...] = ()

    @property
    def w_layers(self) -> int:
        """Layers that take a w of their own: two a resolution from 4 px on, 0 without W."""
        return 2 * (self.resolution_px.bit_length() - 2) if self.can_w else 0

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values; those of LATER_FIELDS only where they are set."""
        fields = dataclasses.asdict(self)
        for name in LATER_FIELDS:
            if fields[name] == getattr(type(self), name):
                del fields[name]
        return json.loads(json.dumps(fields))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, value: Any, *, where: str) -> Self:
        """Reads `to_json`'s value; raises TrainingError naming `where` and every wrong field."""
        if not isinstance(value, dict):
            raise TrainingError(f"{where}: a JSON object is wanted, not {type(value).__name__}")
        faults = _faults(value, cls)
        if faults:
            raise TrainingError(f"{where} describes no generator:\n{listed(faults)}")
        read = dict(value) | {"labels": tuple(value["labels"])}
        if value["family"] == "omokage" and not value.get("trained_on_features"):
            # Before it saw features it drew with the very layers of StyleGAN2.
            read["family"] = "stylegan2"
        read["trained_on_features"] = tuple(value.get("trained_on_features", ()))
        for name in ("width", "z_std", "conv_clamp"):
            read[name] = float(value.get(name, getattr(cls, name)))
        return cls(**read)


class GeneratorNet(nn.Module, abc.ABC):
    """Latents and labels to pictures; `spec` says what it can do."""

    spec: GeneratorSpec
    # What psi truncates w towards: "labels", the mean w of the labels, or "global", that of all.
    truncation_centre: str = CENTRES[0]
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
        """Truncates w [N,K,W] with labels [N,L] towards the centre: 1 leaves it, 0 is the centre.

        Raises UsageError if the family has no W; the families with W have their own.
        """
        raise UsageError(f"{self.spec.family} has no W, which truncation needs")

    def noise_sides(self) -> list[int]:
        """Returns the side of each noise input, from the first layer on; [] without noise."""
        return []

    def style_weights(self) -> list[Tensor]:
        """Returns what a shift meets first: for each of the K rows of w a matrix [O,W].

        Without W one matrix [O,Z], of the first layer; [] where it is not known.
        """
        return []

    def track(self, w: Tensor) -> None:
        """Moves the running mean of w towards this batch's [W]; only the families with W do."""


class GeneratorWithoutW(GeneratorNet):
    """A generator that draws straight from its latent: psi truncates z towards its mean."""

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
        return self.pictures(truncate_z(z, psi, self.spec), labels)


class DiscriminatorNet(nn.Module, abc.ABC):
    """Pictures and labels to realness and label logits."""

    @abc.abstractmethod
    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges x [N,3,R,R] in [-1,1] with labels [N,L] -> adversarial [N], auxiliary [N,L].

        Both are float32, under autocast too: a logit of bfloat16 has 8 bits, and the difference of
        two fewer.
        A family without a label head returns an auxiliary of [N,0].
        """


class FeatureDiscriminatorNet(DiscriminatorNet):
    """Judges features of pictures that do not learn, so that one pass of a step serves D and G."""

    @abc.abstractmethod
    def features(self, images: Tensor) -> list[Tensor]:
        """Maps images [N,3,R,R] in [-1,1] to S maps; differentiable, and the same in each step."""

    @abc.abstractmethod
    def judge(
        self, features: list[Tensor], labels: Tensor, *, sets: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Judges maps with labels [N,L] -> adversarial [N,S], auxiliary [N,L], float32.

        sets: how many batches of equal size the rows are, one after the other; each is judged as if
        it were alone.
        """

    @abc.abstractmethod
    def summary(self, features: list[Tensor], labels: Tensor) -> Tensor:
        """Returns what the energy distance of pictures with labels is taken of [N,F], float32."""

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Judges x [N,3,R,R] with labels [N,L] -> adversarial [N,S], auxiliary [N,L]."""
        return self.judge(self.features(x), labels)


@dataclasses.dataclass(frozen=True)
class NetworkSize:
    """Requested sizes of G or D; a family reads those that mean something to it.

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


def truncate_z(z: Tensor, psi: float | Tensor, spec: GeneratorSpec) -> Tensor:
    """Truncates z [N,Z] towards its mean: psi 1 leaves it, 0 is the mean, for every row the same.

    N(0,1) has its mean at 0, so there z is scaled; U(0,1) has it at 0.5 of `spec.z_std`, and 0
    would be a corner that hardly any latent comes near.
    """
    if spec.z_dist == "normal":
        return z * psi
    if not isinstance(psi, Tensor):  # 1 - psi is to be rounded as in an exported program
        psi = torch.tensor(psi, dtype=torch.float32)
    return z * psi + 0.5 * spec.z_std * (1 - psi)


def _faults(value: dict[str, Any], cls: type[GeneratorSpec]) -> list[str]:
    optional = {
        field.name for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING
    }
    unknown = [
        f'"{shown(name)}" is unknown{nearest(name[:MAX_NAME], _WANTED)}'
        for name in value
        if name not in _WANTED
    ]
    needed = {n: kind for n, kind in _WANTED.items() if n in value or n not in optional}
    return unknown + fact_faults(value, needed)


def _is_count(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= 65_536


def _is_size(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= 1 << 20


def _is_layers(found: Any) -> bool:
    return _is_size(found) and found <= MAX_LAYERS


def _is_name(found: Any) -> bool:
    return isinstance(found, str) and 0 < len(found) <= MAX_NAME and found.isprintable()


def _is_labels(found: Any, at_most: int = MAX_LABELS) -> bool:
    return (
        isinstance(found, list)
        and len(found) <= at_most
        and all(_is_name(label) for label in found)
        and len(set(found)) == len(found)
    )


def _is_width(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and 0 < found <= 16


def _is_clamp(found: Any) -> bool:
    return (
        isinstance(found, int | float) and not isinstance(found, bool) and 0 <= found <= MAX_CLAMP
    )


def _is_bool(found: Any) -> bool:
    return isinstance(found, bool)


_WANTED: dict[str, Kind] = {
    "family": (_is_name, "a name"),
    "resolution_px": (_is_count, "a whole number from 1 to 65,536"),
    "z_dim": (_is_count, "a whole number from 1 to 65,536"),
    "z_dist": (
        lambda found: isinstance(found, str) and found in Z_DISTS,
        f"one of {', '.join(Z_DISTS)}",
    ),
    "labels": (_is_labels, f"a list of up to {MAX_LABELS:,} different names"),
    "width": (_is_width, "a number above 0 and up to 16"),
    "z_std": (_is_width, "a number above 0 and up to 16"),
    "blocks": (_is_layers, f"a whole number from 0 to {MAX_LAYERS}"),
    "channel_base": (_is_size, "a whole number from 0 to 1,048,576"),
    "channel_max": (_is_size, "a whole number from 0 to 1,048,576"),
    "w_dim": (_is_size, "a whole number from 0 to 1,048,576"),
    "mapping_layers": (_is_layers, f"a whole number from 0 to {MAX_LAYERS}"),
    "can_w": (_is_bool, "true or false"),
    "can_mixing": (_is_bool, "true or false"),
    "can_noise": (_is_bool, "true or false"),
    "conv_clamp": (_is_clamp, f"a number from 0 to {MAX_CLAMP:,}"),
    "trained_on_features": (
        lambda found: _is_labels(found, MAX_EXTRACTORS),
        f"a list of up to {MAX_EXTRACTORS} different names",
    ),
}
