"""Where a training's numbers go: the terminal, progress.jsonl, MLflow and the orchestrator."""

import json
import resource
import sys
import time
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from dataset.errors import TrainingError
from dataset.progress import progress_stream
from dataset.store import Store
from models import parallel
from models.checkpoints import TrainState
from models.config import TrainConfig
from models.entry import Report
from models.facts import is_number
from models.tracking import Tracker

PROGRESS = "progress.jsonl"


class Tick:
    """Losses since the last tick, kept on the device so that no step waits for them."""

    def __init__(self, state: TrainState, config: TrainConfig, device: torch.device) -> None:
        self._first, self._each, self._device = state.step, config.images_a_step, device
        self._rows: list[Tensor] = []
        self._names: list[str] = []
        self._started = time.monotonic()

    def add(self, losses: dict[str, Tensor]) -> None:
        """Takes a step's losses, scalars on the device; always the same ones."""
        self._names = list(losses)
        self._rows.append(torch.stack(list(losses.values())))

    def metrics(self) -> dict[str, float]:
        """Means over the tick; raises TrainingError naming the first step that was not finite."""
        table = parallel.mean_over_ranks(torch.stack(self._rows)).double().cpu()
        bad = (~torch.isfinite(table)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise TrainingError(
                f"step {self._first + row + 1}: the loss {self._names[column]} is "
                f"{table[row, column].item()}; the last checkpoint is from before it. Try smaller "
                "lr_g and lr_d, or a larger r1_gamma."
            )
        images = (self._first + len(table)) * self._each
        seconds = max(time.monotonic() - self._started, 1e-9)
        metrics = dict(zip(self._names, table.mean(dim=0).tolist(), strict=True))
        return metrics | {
            "images_seen": images,
            "kimg": images / 1000,
            "pictures_per_s": len(table) * self._each / seconds,
            "memory_mb": round(_peak_bytes(self._device) / 1e6, 1),
        }


class TickLog:
    """Takes a tick's metrics and passes them on everywhere.

    On a resumed training the lines of `progress.jsonl` beyond `images_seen` are taken back first.
    """

    def __init__(
        self,
        store: Store,
        out: str,
        *,
        images_seen: int,
        report: Report,
        tracker: Tracker,
        speaks: bool = True,
    ) -> None:
        """speaks: whether anything is passed on at all; of several processes, one does."""
        self._store, self._path = store, f"{out}/{PROGRESS}"
        self._report, self._tracker, self._speaks = report, tracker, speaks
        self._lines = _lines_until(store, self._path, images_seen)

    def tick(self, metrics: dict[str, float], *, of_images: int) -> None:
        """Records metrics, among them images_seen, kimg, d, g and pictures_per_s."""
        if not self._speaks:
            return
        self._lines.append(json.dumps(metrics, sort_keys=True))
        content = "".join(f"{line}\n" for line in self._lines).encode()
        self._store.write_bytes(self._path, content, durable=False)
        stream = progress_stream()
        if stream is not None and not stream.isatty():  # a terminal has the bar
            print(tick_line(metrics), file=stream, flush=True)
        self._report({"progress": {**metrics, "of_images": of_images}})
        self._tracker.metrics(metrics)


def tick_line(metrics: dict[str, float]) -> str:
    """Returns `kimg 12  d 0.71  g 1.32  812 pictures/s`."""
    return (
        f"kimg {metrics['kimg']:g}  d {metrics['d']:.2f}  g {metrics['g']:.2f}  "
        f"{metrics['pictures_per_s']:,.0f} pictures/s"
    )


class TerminalBar:
    """A bar with the losses, pictures a second and the time left; silent without a terminal."""

    def __init__(self, total_images: int, images_seen: int, *, speaks: bool = True) -> None:
        stream = progress_stream()
        self._bar: Any = None
        if not speaks or stream is None or not stream.isatty():
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

    def tell(self, metrics: dict[str, float]) -> None:
        """Shows a tick's losses behind the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"d {metrics['d']:.2f} g {metrics['g']:.2f}")


def _lines_until(store: Store, path: str, images_seen: int) -> list[str]:
    if images_seen == 0 or not store.exists(path):
        return []
    kept = []
    for number, line in enumerate(store.read_bytes(path).splitlines(), 1):
        row = _row(line)
        if row is None:
            raise TrainingError(
                f"{store.url(path)}, line {number}: a JSON object with images_seen is wanted. "
                "Remove the file to go on without the lines so far."
            )
        if row["images_seen"] <= images_seen:
            kept.append(json.dumps(row, sort_keys=True))
    return kept


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
