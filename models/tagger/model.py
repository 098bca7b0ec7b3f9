"""The tagger: pictures in, a calibrated probability for each label out; saved and loaded.

`LabelModel` is what can label faces: our own `Tagger` or a user's ONNX file. `TaggerConfig` has the
settings of a tagger's training, which its file holds too.
"""

import copy
import dataclasses
import hashlib
import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.errors import ConfigError, TrainingError, listed
from dataset.geometry import resized
from dataset.store import Store, digest_of
from dataset.vocabulary import sided
from models.config import digest_of_settings, is_device, limit_faults, read_overrides, setting
from models.io.safe_io import read_tensors, tensor_faults

Images = npt.NDArray[np.uint8]  # [N,S,S,3], RGB
Probabilities = npt.NDArray[np.float32]  # [N,L], 0 to 1
Logits = npt.NDArray[np.float32]  # [N,L]

WEIGHTS = "tagger.safetensors"
FACTS = "tagger.json"
CHUNK = 256  # pictures a pass
_NETWORK = "network."
_KIND = "omokage-tagger"
_VERSION = 1
_CHANNELS = (32, 64, 128, 192)


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


class LabelModel(Protocol):
    """Gives each label of each picture a probability."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of the columns."""

    @property
    def digest(self) -> str:
        """The sha256 over all that decides its answers."""

    @property
    def input_px(self) -> int:
        """The side that it sees pictures at."""

    def probabilities(self, images: Images) -> Probabilities:
        """Returns [N,L] for uint8 pictures [N,S,S,3]."""


def check_images(images: Images) -> None:
    """Raises TrainingError unless `images` are uint8 [N,S,S,3]."""
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise TrainingError(f"pictures are {images.dtype} {list(shape)}; uint8 [N,S,S,3] wanted")


