"""Loads registered models: finds a version's files and opens its weights or its program."""

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dataset.errors import RegistryError, UsageError
from dataset.store import Store
from models.families.base import GeneratorNet, Noise
from models.io.generators import GENERATOR, SPEC, TRAIN, WEIGHTS, load_generator, read_spec
from models.registry.client import TrackingClient
from models.registry.export import NEEDED, PROGRAM

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

FOLDER = "omokage.folder"  # a version's tag: the training's folder under the home


class ProgramGenerator(GeneratorNet):
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
        scale = torch.as_tensor(psi, dtype=torch.float32)
        images: Tensor = self.program(z, labels, scale)
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

    Versions that were registered before models carried their weights give an ProgramGenerator,
    which draws the same pictures and can do nothing else. Raises RegistryError or TrainingError
    naming the file at fault.
    """
    if (files / WEIGHTS).is_file():
        return load_generator(str(files), device=device)
    return ProgramGenerator(files, device=device).requires_grad_(False)


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


@dataclass(frozen=True)
class VersionFiles:
    """Files that can be drawn with and measured; `folder` is under the home or absolute."""

    folder: str
    is_training: bool  # the training itself; else a copy that the registry gave


def training_folder(store: Store, version: "ModelVersion") -> str | None:
    """Returns the folder of a version's training, None if it is not whole under this home."""
    folder: str = version.tags.get(FOLDER, "")
    return folder if folder and store.exists(f"{folder}/{GENERATOR}/{TRAIN}") else None


@contextlib.contextmanager
def version_files(
    store: Store, tracking: TrackingClient, version: "ModelVersion"
) -> Iterator[VersionFiles]:
    """Yields a version's files: of its training, or of the model as registered, for the block.

    Another home, or another machine, may have trained the version; what the registry keeps draws
    the same. Raises RegistryError if MLflow does not give it.
    """
    folder = training_folder(store, version)
    if folder is not None:
        yield VersionFiles(folder, is_training=True)
        return
    with tempfile.TemporaryDirectory(prefix="omokage-model-") as place:
        uri = f"models:/{tracking.model}/{version.version}"
        yield VersionFiles(str(tracking.fetch_model(uri, Path(place))), is_training=False)
