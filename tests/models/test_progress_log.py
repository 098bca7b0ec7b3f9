"""progress.jsonl: each line is written once, and what a killed writer left stops no resume."""

import dataclasses
import json
from pathlib import Path

import pytest

from dataset.errors import TrainingError
from dataset.store import Store
from models.config import TrainConfig
from models.training.progress_log import Forecast, NoTracker, TickLog, read_ticks

LOSSES = ("d", "g", "d_labels", "g_labels", "r1", "r2", "path", "aug_p", "minutes", "memory_mb")


class CountingStore(Store):
    """A store that counts the bytes that it is given."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.written = self.writes = 0

    def write_bytes(self, path: str, content: bytes, *, durable: bool = True) -> None:
        super().write_bytes(path, content, durable=durable)
        self.written += len(content)
        self.writes += 1


def metrics(images: int) -> dict[str, float]:
    """Returns a tick of as many numbers as a large training has, with all of their digits."""
    losses = {name: (images + place) / 7 for place, name in enumerate(LOSSES)}
    return {**losses, "images_seen": images, "kimg": images / 1000, "pictures_per_s": images / 3}


def log(store: Store, images_seen: int = 0) -> TickLog:
    return TickLog(
        store, "run", images_seen=images_seen, report=lambda _: None, tracker=NoTracker()
    )


def ticks(log: TickLog, images: range, *, saved_every: int = 0) -> None:
    for one in images:
        saved = saved_every > 0 and one % saved_every == 0
        log.tick(metrics(one), of_images=images.stop, saved=saved)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOKAGE_PROGRESS", "off")


def test_ticks_of_10_kimg_of_a_long_training_write_less_than_a_megabyte(tmp_path: Path) -> None:
    store = CountingStore(str(tmp_path))
    ticks(log(store), range(10_000, 25_000_001, 10_000))  # 25 million pictures, as StyleGAN2's
    content = (tmp_path / "run/progress.jsonl").read_bytes()
    assert content.count(b"\n") == 2500
    assert store.written == 0  # all of it appended: each line once, 1.2 GB when rewritten
    assert len(content) < 1e6


def test_an_object_store_gets_the_file_at_snapshots() -> None:
    store = CountingStore("memory://progress-at-snapshots")
    one = log(store)
    ticks(one, range(1, 100), saved_every=40)
    assert store.writes == 2
    assert [row["images_seen"] for row in read_ticks(store, "run")] == list(range(1, 81))
    ticks(log(store, 40), range(41, 43), saved_every=42)  # killed, and resumed from the first
    assert [row["images_seen"] for row in read_ticks(store, "run")] == list(range(1, 43))


def test_lines_beyond_the_checkpoint_are_cut_when_a_training_resumes(tmp_path: Path) -> None:
    store = CountingStore(str(tmp_path))
    ticks(log(store), range(1, 10))
    store.writes = 0
    resumed = log(store, 5)
    assert [row["images_seen"] for row in read_ticks(store, "run")] == [1, 2, 3, 4, 5]
    ticks(resumed, range(6, 9))
    assert [row["images_seen"] for row in read_ticks(store, "run")] == list(range(1, 9))
    assert store.writes == 1
    log(store)  # begun anew
    assert read_ticks(store, "run") == []


@pytest.mark.parametrize("left", [1, 20, len(json.dumps(metrics(10)))])
def test_a_line_that_a_killed_writer_left_unfinished_is_no_tick(tmp_path: Path, left: int) -> None:
    store = Store(tmp_path)
    ticks(log(store), range(1, 10))
    with (tmp_path / "run/progress.jsonl").open("ab") as file:
        file.write(json.dumps(metrics(10)).encode()[:left])
    assert len(read_ticks(store, "run")) == 9
    ticks(log(store, 9), range(10, 12))
    assert [row["images_seen"] for row in read_ticks(store, "run")] == list(range(1, 12))


def test_a_damaged_line_within_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_bytes("run/progress.jsonl", b'{"images_seen": 1}\nnone\n{"images_seen": 3}\n')
    with pytest.raises(TrainingError, match=r"run/progress\.jsonl, line 2: expected a JSON object"):
        log(store, 3)


def test_only_the_main_process_touches_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ticks(log(store), range(1, 10))
    other = TickLog(
        store,
        "run",
        images_seen=5,
        report=lambda _: None,
        tracker=NoTracker(),
        is_main_process=False,
    )
    ticks(other, range(6, 9))
    assert len(read_ticks(store, "run")) == 9


def test_a_forecast_says_once_what_pictures_and_minutes_the_speed_will_come_to() -> None:
    config = TrainConfig(batch=10, total_kimg=1e6, max_minutes=4.0)
    forecast = Forecast(config, faces=500)
    # The first step is slow, and after it there are 32 a second
    assert [forecast.line(steps, 30 + steps / 32) for steps in (1, 80, 160)] == [None] * 3
    assert forecast.line(161, 30 + 161 / 32) == (
        "320 pictures/s: about 67,000 pictures in 4.0 minutes of training, "
        "each of the 500 faces 134.4 times"
    )
    assert forecast.line(162, 30 + 162 / 32) is None
    by_pictures = Forecast(dataclasses.replace(config, total_kimg=19.2), faces=500)
    by_pictures.line(0, 0.0)
    assert "about 19,000 pictures in 1.0 minutes" in str(by_pictures.line(160, 5.0))
