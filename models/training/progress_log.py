"""Where a training's numbers go: the terminal, progress.jsonl, MLflow and the orchestrator.

Whoever started the trainer makes and ends the MLflow run; MLFLOW_TRACKING_URI and MLFLOW_RUN_ID say
where it is. MLflow need not be installed.
"""

import contextlib
import io
import json
import logging
import math
import os
import re
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from PIL import Image
from torch import Tensor

from dataset.errors import TrainingError
from dataset.progress import progress_stream
from dataset.store import Store
from models.config import TrainConfig
from models.io.entry_point import Report
from models.io.safe_io import is_number
from models.registry.model_uri import explained, shown_uri, without_secrets
from models.training import distributed
from models.training.checkpoint import TrainState

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
    "energy": "energy_distance",
    "pairs": "pair_score",
}
_NOT_SENT = ("kimg",)  # it says what the step says
ENDING_S = 5.0  # that the last system metrics may take


class Tracker(Protocol):
    """Takes settings once and metrics at each tick."""

    def params(self, values: dict[str, Any]) -> None:
        """Logs settings."""

    def metrics(self, values: dict[str, float]) -> None:
        """Logs metrics at `values["images_seen"]`, under `train/`."""

    def image(self, name: str, png: bytes, images_seen: int) -> None:
        """Logs a picture as the next of the series `name`."""

    def file(self, name: str, content: bytes) -> None:
        """Logs a file."""


class NoTracker:
    """Logs nothing."""

    def params(self, values: dict[str, Any]) -> None:
        """Does nothing."""

    def metrics(self, values: dict[str, float]) -> None:
        """Does nothing."""

    def image(self, name: str, png: bytes, images_seen: int) -> None:
        """Does nothing."""

    def file(self, name: str, content: bytes) -> None:
        """Does nothing."""


class MlflowTracker:
    """Logs to one MLflow run; a later outage is reported once and stops no training.

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

        self.uri = uri = os.environ["MLFLOW_TRACKING_URI"]
        self.run_id, self._error = run_id, MlflowException
        self._lost = 0
        with explained(uri, f"no MLflow run {run_id} at {shown_uri(uri)}"):
            self._client = MlflowClient(uri)
            known = self._client.get_run(run_id).data
            self._pictures = set(map(_series_and_step, self._picture_names()))
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
            self._sent(lambda: self._client.log_batch(self.run_id, params=rows, tags=tags))
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
        self._sent(lambda: self._client.log_batch(self.run_id, metrics=rows))

    def image(self, name: str, png: bytes, images_seen: int) -> None:
        """Logs a picture at the pictures seen, as one of the series `name`, once."""
        if (name, images_seen) in self._pictures:
            return
        with Image.open(io.BytesIO(png)) as picture:
            picture.load()
        self._sent(lambda: self._client.log_image(self.run_id, picture, key=name, step=images_seen))

    def file(self, name: str, content: bytes) -> None:
        """Puts a file among the run's artifacts, in the place of an earlier one of its name."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            self._sent(lambda: self._client.log_artifact(self.run_id, str(path)))

    def _picture_names(self) -> list[str]:
        return [Path(file.path).name for file in self._client.list_artifacts(self.run_id, IMAGES)]

    def _sent(self, send: Any) -> None:
        try:
            send()
        except self._error as error:
            self._lost += 1
            if self._lost == 1:
                said = without_secrets(str(error), self.uri)
                print(
                    f"MLflow did not take the numbers ({said}); they are in progress.jsonl",
                    file=sys.stderr,
                )


@contextlib.contextmanager
def system_metrics(tracker: Tracker) -> Iterator[None]:
    """Logs what the block takes of this machine to the tracker's run, as `system/…`.

    By MLflow's own monitor, if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is true; it needs psutil.
    """
    wanted = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "").lower() in ("true", "1")
    if not (wanted and isinstance(tracker, MlflowTracker)):
        yield
        return
    try:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    except ImportError as error:
        print(f"no system metrics: {error}", file=sys.stderr)
        yield
        return
    # A mean per minute: in two days 2,880 of each metric, where MLflow's default makes 17,280.
    kind: Any = SystemMetricsMonitor
    monitor = kind(
        tracker.run_id, samples_before_logging=6, resume_logging=True, tracking_uri=tracker.uri
    )
    log = logging.getLogger(SystemMetricsMonitor.__module__)

    def hide(record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage(), tracker.uri), ()
        return True

    log.addFilter(hide)
    monitor.start()
    try:
        yield
    finally:
        # A server out of reach would hold the end up for minutes of MLflow's retries.
        ending = threading.Thread(target=monitor.finish, daemon=True)
        ending.start()
        ending.join(ENDING_S)


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


