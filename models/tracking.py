"""MLflow for the trainer: logs to the run that the environment names, or to nothing.

The run is made and ended by whoever started the trainer; MLFLOW_TRACKING_URI and MLFLOW_RUN_ID say
where it is. MLflow need not be installed.
"""

import io
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from dataset.errors import RegistryError

IMAGES = "images"  # where MLflow keeps series of pictures among a run's artifacts
STEP = "images_seen"  # the metric that is the step of all others
# A tick's short names in the words of a chart's title.
TITLES = {
    "d": "d_loss",
    "g": "g_loss",
    "d_labels": "d_label_loss",
    "g_labels": "g_label_loss",
    "r1": "r1_penalty",
    "r2": "r2_penalty",
    "slope": "slope_penalty",
    "path": "path_penalty",
}
_NOT_SENT = ("kimg",)  # it says what the step says


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
    """Logs to one MLflow run; an outage after the start is told once and does not stop training.

    MLflow cannot take a number back, and keeps every one that it is sent. A training that was
    killed goes on from its last checkpoint and does the ticks since then once more; those that the
    run holds already are not sent again, so that each step stands there once. progress.jsonl, which
    can be cut, holds the second time's.
    """

    def __init__(self, run_id: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("DO_NOT_TRACK", "true")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
        self._run_id, self._error = run_id, MlflowException
        self._lost = 0
        try:
            known = self._client.get_run(run_id).data
            self._pictures = set(map(_series_and_step, self._picture_names()))
        except MlflowException as error:
            uri = os.environ["MLFLOW_TRACKING_URI"]
            raise RegistryError(f"no MLflow run {run_id} at {uri}: {error}") from error
        self._params: dict[str, str] = known.params
        self._last_step = int(known.metrics.get(f"train/{STEP}", -1))

    def params(self, values: dict[str, Any]) -> None:
        """Logs settings; those that an earlier start of the run logged stand already.

        MLflow never changes a parameter. What is another now (the commit, the length) becomes a tag
        `resumed.<name>`, beside the value that the run began with.
        """
        from mlflow.entities import Param, RunTag

        texts = {name: str(value) for name, value in values.items()}
        rows = [Param(name, text) for name, text in texts.items() if name not in self._params]
        tags = [
            RunTag(f"resumed.{name}", text)
            for name, text in texts.items()
            if self._params.get(name, text) != text
        ]
        if rows or tags:
            self._sent(lambda: self._client.log_batch(self._run_id, params=rows, tags=tags))
        self._params |= {row.key: row.value for row in rows}

    def metrics(self, values: dict[str, float]) -> None:
        """Logs metrics at the pictures seen, under `train/`, unless the run has come further.

        Losses get the names of TITLES.
        """
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), int(values[STEP])
        if step <= self._last_step:
            return
        rows = [
            Metric(f"train/{TITLES.get(name, name)}", value, now, step)
            for name, value in values.items()
            if name not in _NOT_SENT
        ]
        self._sent(lambda: self._client.log_batch(self._run_id, metrics=rows))

    def image(self, name: str, png: bytes, images_seen: int) -> None:
        """Logs a picture at the pictures seen, as one of the series `name`, once."""
        if (name, images_seen) in self._pictures:
            return
        with Image.open(io.BytesIO(png)) as picture:
            picture.load()
        self._sent(
            lambda: self._client.log_image(self._run_id, picture, key=name, step=images_seen)
        )

    def _picture_names(self) -> list[str]:
        return [Path(file.path).name for file in self._client.list_artifacts(self._run_id, IMAGES)]

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


def _series_and_step(name: str) -> tuple[str, int]:
    """Reads a logged picture's name, `samples+step+160+timestamp+…`; ("", -1) if it is none."""
    found = re.match(r"(.+)[+%]step[+%](\d+)[+%]timestamp[+%]", name)
    return (found[1], int(found[2])) if found else ("", -1)


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
