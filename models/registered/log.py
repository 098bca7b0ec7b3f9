"""Logs a generator folder to an MLflow run as a model that loads without this repository."""

import importlib.metadata
import os
import tempfile
from pathlib import Path

from dataset.errors import RegistryError
from models.io.generators import load_generator
from models.registered.export import FILES, export_generator

CODE = Path(__file__).with_name("avatar_generator.py")
NAME = "generator"


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
    from mlflow.exceptions import MlflowException
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
        try:
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
                artifacts={name: str(made / file) for name, file in FILES.items()},
                signature=signature,
                input_example=pd.DataFrame({"labels": [",".join(spec.labels[:1])] * 2}),
                pip_requirements=[_pinned(package) for package in ("mlflow", "torch", "numpy")],
                model_id=model.model_id,
            )
        except MlflowException as error:
            raise RegistryError(f"MLflow did not take the generator {folder}: {error}") from error
    return str(logged.model_uri)


def _pinned(package: str) -> str:
    # Without a local part such as +cpu, which no index but torch's own knows.
    return f"{package}=={importlib.metadata.version(package).partition('+')[0]}"