PROGRESS = "progress.jsonl"
FORECAST_S = 5.0  # of training that its speed is measured on


class Tick:
    """Losses since the last tick, kept on the device so that no step waits for them."""

    def __init__(self, state: TrainState, config: TrainConfig, device: torch.device) -> None:
        self._first, self._each, self._device = state.step, config.images_a_step, device
        self._rows: list[Tensor] = []
        self._places: list[tuple[int, str]] = []  # step and name of each number in the rows
        self._started = time.monotonic()

    def add(self, losses: dict[str, Tensor]) -> None:
        """Takes a step's losses, scalars on the device; the same ones on all ranks."""
        self._places += [(len(self._rows), name) for name in losses]
        self._rows.append(torch.stack(list(losses.values())))

    def metrics(self) -> dict[str, float]:
        """Means over those steps of the tick that have the loss.

        Raises TrainingError naming the first step that was not finite.
        """
        values = distributed.mean_over_ranks(torch.cat(self._rows)).tolist()
        found: dict[str, list[float]] = {}
        for (step, name), value in zip(self._places, values, strict=True):
            if not math.isfinite(value):
                raise TrainingError(
                    f"step {self._first + step + 1}: the loss {name} is {value}; the last "
                    "checkpoint is from before it. Try smaller lr_g and lr_d, or a larger r1_gamma."
                )
            found.setdefault(name, []).append(value)
        images = (self._first + len(self._rows)) * self._each
        seconds = max(time.monotonic() - self._started, 1e-9)
        return {name: sum(of_steps) / len(of_steps) for name, of_steps in found.items()} | {
            "images_seen": images,
            "kimg": images / 1000,
            "pictures_per_s": len(self._rows) * self._each / seconds,
            "memory_mb": round(_peak_bytes(self._device) / 1e6, 1),
        }


class TickLog:
    """Takes a tick's metrics and passes them on everywhere.

    In a local store each line is appended to progress.jsonl; an object store cannot append, and
    gets the whole file again at each snapshot. On a resumed training the lines beyond
    `images_seen` are cut first.
    """

    def __init__(
        self,
        store: Store,
        out: str,
        *,
        images_seen: int,
        report: Report,
        tracker: Tracker,
        is_main_process: bool = True,
    ) -> None:
        """is_main_process: whether anything is passed on at all; of several processes, one does."""
        self._store, self._path = store, f"{out}/{PROGRESS}"
        self._folder = store.folder  # an object store cannot append
        self._report, self._tracker, self._is_main_process = report, tracker, is_main_process
        self._lines = _cut(store, out, images_seen) if is_main_process else []

    def tick(self, metrics: dict[str, float], *, of_images: int, saved: bool) -> None:
        """Records metrics, among them images_seen, kimg, d, g and pictures_per_s.

        saved: whether a checkpoint was just written, from which a training could resume.
        """
        if not self._is_main_process:
            return
        line = f"{json.dumps(metrics, sort_keys=True)}\n".encode()
        if self._folder is not None:
            self._folder.append_bytes(self._path, line)
        else:
            self._lines.append(line)
            if saved:
                self._store.write_bytes(self._path, b"".join(self._lines))
        stream = progress_stream()
        if stream is not None and not stream.isatty():  # a terminal has the bar
            print(tick_line(metrics), file=stream, flush=True)
        self._report({"progress": {**metrics, "of_images": of_images}})
        self._tracker.metrics(metrics)