class TaggerNet(nn.Module):
    """A small residual net: pictures [N,3,R,R] in [-1,1] to logits [N,L]; R is a multiple of 16.

    At width 1 and 64 px, L labels (channels are multiplied by `width`):

        stem   Conv 3 -> 32, k3 s2                      64 -> 32
        block  32 -> 32                                 32
        block  32 -> 64, s2                             32 -> 16
        block  64 -> 128, s2                            16 -> 8
        block  128 -> 192, s2                           8 -> 4
        head   mean and maximum over the places, joined [384], Linear 384 -> L

    A block is conv k3, batch norm, relu, conv k3, batch norm, added to its input (by a 1x1 conv
    after 2x2 means where the shape changes), relu. Mean and maximum are both needed: hair is
    everywhere, eyes are two small places. Parameters at width 1: 885,280 + 385·L.

    Source of the block: He et al. 2016, arXiv:1512.03385; means before the 1x1: He et al. 2019,
    arXiv:1812.01187.
    """

    def __init__(self, labels: int, *, width: float = 1.0) -> None:
        super().__init__()
        first, *others = (max(4, round(count * width)) for count in _CHANNELS)
        self.stem = nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(first)
        blocks = [Residual(first, first, stride=1)]
        for channels in others:
            blocks.append(Residual(first, channels, stride=2))
            first = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(2 * first, labels)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Judges pictures [N,3,R,R] in [-1,1] -> logits [N,L]."""
        x = F.relu(self.norm(self.stem(x)))
        x = self.blocks(x)
        features = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        logits: Tensor = self.head(features)
        return logits


class Residual(nn.Module):
    """Two 3x3 convolutions beside a short cut: [N,C,H,W] -> [N,C',H/stride,W/stride]."""

    def __init__(self, channels: int, made: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, made, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(made)
        self.conv2 = nn.Conv2d(made, made, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(made)
        nn.init.zeros_(self.norm2.weight)  # each block begins as its short cut
        self.stride = stride
        self.short = nn.Conv2d(channels, made, 1, bias=False) if channels != made else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's output."""
        short = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        if self.short is not None:
            short = self.short(short)
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + short)


def begin_at_frequency(network: TaggerNet, frequency: Tensor) -> None:
    """Sets the head's bias so that an untrained network says each label's frequency [L]."""
    logits = [math.log(f / (1 - f)) for f in frequency.double().clamp(1e-3, 1 - 1e-3).tolist()]
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor(logits))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Probability = 1 / (1 + e^-(slope·logit + shift)); slope > 0 and shift are [L]."""

    slope: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]

    def probabilities(self, logits: Logits) -> npt.NDArray[np.float32]:
        """Returns the probabilities [N,L] of logits [N,L], 0 to 1."""
        return sigmoid(logits.astype(np.float64) * self.slope + self.shift).astype(np.float32)


def none_for(labels: int) -> Calibration:
    """Returns the calibration that changes nothing."""
    return Calibration(np.ones(labels, np.float32), np.zeros(labels, np.float32))


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns 1 / (1 + e^-x) without overflow."""
    return np.exp(-np.logaddexp(0, -x))


@dataclasses.dataclass
class Tagger:
    """A network with its calibration.

    Attributes:
        network: in eval mode, on its device.
        label_names: column i of every result means label_names[i].
        calibration: slope and shift of each label's logit.
        config: the settings that it was trained with.
        facts: JSON about the training: data digest, rows, steps, seconds, scores.

    """

    network: TaggerNet
    label_names: tuple[str, ...]
    calibration: Calibration
    config: TaggerConfig
    facts: dict[str, Any]

    def __getstate__(self) -> dict[str, Any]:
        """Goes to another process on the CPU: there may be no GPU."""
        return {**vars(self), "network": copy.deepcopy(self.network).cpu()}

    @property
    def input_px(self) -> int:
        """The side that pictures are resized to."""
        return self.config.input_px

    @property
    def digest(self) -> str:
        """The sha256 over weights, calibration, label names and input size."""
        return _digest(safetensors.torch.save(self._tensors()), self.label_names, self.input_px)

    def probabilities(self, images: Images) -> Probabilities:
        """Returns the calibrated probability of each label [N,L] for uint8 pictures [N,S,S,3]."""
        return self.calibration.probabilities(self.logits(images))

    def raw_probabilities(self, images: Images) -> Probabilities:
        """Returns the network's own probabilities [N,L], before calibration."""
        return sigmoid(self.logits(images).astype(np.float64)).astype(np.float32)

    @torch.no_grad()
    def logits(self, images: Images) -> npt.NDArray[np.float32]:
        """Returns the network's logits [N,L] for uint8 pictures [N,S,S,3].

        The mean over picture and mirror image, unless a label tells left from right.
        """
        check_images(images)
        device = next(self.network.parameters()).device
        mirror = self.config.flip and not sided(self.label_names)
        found = [np.zeros((0, len(self.label_names)), np.float32)]
        for start in range(0, len(images), CHUNK):
            batch = scaled(at_side(images[start : start + CHUNK], self.input_px), device)
            logits = self.network(batch)
            if mirror:
                logits = (logits + self.network(batch.flip(3))) / 2
            found.append(logits.float().cpu().numpy())
        return np.concatenate(found)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes tagger.safetensors, then tagger.json, into a folder or fsspec URL."""
        store = Store(folder)
        content = safetensors.torch.save(self._tensors())
        store.write_bytes(WEIGHTS, content)
        store.write_json(
            FACTS,
            {
                "kind": _KIND,
                "version": _VERSION,
                "labels": list(self.label_names),
                "input_px": self.input_px,
                "sha256": hashlib.sha256(content).hexdigest(),
                "digest": _digest(content, self.label_names, self.input_px),
                "config": dataclasses.asdict(self.config),
                "facts": self.facts,
            },
        )

    def _tensors(self) -> dict[str, Tensor]:
        held = {f"{_NETWORK}{name}": t for name, t in self.network.state_dict().items()}
        held["calibration.slope"] = torch.from_numpy(self.calibration.slope)
        held["calibration.shift"] = torch.from_numpy(self.calibration.shift)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in held.items()}


def load(folder: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> Tagger:
    """Loads what `Tagger.save` wrote into a folder or fsspec URL.

    Raises StoreError if a file is not there, TrainingError naming the file and every fault: not
    ours, damaged, of another training, tensors that are missing, unknown, misshapen or not finite.
    """
    store = Store(folder)
    facts = _read_facts(store)
    content = store.read_bytes(WEIGHTS)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != facts["sha256"]:
        raise TrainingError(
            f"{store.url(WEIGHTS)} is damaged or of another training: its sha256 is "
            f"{sha256[:12]}…, {FACTS} says {facts['sha256'][:12]}…. Train the tagger again."
        )
    labels = tuple(facts["labels"])
    digest = _digest(content, labels, facts["input_px"])
    if digest != facts["digest"]:
        raise TrainingError(
            f"{store.url(FACTS)}: its labels or its input_px were changed: the digest is "
            f"{digest[:12]}…, {facts['digest'][:12]}… stands there. Train the tagger again."
        )
    config = TaggerConfig(**facts["config"])
    tensors = read_tensors(store, WEIGHTS)
    network = TaggerNet(len(labels), width=config.width)
    wanted = {f"{_NETWORK}{name}": t for name, t in network.state_dict().items()}
    wanted |= dict.fromkeys(("calibration.slope", "calibration.shift"), torch.ones(len(labels)))
    faults = tensor_faults(tensors, wanted)
    if faults:
        raise TrainingError(
            f"{store.url(WEIGHTS)} does not fit {FACTS}:\n{listed(faults)}\nTrain the tagger again."
        )
    held = {n.removeprefix(_NETWORK): t for n, t in tensors.items() if n.startswith(_NETWORK)}
    network.load_state_dict(held)
    slope, shift = (tensors[f"calibration.{name}"].numpy() for name in ("slope", "shift"))
    network = network.to(device).eval().requires_grad_(False)
    return Tagger(network, labels, Calibration(slope, shift), config, facts["facts"])


def at_side(images: Images, side_px: int) -> Images:
    """Resizes pictures [N,S,S,3] to [N,side,side,3], by area down and by Lanczos up."""
    if images.shape[1] == side_px:
        return images
    if not len(images):
        return np.zeros((0, side_px, side_px, 3), np.uint8)
    return np.stack([resized(image, side_px) for image in images])


def scaled(images: Images, device: torch.device) -> Tensor:
    """Turns uint8 [N,R,R,3] into float32 [N,3,R,R] in [-1,1], channels last in memory."""
    planes = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
    return planes.float().div(127.5).sub(1)


def _digest(content: bytes, labels: Sequence[str], input_px: int) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    return digest_of({"weights": sha256, "labels": list(labels), "input_px": input_px})


_WANTED: dict[str, tuple[type, str]] = {
    "labels": (list, "a list of names"),
    "input_px": (int, "a whole number"),
    "sha256": (str, "a digest"),
    "digest": (str, "a digest"),
    "config": (dict, "the settings"),
    "facts": (dict, "what is known of the training"),
}


def _read_facts(store: Store) -> dict[str, Any]:
    facts = store.read_json(FACTS)
    if not isinstance(facts, dict) or facts.get("kind") != _KIND:
        raise TrainingError(f'{store.url(FACTS)} is no tagger\'s: "kind": "{_KIND}" wanted')
    if facts.get("version") != _VERSION:
        raise TrainingError(
            f"{store.url(FACTS)} is of version {facts.get('version')!r}, {_VERSION} wanted. "
            "Train the tagger again."
        )
    faults = [
        f"{name} is {facts.get(name)!r}, {meaning} wanted"
        for name, (kind, meaning) in _WANTED.items()
        if not isinstance(facts.get(name), kind)
    ]
    known = {field.name for field in dataclasses.fields(TaggerConfig)}
    if not faults:
        faults = [f"config.{name} is unknown" for name in facts["config"] if name not in known]
    if faults:
        raise TrainingError(
            f"{store.url(FACTS)} has faults:\n{listed(faults)}\nTrain the tagger again."
        )
    return facts
