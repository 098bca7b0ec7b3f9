"""The settings of a tagger's training: one frozen value, and overrides by `key=value`."""

import dataclasses
import math

import torch

from dataset.errors import ConfigError, listed
from dataset.store import digest_of
from models.config import is_device, read_overrides

_SPEED_ONLY = ("threads", "device")  # settings that decide speed, not what is learnt


@dataclasses.dataclass(frozen=True)
class TaggerConfig:
    """All that decides what a tagger learns. Raises ConfigError naming each value out of range."""

    input_px: int = 64  # side that every picture is resized to
    width: float = 1.0  # multiplier of the channels; 1 is 0.9 M parameters
    batch: int = 64  # pictures a step
    total_kimg: float = 130.0  # thousands of pictures shown in all, at most
    max_passes: float = 30.0  # a small set is shown no more often than this
    lr: float = 3e-3  # AdamW's largest step size; it rises over a tenth, then falls to 0
    weight_decay: float = 0.05
    label_smoothing: float = 0.0  # 0.04 teaches 0.02 and 0.98: on real faces no gain (docs)
    flip: bool = True  # mirrored pictures; never with labels that tell left from right
    translate_frac: float = 0.08  # shifts by up to this part of the side
    scale_frac: float = 0.1  # enlarges or reduces by up to this part
    rotate_deg: float = 8.0
    brightness: float = 0.1  # light and contrast by up to this part; hue is never touched
    calibration_frac: float = 0.1  # part of the rows that fits the calibration, not the weights
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    threads: int = 0  # CPU threads, 0 = torch's own choice

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {getattr(self, name):g}; {low:g} to {high:g} wanted"
            for name, (low, high) in _RANGES.items()
            if not low <= getattr(self, name) <= high
        ]
        if self.input_px % 16:
            faults.append(f"input_px is {self.input_px}; a multiple of 16 wanted")
        if not is_device(self.device):
            faults.append(f'device is "{self.device}"; auto, cpu, cuda or cuda:N wanted')
        if faults:
            raise ConfigError(f"the tagger's settings do not fit:\n{listed(faults)}")

    @property
    def digest(self) -> str:
        """The sha256 of the settings that decide the result (not device and threads)."""
        values = dataclasses.asdict(self)
        for name in _SPEED_ONLY:
            values.pop(name)
        return digest_of(values)

    def steps(self, pictures: int) -> int:
        """Returns the steps of a training on so many pictures, at least 1."""
        shown = min(self.total_kimg * 1000, self.max_passes * pictures)
        return max(1, math.ceil(shown / self.batch))

    def torch_device(self) -> torch.device:
        """Returns the device; raises ConfigError if it is not on this machine."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f'device is "{self.device}", but torch finds no GPU here; use cpu.')
        return torch.device(self.device)


def overridden(config: TaggerConfig, overrides: list[str]) -> TaggerConfig:
    """Returns `config` with `key=value` overrides; raises ConfigError naming each wrong one."""
    heading = "the tagger's settings do not fit"
    values = read_overrides(TaggerConfig, overrides, heading=heading)
    return dataclasses.replace(config, **values)


_RANGES: dict[str, tuple[float, float]] = {
    "input_px": (32, 512),
    "width": (0.1, 8),
    "batch": (2, 65_536),
    "total_kimg": (0.01, 1e6),
    "max_passes": (0.1, 1e4),
    "lr": (1e-6, 1),
    "weight_decay": (0, 10),
    "label_smoothing": (0, 0.5),
    "translate_frac": (0, 0.5),
    "scale_frac": (0, 0.5),
    "rotate_deg": (0, 45),
    "brightness": (0, 0.5),
    "calibration_frac": (0.01, 0.5),
    "seed": (0, 2**31 - 1),
    "threads": (0, 1024),
}
