"""The settings of a training: one frozen value, presets of it, and overrides by `key=value`."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dataset.errors import ConfigError, listed, nearest
from dataset.store import digest_of
from models.families import BY_CHANNELS, BY_WIDTH, Family, family_of
from models.families.base import NetworkSize
from models.training.losses import LOSSES

PRECISIONS = ("auto", "fp32", "bf16")
_SPEED_ONLY = ("threads", "device")  # settings that decide speed, not what is learnt


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All that decides what a training learns, and how often it speaks and saves."""

    family: str = "dcgan64"
    resolution_px: int = 64
    # Sizes of the networks; each family reads those that its table counts by.
    g_width: float = 1.0  # multiplier of G's channels, 1 = the family's table
    d_width: float = 1.0  # the same for D
    blocks: int = 16  # residual blocks of G
    g_channel_base: int = 16_384  # G's layer at side s has min(this / s, channel_max) channels
    d_channel_base: int = 16_384
    channel_max: int = 512
    w_dim: int = 512  # numbers in z and in w
    mapping_layers: int = 8
    # How long, and by which optimiser.
    batch: int = 64  # pictures a step, over all processes
    total_kimg: float = 1000.0  # thousands of real pictures shown in all
    max_minutes: float = 0.0  # end after so much training time at the latest, 0 = no such end
    lr_g: float = 2e-4  # Adam's step size for G
    lr_d: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.99
    adam_eps: float = 1e-8  # added to the root of Adam's second moment
    d_steps: int = 1  # steps of D for each of G
    ema_kimg: float = 2.0  # half-life of the averaged generator
    # Losses and penalties.
    loss: str = "ns"  # a name in models.training.losses.LOSSES
    g_label_weight: float = 1.0  # λ of the label loss that G minimises on fakes
    d_label_weight: float = 1.0  # λ of the label loss that D minimises on reals
    clip: float = 0.01  # D's weights stay within ± this under loss wgan
    gp_weight: float = 10.0  # weight of the gradient penalty of the losses wgan-gp and dragan
    r1_gamma: float = 1.0  # weight of the gradient penalty on reals, 0 = none
    r2_gamma: float = 0.0  # the same on fakes
    r1_every: int = 4  # steps between R1 and R2 penalties; each is then weighted by this number
    pl_weight: float = 0.0  # weight of the path length penalty, 0 = none; needs W
    pl_every: int = 4  # steps between path length penalties, weighted likewise
    mixing: float = 0.0  # share of fakes drawn with two w, crossed over at a random layer
    # What is done to reals and fakes before D sees them. Hue is never touched.
    flip: bool = True  # mirror half of the reals; wrong where labels tell left from right
    translate_px: int = 0  # shift by up to this both ways
    scale_frac: float = 0.0  # grow or shrink by up to this share
    rotate_deg: float = 0.0  # turn by up to this both ways
    aug_p: float = 1.0  # chance of each of the three; where ada_target is set, the first value
    ada_target: float = 0.0  # mean sign of D on reals that aug_p is steered to, 0 = aug_p stays
    ada_kimg: float = 100.0  # thousands of pictures in which aug_p can go from 0 to 1
    # How it is computed.
    precision: str = "auto"  # fp32, bf16, or auto: bf16 on GPUs that have it
    compile: bool = False  # compile the steps, after a check of their gradients
    # What is told and kept.
    tick_kimg: float = 1.0  # between lines of progress
    snapshot_kimg: float = 100.0  # between checkpoints and sample grids
    keep_checkpoints: int = 2  # the newest, and beside them the one of the best score
    score_pictures: int = 0  # fakes that each snapshot's Fréchet distance is measured on, 0 = none
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    threads: int = 0  # CPU threads, 0 = torch's own choice

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, at least 1."""
        return self.steps_of(self.total_kimg)

    @property
    def images_a_step(self) -> int:
        """Reals that D sees for each step of G."""
        return self.batch * self.d_steps

    def steps_of(self, kimg: float) -> int:
        """Returns how many steps show `kimg` thousand pictures, at least 1."""
        return max(1, math.ceil(kimg * 1000 / self.images_a_step))

    @property
    def digest(self) -> str:
        """The sha256 of the settings that decide the result (not device and threads)."""
        values = dataclasses.asdict(self)
        for name in _SPEED_ONLY:
            values.pop(name)
        return digest_of(values)

    def g_size(self) -> NetworkSize:
        """Returns the sizes of G."""
        return self._size(self.g_width, self.g_channel_base)

    def d_size(self) -> NetworkSize:
        """Returns the sizes of D."""
        return self._size(self.d_width, self.d_channel_base)

    def _size(self, width: float, channel_base: int) -> NetworkSize:
        return NetworkSize(
            resolution_px=self.resolution_px,
            width=width,
            blocks=self.blocks,
            channel_base=channel_base,
            channel_max=self.channel_max,
            w_dim=self.w_dim,
            mapping_layers=self.mapping_layers,
        )


def overridden(config: TrainConfig, overrides: list[str]) -> TrainConfig:
    """Returns `config` with `key=value` overrides; raises ConfigError naming each wrong one."""
    return checked(
        dataclasses.replace(
            config, **read_overrides(TrainConfig, overrides, heading="--set does not fit")
        )
    )


def checked(config: TrainConfig) -> TrainConfig:
    """Returns `config` if every value is in its range, else raises ConfigError naming them all."""
    family = family_of(config.family)
    faults = [*_unfit_values(config), *_unfit_family(config, family)]
    if faults:
        raise ConfigError(f"the settings do not fit:\n{listed(faults)}")
    return config


def _unfit_values(config: TrainConfig) -> Iterator[str]:
    if config.loss not in LOSSES:
        known = ", ".join(LOSSES)
        yield f'loss is "{config.loss}"{nearest(config.loss, LOSSES)}; {known} wanted'
    if config.precision not in PRECISIONS:
        yield f'precision is "{config.precision}"; {", ".join(PRECISIONS)} wanted'
    if not is_device(config.device):
        yield f'device is "{config.device}"; auto, cpu, cuda or cuda:N wanted'
    for name, (low, high) in _RANGES.items():
        value = getattr(config, name)
        if not low <= value <= high:
            yield f"{name} is {value:g}; {low:g} to {high:g} wanted"


def _unfit_family(config: TrainConfig, family: Family) -> Iterator[str]:
    if config.resolution_px not in family.resolutions_px:
        able = ", ".join(map(str, family.resolutions_px))
        yield f"resolution_px is {config.resolution_px}; {config.family} draws {able}"
    if not family.has_w:
        for name in ("pl_weight", "mixing"):
            if getattr(config, name) > 0:
                yield f"{name} is {getattr(config, name):g}; {config.family} has no W, 0 wanted"
    for name, usual in _SIZES.items():
        if name not in family.sizes and getattr(config, name) != usual:
            able = ", ".join(family.sizes)
            yield f"{name} means nothing to {config.family}, whose sizes are {able}"


def from_json(values: dict[str, Any]) -> TrainConfig:
    """Reads the `config` of a `train.json` or checkpoint; raises ConfigError for unknown keys."""
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ConfigError(f"settings of another version: {', '.join(unknown)} unknown here")
    return checked(TrainConfig(**values))


_RANGES: dict[str, tuple[float, float]] = {
    "g_width": (0.01, 16),
    "d_width": (0.01, 16),
    "blocks": (1, 64),
    "g_channel_base": (16, 1 << 20),
    "d_channel_base": (16, 1 << 20),
    "channel_max": (1, 4096),
    "w_dim": (1, 4096),
    "mapping_layers": (1, 16),
    "batch": (2, 65_536),
    "total_kimg": (0.001, 1e7),
    "max_minutes": (0, 1e6),
    "lr_g": (0, 1),
    "lr_d": (0, 1),
    "beta1": (0, 0.9999),
    "beta2": (0, 0.99999),
    "adam_eps": (0, 1),
    "d_steps": (1, 100),
    "ema_kimg": (0.001, 1e5),
    "g_label_weight": (0, 1000),
    "d_label_weight": (0, 1000),
    "clip": (1e-6, 100),
    "gp_weight": (0, 1000),
    "r1_gamma": (0, 1e4),
    "r2_gamma": (0, 1e4),
    "r1_every": (1, 1000),
    "pl_weight": (0, 1000),
    "pl_every": (1, 1000),
    "mixing": (0, 1),
    "translate_px": (0, 32),
    "scale_frac": (0, 0.5),
    "rotate_deg": (0, 45),
    "aug_p": (0, 1),
    "ada_target": (0, 1),
    "ada_kimg": (0.001, 1e5),
    "tick_kimg": (0.001, 1e5),
    "snapshot_kimg": (0.001, 1e6),
    "keep_checkpoints": (1, 1000),
    "score_pictures": (0, 1_000_000),
    "seed": (0, 2**31 - 1),
    "threads": (0, 1024),
}

_SIZES: dict[str, Any] = {
    field.name: field.default
    for field in dataclasses.fields(TrainConfig)
    if field.name in {*BY_WIDTH, *BY_CHANNELS, "blocks"}
}


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_overrides(
    settings: type[Any], overrides: Sequence[str], *, heading: str
) -> dict[str, Any]:
    """Returns the values of `key=value` texts for fields of the dataclass `settings`.

    Raises ConfigError, under `heading`, naming each text that is no key=value, each unknown key
    with the nearest right one, and each value that is none of its field's type.
    """
    kinds: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(settings)}
    values: dict[str, Any] = {}
    faults = []
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            faults.append(f'"{text}" is no key=value, such as batch=32')
        elif name not in kinds:
            faults.append(f'"{name}" is unknown{nearest(name, kinds)}')
        else:
            read, wanted = _READERS[kinds[name]]
            try:
                values[name] = read(value)
            except ValueError:
                faults.append(f'{name} is "{value}", {wanted} wanted')
    if faults:
        raise ConfigError(f"{heading}:\n{listed(faults)}")
    return values


def is_device(text: str) -> bool:
    """Tells whether a text names a device: auto, cpu, cuda or cuda:N."""
    return text in ("auto", "cpu", "cuda") or (text[:5] == "cuda:" and text[5:].isdigit())


def _read_bool(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    bool: (_read_bool, "true or false"),
    int: (int, "a whole number"),
    float: (_read_float, "a number"),
    str: (str, "a text"),
}
