"""Opens a registered model's files as a generator: its weights, or its program without them."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset.errors import RegistryError, UsageError
from models.families.base import GeneratorNet, Noise
from models.io.generators import SPEC, WEIGHTS, load_generator, read_spec
from models.registered.export import NEEDED, PROGRAM


class OpenedGenerator(GeneratorNet):
    """The program of a registered model: it takes z, labels and psi, and has no w to be given.

    `can_less` says whether its family can do more than the program.
    """

    def __init__(self, folder: Path, *, device: str | torch.device = "cpu") -> None:
        """Loads `generator.pt2` and `spec.json`; raises RegistryError naming the file at fault."""
        super().__init__()
        spec = read_spec(_json(folder / SPEC), where=str(folder / SPEC))
        # The program draws from z alone: what the family could do besides did not come along.
        self.spec = dataclasses.replace(
            spec, can_w=False, can_mixing=False, can_noise=False, w_dim=0, mapping_layers=0
        )
        self.can_less = spec.can_w or spec.can_mixing or spec.can_noise
        self.program = _program(folder / PROGRAM, torch.device(device))

    def map(self, z: Tensor, labels: Tensor) -> Tensor | None:
        """Returns None: the program has no way to its W."""
        return None

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        psi: float | Tensor = 1.0,
        w: Tensor | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        """Draws [N,3,R,R] in [-1,1]; raises UsageError for a w or another noise than its own."""
        if w is not None or noise != "const":
            raise UsageError("a registered model draws from z, labels and psi alone")
        told = torch.as_tensor(psi, dtype=torch.float32)
        images: Tensor = self.program(z, labels, told)
        return images


def is_registered(folder: Path) -> bool:
    """Tells whether a folder is a registered model's, or holds its files itself."""
    return any((place / PROGRAM).is_file() for place in _places(folder))


def registered_files(folder: Path) -> Path:
    """Returns the folder of the program, `folder` or its `artifacts/`; raises RegistryError."""
    for place in _places(folder):
        missing = [name for name in NEEDED.values() if not (place / name).is_file()]
        if not missing:
            return place
        if PROGRAM not in missing:
            raise RegistryError(f"{place} is no whole model: {', '.join(missing)} is missing")
    raise RegistryError(
        f"{folder} holds no {PROGRAM}: it is no generator that `omokage` or the chain registered"
    )


def open_files(files: Path, *, device: str | torch.device = "cpu") -> GeneratorNet:
    """Opens what `registered_files` found: the whole generator, or the program of an old version.

    Versions that were registered before models carried their weights give an OpenedGenerator,
    which draws the same pictures and can do nothing else. Raises RegistryError or TrainingError
    naming the file at fault.
    """
    if (files / WEIGHTS).is_file():
        return load_generator(str(files), device=device)
    return OpenedGenerator(files, device=device).requires_grad_(False)


def _places(folder: Path) -> tuple[Path, Path]:
    return folder, folder / "artifacts"  # where MLflow puts a model's own files


def program_sha256(folder: Path) -> str:
    """Returns the sha256 of the program file: what names these weights."""
    return hashlib.sha256((folder / PROGRAM).read_bytes()).hexdigest()


def _program(path: Path, device: torch.device) -> torch.nn.Module:
    try:
        program = torch.export.load(path)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise RegistryError(f"{path} is no exported program: {error}") from error
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RegistryError(f"{path} is not JSON: {error}") from error
