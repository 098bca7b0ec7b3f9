"""Registered models as files: the exported program, the weights beside it, and both opened again.

`log_generator` exports a generator and logs it to MLflow as a pyfunc model; `version_files` finds
the files of a version, and `open_files` opens its weights or its program.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor, nn

from dataset.errors import RegistryError, UsageError
from dataset.store import Store
from models.families.base import GeneratorNet, Noise
from models.io.generators import (
    GENERATOR,
    SPEC,
    TRAIN,
    TYPICAL,
    WEIGHTS,
    load_generator,
    read_spec,
    typical_rows,
)
from models.labels import names_of
from models.registry.client import TrackingClient
from models.registry.model_uri import explained
from models.sampling.directions import DIRECTIONS, directions_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PROGRAM = "generator.pt2"
# By their names in the model. `predict` needs these; the first versions carried nothing else.
NEEDED = {"program": PROGRAM, "spec": SPEC, "typical": TYPICAL}
# With the weights, whoever has this repository can do all that the family can: W, mixing, noise.
FILES = {**NEEDED, "weights": WEIGHTS}
# Of a generator that was evaluated
OPTIONAL = {"directions": DIRECTIONS}
CODE = Path(__file__).with_name("pyfunc_model.py")
NAME = "generator"  # of the logged model
FOLDER = "omokage.folder"  # a version's tag: the training's folder under the home


class _Program(nn.Module):
    """The generator with psi as a tensor, so that the exported program takes any psi."""

    def __init__(self, generator: GeneratorNet) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, labels: Tensor, psi: Tensor) -> Tensor:
        images: Tensor = self.generator(z, labels, psi=psi)
        return images


def export_generator(folder: str, out: Path) -> Path:
    """Writes the program and a whole generator's files into `out` and returns that.

    The files are `spec.json`, `typical_labels.json` and `generator.safetensors`, so that `out` is
    itself a folder that `load_generator` takes; `directions.safetensors` too where they were found.
    The program takes z [N,Z], labels [N,L] and psi []
    and gives [N,3,R,R] in [-1,1], for any N.

    Raises TrainingError or StoreError if `folder` holds no whole generator.
    """
    generator = load_generator(folder)
    spec = generator.spec
    out.mkdir(parents=True, exist_ok=True)
    # A batch of 2 stands for any: torch specialises on a batch of 1.
    example = (torch.zeros(2, spec.z_dim), torch.zeros(2, len(spec.labels)), torch.tensor(1.0))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        _Program(generator), example, dynamic_shapes=({0: batch}, {0: batch}, None)
    )
    torch.export.save(program, out / PROGRAM)
    (out / WEIGHTS).write_bytes(safetensors.torch.save(generator.state_dict()))
    (out / SPEC).write_text(json.dumps(spec.to_json(), indent=2, sort_keys=True) + "\n")
    typical = [names_of(row, spec.labels) for row in typical_rows(folder, spec.labels)]
    (out / TYPICAL).write_text(json.dumps(typical) + "\n")
    if (directions := directions_of(folder, generator)) is not None:
        (out / DIRECTIONS).write_bytes(directions.to_bytes())
    return out


def log_generator(folder: str, *, run_id: str, tracking_uri: str = "", name: str = NAME) -> str:
    """Logs the generator of `folder` (path or URL) to the run and returns the model's URI.

    tracking_uri: the server, by default MLflow's own setting. The model lands in the run's
    experiment; the run is left as it is, running or ended. Raises RegistryError if MLflow refuses.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    try:
        import mlflow.pyfunc
    except ImportError as error:
        raise RegistryError(
            "registering a model needs MLflow, which is not installed here: pip install mlflow"
        ) from error
    import numpy as np
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    spec = load_generator(folder).spec
    side = spec.resolution_px
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "labels")]),
        outputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, side, side, 3))]),
        params=ParamSchema(
            [
                ParamSpec("seed", DataType.long, 0),
                ParamSpec("psi", DataType.double, 1.0),
                ParamSpec("n", DataType.long, 1),
                ParamSpec("labels", DataType.string, ""),
            ]
        ),
    )
    with tempfile.TemporaryDirectory(prefix="omokage-model-") as temporary:
        made = export_generator(folder, Path(temporary))
        uri = tracking_uri or mlflow.get_tracking_uri()
        with explained(uri, f"MLflow did not take the generator {folder}"):
            if tracking_uri:
                mlflow.set_tracking_uri(tracking_uri)
            client = mlflow.MlflowClient()
            run = client.get_run(run_id)
            # Model.log by itself would put it into the default experiment.
            model = client.create_logged_model(
                run.info.experiment_id, name=name, source_run_id=run_id, params=run.data.params
            )
            # pyfunc.log_model would take the active run, or start and end one of its own.
            logged = Model.log(
                artifact_path=None,
                flavor=mlflow.pyfunc,
                run_id=run_id,
                python_model=str(CODE),
                artifacts={
                    name: str(made / file)
                    for name, file in (FILES | OPTIONAL).items()
                    if name in FILES or (made / file).is_file()
                },
                signature=signature,
                input_example=pd.DataFrame({"labels": [",".join(spec.labels[:1])] * 2}),
                pip_requirements=[_pinned(package) for package in ("mlflow", "torch", "numpy")],
                model_id=model.model_id,
            )
    return str(logged.model_uri)


def _pinned(package: str) -> str:
    # Without a local part such as +cpu, which no index but torch's own knows.
    return f"{package}=={importlib.metadata.version(package).partition('+')[0]}"


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
