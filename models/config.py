"""The settings of a training: one frozen value, presets of it, and overrides by `key=value`."""

import dataclasses
import math
from typing import Any

import torch

from dataset.errors import ConfigError, listed, nearest
from dataset.store import digest_of
from models.families import family_of
from models.losses import ADVERSARIAL

_SPEED_ONLY = ("threads", "device")  # settings that decide speed, not what is learnt


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """All that decides what a training learns, and how often it speaks and saves."""

    family: str = "dcgan64"
    resolution_px: int = 64
    g_width: float = 1.0  # multiplier of G's channels, 1 = the family's table
    d_width: float = 1.0  # the same for D
    batch: int = 64  # pictures a step
    total_kimg: float = 1000.0  # thousands of real pictures shown in all
    lr_g: float = 2e-4  # Adam's step size for G
    lr_d: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.99
    loss: str = "ns"  # a name in models.losses.ADVERSARIAL
    r1_gamma: float = 1.0  # weight of the gradient penalty on reals, 0 = none
    r1_every: int = 4  # steps between penalties; each is then weighted by this number
    g_label_weight: float = 1.0  # λ of the label loss that G minimises on fakes
    d_label_weight: float = 1.0  # λ of the label loss that D minimises on reals
    ema_kimg: float = 2.0  # half-life of the averaged generator
    flip: bool = True  # mirror half of the reals; wrong where labels tell left from right
    translate_px: int = 0  # reals and fakes shift by up to this before D sees them
    tick_kimg: float = 1.0  # between lines of progress
    snapshot_kimg: float = 100.0  # between checkpoints and sample grids
    keep_checkpoints: int = 2
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    threads: int = 0  # CPU threads, 0 = torch's own choice

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, at least 1."""
        return self.steps_of(self.total_kimg)

    def steps_of(self, kimg: float) -> int:
        """Returns how many steps show `kimg` thousand pictures, at least 1."""
        return max(1, math.ceil(kimg * 1000 / self.batch))

    @property
    def digest(self) -> str:
        """The sha256 of the settings that decide the result (not device and threads)."""
        values = dataclasses.asdict(self)
        for name in _SPEED_ONLY:
            values.pop(name)
        return digest_of(values)

    def torch_device(self) -> torch.device:
        """Returns the device; raises ConfigError if it is not on this machine."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f'device is "{self.device}", but torch finds no GPU here; use cpu.')
        return torch.device(self.device)


PRESETS: dict[str, TrainConfig] = {
    # A few minutes on two cores, no GPU. What counts there is the number of steps and a D that
    # keeps up: G at a quarter of its width costs a sixteenth, and D at half its width left grain.
    "demo": TrainConfig(
        g_width=0.25,
        d_width=0.75,
        batch=32,
        total_kimg=100.0,  # 4 minutes on two idle cores: 443 pictures a second
        lr_g=5e-4,
        lr_d=1e-3,
        r1_gamma=0.3,
        translate_px=3,
        snapshot_kimg=10.0,
    ),
    # The family's own table, for a GPU or a night.
    "dcgan64": TrainConfig(),
    # Seconds: for tests and for trying out the wiring; draws nothing worth seeing.
    "smoke": TrainConfig(
        g_width=0.05,
        d_width=0.1,
        batch=8,
        total_kimg=0.16,
        tick_kimg=0.04,
        snapshot_kimg=0.08,
        ema_kimg=0.05,
    ),
}


def preset(name: str, overrides: list[str] | None = None) -> TrainConfig:
    """Returns a preset with `key=value` overrides; raises ConfigError naming each wrong one."""
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise ConfigError(f'unknown preset "{name}"{nearest(name, PRESETS)}. Presets: {known}.')
    return checked(dataclasses.replace(PRESETS[name], **_parsed(overrides or [])))


def checked(config: TrainConfig) -> TrainConfig:
    """Returns `config` if every value is in its range, else raises ConfigError naming them all."""
    faults = []
    family = family_of(config.family)
    if config.resolution_px not in family.resolutions_px:
        able = " or ".join(map(str, family.resolutions_px))
        faults.append(f"resolution_px is {config.resolution_px}; {config.family} draws {able}")
    if config.loss not in ADVERSARIAL:
        known = ", ".join(ADVERSARIAL)
        faults.append(f'loss is "{config.loss}"{nearest(config.loss, ADVERSARIAL)}; {known} wanted')
    if not _is_device(config.device):
        faults.append(f'device is "{config.device}"; auto, cpu, cuda or cuda:N wanted')
    for name, (low, high) in _RANGES.items():
        value = getattr(config, name)
        if not low <= value <= high:
            faults.append(f"{name} is {value:g}; {low:g} to {high:g} wanted")
    if faults:
        raise ConfigError(f"the settings do not fit:\n{listed(faults)}")
    return config


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
    "batch": (2, 65_536),
    "total_kimg": (0.001, 1e7),
    "lr_g": (0, 1),
    "lr_d": (0, 1),
    "beta1": (0, 0.9999),
    "beta2": (0, 0.99999),
    "r1_gamma": (0, 1e4),
    "r1_every": (1, 1000),
    "g_label_weight": (0, 1000),
    "d_label_weight": (0, 1000),
    "ema_kimg": (0.001, 1e5),
    "translate_px": (0, 32),
    "tick_kimg": (0.001, 1e5),
    "snapshot_kimg": (0.001, 1e6),
    "keep_checkpoints": (1, 1000),
    "seed": (0, 2**31 - 1),
    "threads": (0, 1024),
}


def _is_device(text: str) -> bool:
    return text in ("auto", "cpu", "cuda") or (text[:5] == "cuda:" and text[5:].isdigit())


def _parsed(overrides: list[str]) -> dict[str, Any]:
    kinds = {field.name: field.type for field in dataclasses.fields(TrainConfig)}
    values: dict[str, Any] = {}
    faults = []
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            faults.append(f'"{text}" is no key=value, such as batch=32')
        elif name not in kinds:
            faults.append(f'"{name}" is unknown{nearest(name, kinds)}')
        else:
            try:
                values[name] = _READERS[kinds[name]](value)
            except ValueError:
                faults.append(f'{name} is "{value}", {_WORDS[kinds[name]]} wanted')
    if faults:
        raise ConfigError(f"--set does not fit:\n{listed(faults)}")
    return values


def _read_bool(text: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_READERS: dict[Any, Any] = {bool: _read_bool, int: int, float: _read_float, str: str}
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}
