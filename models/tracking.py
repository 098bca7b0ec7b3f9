"""MLflow for the trainer: logs to the run that the environment names, or to nothing.

The run is made and ended by whoever started the trainer; MLFLOW_TRACKING_URI and MLFLOW_RUN_ID say
where it is. MLflow need not be installed.
"""

import io
import os
import sys
import time
from typing import Any, Protocol

from PIL import Image

from dataset.errors import RegistryError


class Tracker(Protocol):
    """Takes settings once and metrics at each tick."""

    def params(self, values: dict[str, Any]) -> None:
        """Logs settings."""

    def metrics(self, values: dict[str, float]) -> None:
        """Logs metrics at `values["images_seen"]`, under `train/`."""

    def image(self, name: str, png: bytes, images_seen: int) -> None:
        """Logs a picture as the next of the series `name`."""


class NoTracker:
    """Logs nothing."""

    def params(self, values: dict[str, Any]) -> None:
        """Does nothing."""

    def metrics(self, values: dict[str, float]) -> None:
        """Does nothing."""

    def image(self, name: str, png: bytes, images_seen: int) -> None:
        """Does nothing."""


class MlflowTracker:
    """Logs to one MLflow run; an outage after the start is told once and does not stop training."""

    def __init__(self, run_id: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("DO_NOT_TRACK", "true")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
        self._run_id, self._error = run_id, MlflowException
        self._lost = 0
        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            uri = os.environ["MLFLOW_TRACKING_URI"]
            raise RegistryError(f"no MLflow run {run_id} at {uri}: {error}") from error

    def params(self, values: dict[str, Any]) -> None:
        """Logs settings; those of an earlier start of the same run may stand already."""
        from mlflow.entities import Param

        rows = [Param(name, str(value)) for name, value in values.items()]
        self._sent(lambda: self._client.log_batch(self._run_id, params=rows))

    def metrics(self, values: dict[str, float]) -> None:
        """Logs metrics at the pictures seen, under `train/`."""
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), int(values["images_seen"])
        rows = [Metric(f"train/{name}", value, now, step) for name, value in values.items()]
        self._sent(lambda: self._client.log_batch(self._run_id, metrics=rows))

    def image(self, name: str, png: bytes, images_seen: int) -> None:
        """Logs a picture at the pictures seen, as one of the series `name`."""
        with Image.open(io.BytesIO(png)) as picture:
            picture.load()
        self._sent(
            lambda: self._client.log_image(self._run_id, picture, key=name, step=images_seen)
        )

    def _sent(self, send: Any) -> None:
        try:
            send()
        except self._error as error:
            self._lost += 1
            if self._lost == 1:
                print(
                    f"MLflow did not take the numbers ({error}); they are in progress.jsonl",
                    file=sys.stderr,
                )


def tracker_from_environment() -> Tracker:
    """Returns an MlflowTracker if the environment names a run and MLflow is installed.

    Raises RegistryError if the named run cannot be reached.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id or not os.environ.get("MLFLOW_TRACKING_URI"):
        return NoTracker()
    try:
        # Not `import mlflow`: without the package, that finds the folder of this name in the root.
        from mlflow import MlflowClient  # noqa: F401
    except ImportError:
        print("MLflow is not installed here: numbers go to progress.jsonl only", file=sys.stderr)
        return NoTracker()
    return MlflowTracker(run_id)