def read_ticks(store: Store, out: str) -> list[dict[str, Any]]:
    """Returns the metrics of each tick of the training in `out`, in order; [] before the first.

    A last line without its end is left out: it is being written, or its writer was killed. Raises
    TrainingError naming the first line that is no tick's.
    """
    path = f"{out}/{PROGRESS}"
    if not store.exists(path):
        return []
    lines = store.read_bytes(path).split(b"\n")[:-1]
    rows = [_row(line) for line in lines]
    if None in rows:
        raise TrainingError(
            f"{store.url(path)}, line {rows.index(None) + 1}: expected a JSON object with "
            "images_seen. Remove the file to resume without the lines so far."
        )
    return [row for row in rows if row is not None]


def tick_line(metrics: dict[str, float]) -> str:
    """Returns `kimg 12  d 0.71  g 1.32  812 pictures/s`."""
    return (
        f"kimg {metrics['kimg']:g}  d {metrics['d']:.2f}  g {metrics['g']:.2f}  "
        f"{metrics['pictures_per_s']:,.0f} pictures/s"
    )


class TerminalBar:
    """A bar with the losses, pictures a second and the time left; silent without a terminal."""

    def __init__(
        self, total_images: int | None, images_seen: int, *, is_main_process: bool = True
    ) -> None:
        """total_images: None where they are not known yet."""
        stream = self._stream = progress_stream() if is_main_process else None
        self._bar: Any = None
        if stream is None or not stream.isatty():
            return
        try:
            from tqdm import tqdm
        except ImportError:  # a machine that only trains need not have it: it gets no bar
            return
        self._bar = tqdm(
            total=total_images,
            initial=images_seen,
            desc="train",
            unit=" pictures",
            unit_scale=True,
            dynamic_ncols=True,
            file=stream,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, images: int) -> None:
        """Moves the bar on."""
        if self._bar is not None:
            self._bar.update(images)

    def tell(self, metrics: dict[str, float], *, of_images: int) -> None:
        """Shows a tick's losses behind the bar, whose end is where the training will end."""
        if self._bar is not None:
            self._bar.total = of_images
            self._bar.set_postfix_str(f"d {metrics['d']:.2f} g {metrics['g']:.2f}")

    def write(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        elif self._stream is not None:
            print(line, file=self._stream, flush=True)


class Forecast:
    """What a training will come to, by the speed of some seconds from its first step on.

    That step itself is left out: in it memory is gathered and kernels are chosen.
    """

    def __init__(self, config: TrainConfig, *, faces: int) -> None:
        """faces: pictures of the training set."""
        self._config, self._faces = config, faces
        self._begun: tuple[int, float] | None = None
        self._made = False

    def line(self, steps: int, seconds: float) -> str | None:
        """Takes how far the training is; returns the forecast once, and None before and after.

        steps, seconds: of the training so far, over all starts.
        """
        if self._begun is None:
            self._begun = steps, seconds
        measured_s = seconds - self._begun[1]
        if self._made or measured_s < FORECAST_S:
            return None
        self._made = True
        steps_per_s = (steps - self._begun[0]) / measured_s
        left_s = (self._config.total_steps - steps) / steps_per_s
        if self._config.max_minutes > 0:
            left_s = min(left_s, self._config.max_minutes * 60 - seconds)
        images = (steps + left_s * steps_per_s) * self._config.images_a_step
        return (
            f"{steps_per_s * self._config.images_a_step:,.0f} pictures/s: about "
            f"{float(f'{images:.2g}'):,.0f} pictures in {(seconds + left_s) / 60:,.1f} minutes of "
            f"training, each of the {self._faces:,} faces {images / self._faces:,.1f} times"
        )


def _cut(store: Store, out: str, images_seen: int) -> list[bytes]:
    """Cuts progress.jsonl after `images_seen`, atomically; returns the lines that it then holds."""
    path = f"{out}/{PROGRESS}"
    if not store.exists(path):
        return []
    rows = read_ticks(store, out) if images_seen else []
    kept = [row for row in rows if row["images_seen"] <= images_seen]
    lines = [f"{json.dumps(row, sort_keys=True)}\n".encode() for row in kept]
    store.write_bytes(path, b"".join(lines))
    return lines


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and is_number(row.get("images_seen")) else None


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024
