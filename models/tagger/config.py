"""The settings of a tagger's training: one frozen value, and overrides by `key=value`."""

import dataclasses
import math

import torch

from dataset.errors import ConfigError, listed
from models.config import digest_of_settings, is_device, limit_faults, read_overrides, setting


@dataclasses.dataclass(frozen=True)
class TaggerConfig:
    """All that decides what a tagger learns. Raises ConfigError naming each value out of range."""

    input_px: int = setting(64, "side that every picture is resized to", (32, 512), "px")
    width: float = setting(1.0, "multiplier of the channels; 1 is 0.9 M parameters", (0.1, 8))
    batch: int = setting(64, "pictures per step", (2, 65_536))
    total_kimg: float = setting(130.0, "pictures shown in all, at most", (0.01, 1e6), "kimg")
    max_passes: float = setting(30.0, "a small set is shown no more often than this", (0.1, 1e4))
    lr: float = setting(
        3e-3, "AdamW's largest step size; it rises over a tenth, then falls to 0", (1e-6, 1)
    )
    weight_decay: float = setting(0.05, "AdamW's", (0, 10))
    label_smoothing: float = setting(
        0.0, "0.04 teaches 0.02 and 0.98: on real faces no gain (docs)", (0, 0.5)
    )
    flip: bool = setting(True, "mirror pictures; never with labels that tell left from right")
    translate_frac: float = setting(0.08, "shift by up to this part of the side", (0, 0.5))
    scale_frac: float = setting(0.1, "enlarge or reduce by up to this part", (0, 0.5))
    rotate_deg: float = setting(8.0, "rotate by up to this both ways", (0, 45), "deg")
    brightness: float = setting(
        0.1, "light and contrast by up to this part; hue is never touched", (0, 0.5)
    )
    calibration_frac: float = setting(
        0.1, "part of the rows that fits the calibration, not the weights", (0.01, 0.5)
    )
    seed: int = setting(0, "of weights, data order and augmentation", (0, 2**31 - 1))
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    threads: int = setting(0, "CPU threads, 0 = torch's own choice", (0, 1024))

    def __post_init__(self) -> None:
        faults = [*limit_faults(self)]
        if self.input_px % 16:
            faults.append(f"input_px is {self.input_px}; a multiple of 16 wanted")
        if not is_device(self.device):
            faults.append(f'device is "{self.device}"; auto, cpu, cuda or cuda:N wanted')
        if faults:
            raise ConfigError(f"the tagger's settings do not fit:\n{listed(faults)}")

    @property
    def digest(self) -> str:
        """The sha256 of the settings that decide the result (not device and threads)."""
        return digest_of_settings(self)

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
