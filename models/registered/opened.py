"""Opens a registered model's files as a generator: the exported program behind our interface."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset.errors import RegistryError, UsageError
from models.generators import SPEC, read_spec
from models.networks import GeneratorNet, Noise
from models.registered.export import FILES, PROGRAM


class OpenedGenerator(GeneratorNet):
    """The program of a registered model: it takes z, labels and psi, and has no w to be given."""

    def __init__(self, folder: Path, *, device: str | torch.device = "cpu") -> None:
        """Loads `generator.pt2` and `spec.json`; raises RegistryError naming the file at fault."""
        super().__init__()
        spec = read_spec(_json(folder / SPEC), where=str(folder / SPEC))
        # The program draws from z alone: what the family could do besides did not come along.
        self.spec = dataclasses.replace(
            spec, can_w=False, can_mixing=False, can_noise=False, w_dim=0, mapping_layers=0
        )
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
    """Tells whether a folder holds a registered model's files, at any depth."""
    return bool(list(folder.rglob(PROGRAM)))


def registered_files(folder: Path) -> Path:
    """Returns the folder in `folder` that holds the program; raises RegistryError if none does."""
    found = sorted(folder.rglob(PROGRAM))
    missing = [name for name in FILES.values() if found and not (found[0].parent / name).exists()]
    if not found or missing:
        raise RegistryError(
            f"{folder} holds no generator of ours: {', '.join(missing) or PROGRAM} is not there. "
            "Was the model registered by `omokage` or by the chain?"
        )
    return found[0].parent


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
