"""Exports a generator as a program and weights, and logs them to MLflow as a pyfunc model."""

import importlib.metadata
import json
import os
import tempfile
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from dataset.errors import RegistryError
from models.families.base import GeneratorNet
from models.io.generators import SPEC, TYPICAL, WEIGHTS, load_generator, typical_rows
from models.labels import names_of
from models.registry.model_uri import explained
from models.sampling.directions import DIRECTIONS, directions_of

PROGRAM = "generator.pt2"
# By their names in the model. `predict` needs these; the first versions carried nothing else.
NEEDED = {"program": PROGRAM, "spec": SPEC, "typical": TYPICAL}
# With the weights, whoever has this repository can do all that the family can: W, mixing, noise.
FILES = {**NEEDED, "weights": WEIGHTS}
# Of a generator that was evaluated
OPTIONAL = {"directions": DIRECTIONS}
CODE = Path(__file__).with_name("pyfunc_model.py")
NAME = "generator"  # of the logged model


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
