"""Where a training's numbers go: the terminal, progress.jsonl, MLflow and the orchestrator."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from dataset.progress import Advance, progress, progress_stream
from dataset.store import Store
from models.entry import Report
from models.tracking import Tracker

PROGRESS = "progress.jsonl"


class TickLog:
    """Takes a tick's metrics and passes them on everywhere.

    On a resumed training the lines of `progress.jsonl` beyond `images_seen` are taken back first.
    """

    def __init__(
        self, store: Store, out: str, *, images_seen: int, report: Report, tracker: Tracker
    ) -> None:
        self._store, self._path = store, f"{out}/{PROGRESS}"
        self._report, self._tracker = report, tracker
        self._lines = _lines_until(store, self._path, images_seen)

    def tick(self, metrics: dict[str, float], *, of_images: int) -> None:
        """Records metrics, among them images_seen, kimg, d, g and pictures_per_s."""
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


@contextlib.contextmanager
def terminal_bar(total_images: int, images_seen: int) -> Iterator[Advance]:
    """Yields a function that moves a bar on by some pictures; silent without a terminal."""
    stream = progress_stream()
    if stream is None or not stream.isatty():
        silent: Callable[[int], None] = lambda _count: None  # noqa: E731
        yield silent
        return
    with progress("train", total_images, unit="pictures") as advance:
        advance(images_seen)
        yield advance


def _lines_until(store: Store, path: str, images_seen: int) -> list[str]:
    if images_seen == 0 or not store.exists(path):
        return []
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in store.read_bytes(path).decode().splitlines()
    ]
    return [json.dumps(row, sort_keys=True) for row in rows if row["images_seen"] <= images_seen]
