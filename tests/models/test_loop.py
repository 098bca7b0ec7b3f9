import base64
import dataclasses
import io
import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from PIL import Image, ImageSequence
from torch import Tensor, nn

from assets.charts import growth_preview
from assets.reporting import MAX_BYTES
from dataset.errors import TrainingError
from dataset.store import Store
from models.config import TrainConfig
from models.families import dcgan64
from models.families.base import GeneratorSpec, NetworkSize
from models.io.entry_point import Stopped
from models.io.generators import load_generator
from models.layers.norm import BatchNorm2d
from models.training import checkpoint, loop
from models.training.checkpoint import TrainState
from models.training.data import Batches, TrainingSet
from models.training.loop import SnapshotScore
from models.training.losses import LOSSES, AdversarialLoss, ns_d
from models.training.run_folder import growth_gif
from models.training.step import train_step, update_average
from tests.models.homes import LABELS
from tests.models.trainings import SMOKE, trained


def tensors(home: Path, out: str, images: int) -> dict[str, torch.Tensor]:
    path = home / out / "checkpoints" / f"{images:010d}" / "state.safetensors"
    return safetensors.torch.load(path.read_bytes())


def test_a_stop_between_snapshots_is_saved_and_resumed(tmp_path: Path, reals: TrainingSet) -> None:
    steps = iter(range(1, 1000))
    with pytest.raises(Stopped, match="stopped at 56 pictures") as caught:
        trained(tmp_path, reals, stop_signal=lambda: signal.SIGINT if next(steps) == 7 else 0)
    assert caught.value.signum == signal.SIGINT
    places = checkpoint.finished(Store(tmp_path), "run/checkpoints")
    assert places == ["run/checkpoints/0000000056"]
    assert trained(tmp_path, reals)["images_seen"] == 160


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    tmp_path: Path, reals: TrainingSet
) -> None:
    other = dataclasses.replace(SMOKE, seed=1)
    for out, config in (("one", SMOKE), ("two", SMOKE), ("other", other)):
        trained(tmp_path, reals, config, out=out)
    one, two, third = (
        (tmp_path / out / "generator" / "generator.safetensors").read_bytes()
        for out in ("one", "two", "other")
    )
    assert one == two
    assert one != third


def test_a_finished_training_returns_at_once(
    tmp_path: Path, reals: TrainingSet, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trained(tmp_path, reals)
    before = (tmp_path / "run/generator/generator.safetensors").stat().st_mtime_ns
    again = trained(tmp_path, reals)
    assert (first["already_trained"], again["already_trained"]) == (False, True)
    assert "already trained" in capsys.readouterr().err
    assert (tmp_path / "run/generator/generator.safetensors").stat().st_mtime_ns == before
    timeless = {"already_trained", "seconds"}
    assert {k: v for k, v in first.items() if k not in timeless} == {
        k: v for k, v in again.items() if k not in timeless
    }


def test_a_longer_training_resumes_a_finished_one(
    tmp_path: Path, reals: TrainingSet, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, reals)
    longer = trained(tmp_path, reals, dataclasses.replace(SMOKE, total_kimg=0.2))
    assert longer["images_seen"] == 200
    assert "going on from 160 pictures" in capsys.readouterr().err


def test_a_folder_of_other_settings_or_data_is_refused(tmp_path: Path, reals: TrainingSet) -> None:
    trained(tmp_path, reals)
    with pytest.raises(TrainingError, match=r"lr_g was 0\.0002, now 0\.5"):
        trained(tmp_path, reals, dataclasses.replace(SMOKE, lr_g=0.5))
    with pytest.raises(TrainingError, match="the manifest was abab"):
        trained(tmp_path, dataclasses.replace(reals, manifest_digest="cd" * 32))


def test_a_checkpoint_of_a_later_version_with_more_settings_is_refused(
    tmp_path: Path, reals: TrainingSet
) -> None:
    trained(tmp_path, reals)
    path = tmp_path / "run/checkpoints/0000000160/state.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "config": {**facts["config"], "later": 3}}))
    with pytest.raises(TrainingError, match="holds another training: later was 3, now None"):
        trained(tmp_path, reals, dataclasses.replace(SMOKE, total_kimg=0.2))


def test_a_loss_that_is_not_finite_stops_and_names_the_step(
    tmp_path: Path, reals: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = AdversarialLoss(ns_d, lambda _real, fake: fake.sum() * torch.nan)
    monkeypatch.setitem(LOSSES, "ns", broken)
    with pytest.raises(TrainingError, match="step 1: the loss g is nan"):
        trained(tmp_path, reals)
    assert not list((tmp_path / "run").glob("generator/*"))
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_checkpoint_is_named_with_the_remedy(
    tmp_path: Path, reals: TrainingSet, cut: bool
) -> None:
    trained(tmp_path, reals)
    path = tmp_path / "run/checkpoints/0000000160/state.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if cut else content[:-1] + b"\xff")
    with pytest.raises(TrainingError, match="is damaged: its sha256 is") as caught:
        trained(tmp_path, reals, dataclasses.replace(SMOKE, total_kimg=0.2))
    assert "0000000160/state.safetensors" in str(caught.value)
    assert "Remove that folder" in str(caught.value)


def test_a_checkpoint_cut_off_in_mid_write_does_not_count(
    tmp_path: Path, reals: TrainingSet
) -> None:
    trained(tmp_path, reals)
    (tmp_path / "run/checkpoints/0000000160/state.json").unlink()
    longer = trained(tmp_path, reals, dataclasses.replace(SMOKE, total_kimg=0.2))
    assert longer["images_seen"] == 200


def test_a_training_leaves_progress_samples_and_facts(tmp_path: Path, reals: TrainingSet) -> None:
    reports: list[dict[str, Any]] = []
    summary = trained(tmp_path, reals, report=reports.append)
    lines = (tmp_path / "run/progress.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["images_seen"] for row in rows] == [40, 80, 120, 160]
    assert all({"d", "g", "d_labels", "g_labels", "r1", "pictures_per_s"} <= set(r) for r in rows)
    assert [one["progress"]["images_seen"] for one in reports] == [40, 80, 120, 160]
    with Image.open(tmp_path / summary["samples"]) as sheet:
        assert sheet.size == (8 * 64, 4 * 64)
    facts = json.loads((tmp_path / "run/generator/train.json").read_text())
    assert facts["config"] == dataclasses.asdict(SMOKE)
    assert facts["config_digest"] == SMOKE.digest
    assert facts["manifest_digest"] == reals.manifest_digest
    assert facts["torch"] == torch.__version__


@pytest.mark.ci
def test_a_training_leaves_a_gif_of_how_its_pictures_grew_also_after_a_stop_and_a_kill(
    tmp_path: Path, reals: TrainingSet
) -> None:
    config = dataclasses.replace(SMOKE, snapshot_kimg=0.04)
    trained(tmp_path, reals, config, out="straight")
    steps = iter(range(1, 1000))
    with pytest.raises(Stopped):
        trained(tmp_path, reals, config, stop_signal=lambda: next(steps) == 7 and signal.SIGINT)
    assert not (tmp_path / "run/growth.gif").exists()
    trained(tmp_path, reals, config)
    growth = (tmp_path / "run/growth.gif").read_bytes()
    assert growth == (tmp_path / "straight/growth.gif").read_bytes()
    with Image.open(io.BytesIO(growth)) as gif:
        assert (gif.size, gif.info["loop"]) == ((256, 256), 0)
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
        assert sum(shown) == 300 * 3 + 2500  # frames that are equal in 256 colours are one
        last = np.asarray(gif.convert("RGB"), float)
    sheet = Image.open(tmp_path / "run/samples/0000000160.png").crop((0, 0, 256, 256))
    assert np.abs(last - np.asarray(sheet, float)).mean() < 4
    # The last sheet and what comes after it were not written yet
    for left in ("samples/0000000160.png", "growth.gif", "generator/train.json"):
        (tmp_path / "run" / left).unlink()
    trained(tmp_path, reals, config)
    assert (tmp_path / "run/growth.gif").read_bytes() == growth


@pytest.mark.ci
def test_a_growth_shows_some_of_many_sheets_and_stays_below_a_megabyte_and_a_half(
    tmp_path: Path,
) -> None:
    store, rng = Store(tmp_path), np.random.default_rng(0)
    for place in range(1, 21):  # nothing but noise, and beyond the training's end a black one
        noise = rng.integers(0, 256, (256, 512, 3), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(noise * (place < 20)).save(content, "PNG", compress_level=0)
        store.write_bytes(f"run/samples/{place:010d}.png", content.getvalue(), durable=False)
    growth = growth_gif(store, "run", up_to=19)
    assert len(growth) < 1.5e6
    with Image.open(io.BytesIO(growth)) as gif:
        assert (gif.size, len(list(ImageSequence.Iterator(gif)))) == ((256, 256), 16)
        for place, shown in ((0, 1), (15, 19)):
            gif.seek(place)
            sheet = Image.open(tmp_path / f"run/samples/{shown:010d}.png").crop((0, 0, 256, 256))
            apart = np.asarray(gif.convert("RGB"), float) - np.asarray(sheet, float)
            assert np.abs(apart).mean() < 30  # 120 for another sheet
    preview = str(growth_preview(store, "run", images_seen=19, max_bytes=MAX_BYTES).value)
    assert len(preview) <= MAX_BYTES
    small = Image.open(io.BytesIO(base64.b64decode(preview.split("base64,")[1].rstrip(")"))))
    assert (small.format, small.size) == ("GIF", (128, 128))
    assert len(list(ImageSequence.Iterator(small))) == 4


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path, reals: TrainingSet) -> None:
    trained(tmp_path, reals, dataclasses.replace(SMOKE, snapshot_kimg=0.04, keep_checkpoints=2))
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert kept == ["0000000120", "0000000160"]


def test_every_picture_comes_once_a_pass(reals: TrainingSet) -> None:
    batches = Batches(
        reals.images, reals.labels, batch=8, seed=3, device=torch.device("cpu")
    )  # 48 pictures: 6 steps a pass
    one = np.concatenate([batches.order(step) for step in range(6)])
    two = np.concatenate([batches.order(step) for step in range(6, 12)])
    assert sorted(one) == sorted(two) == list(range(48))
    assert list(one) != list(two)
    assert list(batches.order(2)) == list(one[16:24])  # needs nothing that came before
    images, labels = batches.at(0)
    assert images.shape == (8, 3, 64, 64)
    assert -1 <= images.min() < images.max() <= 1
    assert np.array_equal(labels.numpy(), reals.labels[one[:8]])


def test_average_moves_by_half_in_its_half_life_and_so_do_batch_statistics() -> None:
    ema, G = BatchNorm2d(1), BatchNorm2d(1)
    for network, value in ((ema, 0.0), (G, 1.0)):
        for tensor in (*network.parameters(), *network.buffers()):
            nn.init.constant_(tensor, value)
    for _ in range(10):
        update_average(ema, G, step=100_000, half_life_steps=10)
    found = [tensor.item() for tensor in (*ema.parameters(), *ema.buffers())]
    assert found == pytest.approx([0.5] * 4)


def test_the_checkpoint_of_the_best_score_is_kept_beside_the_newest(
    tmp_path: Path, reals: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([5.0, 3.0, 4.0, 6.0])
    monkeypatch.setattr(SnapshotScore, "of", lambda _self, _generator: next(scores))
    config = dataclasses.replace(SMOKE, snapshot_kimg=0.04, keep_checkpoints=1, score_pictures=8)
    trained(tmp_path, reals, config)
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert kept == ["0000000080", "0000000160"]
    rows = [json.loads(line) for line in (tmp_path / "run/progress.jsonl").read_text().splitlines()]
    assert [row["snapshot_fd_efficientnet_lite0_8"] for row in rows] == [5.0, 3.0, 4.0, 6.0]


@pytest.fixture
def scored(tmp_path: Path, reals: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Trains below `run` with four snapshots, of which the second scores best."""
    scores = iter([5.0, 3.0, 4.0, 6.0])
    monkeypatch.setattr(SnapshotScore, "of", lambda _self, _generator: next(scores))
    config = dataclasses.replace(SMOKE, snapshot_kimg=0.04, keep_checkpoints=1, score_pictures=8)
    summary = trained(tmp_path, reals, config)
    assert (summary["images_seen"], summary["samples"]) == (160, "run/samples/0000000080.png")
    return config


def kept_snapshot(home: Path) -> tuple[int, float]:
    """Says which snapshot generator/ is, by train.json, whose weights are compared."""
    folder = home / "run/generator"
    snapshot = json.loads((folder / "train.json").read_text())["snapshot"]
    assert snapshot["score_name"] == "snapshot_fd_efficientnet_lite0_8"
    saved = safetensors.torch.load((folder / "generator.safetensors").read_bytes())
    average = tensors(home, "run", snapshot["images_seen"])
    assert all(torch.equal(saved[name], average[f"ema.{name}"]) for name in saved)
    return snapshot["images_seen"], snapshot["score"]


def test_the_generator_is_the_snapshot_of_the_best_score_or_by_option_the_final_one(
    tmp_path: Path, reals: TrainingSet, scored: TrainConfig
) -> None:
    assert kept_snapshot(tmp_path) == (80, 3.0)
    assert trained(tmp_path, reals, scored)["already_trained"]
    final = dataclasses.replace(scored, keep_generator="final")
    summary = trained(tmp_path, reals, final)
    assert summary["samples"] == "run/samples/0000000160.png"
    assert kept_snapshot(tmp_path) == (160, 6.0)


def test_scores_of_other_numbers_of_pictures_are_not_compared(
    tmp_path: Path, reals: TrainingSet, scored: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SnapshotScore, "of", lambda _self, _generator: 9.0)
    trained(tmp_path, reals, dataclasses.replace(scored, total_kimg=0.2, score_pictures=16))
    snapshot = json.loads((tmp_path / "run/generator/train.json").read_text())["snapshot"]
    assert (snapshot["images_seen"], snapshot["score"]) == (200, 9.0)


@pytest.mark.ci
def test_a_kill_while_the_generator_is_replaced_leaves_one_that_loads(
    tmp_path: Path, reals: TrainingSet, scored: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write_bytes
    for written, keep in enumerate(["final", "best", "final", "best"]):
        left = iter([True] * written)

        def until_killed(
            self: Store,
            path: str,
            content: bytes,
            *,
            durable: bool = True,
            left: Iterator[bool] = left,
        ) -> None:
            if "/generator/" in path and not next(left, False):
                raise KeyboardInterrupt
            write(self, path, content, durable=durable)

        config = dataclasses.replace(scored, keep_generator=keep)
        with monkeypatch.context() as patched:
            patched.setattr(Store, "write_bytes", until_killed)
            with pytest.raises(KeyboardInterrupt):
                trained(tmp_path, reals, config)
        assert not (tmp_path / "run/generator/train.json").exists()
        for folder in ("run", "run/generator"):
            assert load_generator(str(tmp_path / folder)).spec.family == "dcgan64"
        trained(tmp_path, reals, config)
        assert kept_snapshot(tmp_path) == ((160, 6.0) if keep == "final" else (80, 3.0))


@pytest.mark.ci
def test_a_snapshots_score_is_the_distance_of_its_fakes_to_the_reals(reals: TrainingSet) -> None:
    score = SnapshotScore(reals.images, reals.labels, count=24, seed=0, device="cpu")
    assert score.name == "snapshot_fd_efficientnet_lite0_24"

    def draws(images: npt.NDArray[np.uint8]) -> float:
        size = NetworkSize(64, width=0.05)
        generator = Copier(dcgan64.spec(LABELS, size), torch.from_numpy(images))
        return score.of(generator)

    noise = np.random.default_rng(0).integers(0, 256, reals.images.shape, dtype=np.uint8)
    assert draws(reals.images[:24]) < draws(noise[:24]) / 3


def clock_of(patch: pytest.MonkeyPatch, seconds_a_look: float) -> None:
    """Replaces the clock of trainings by one that moves on with each look at it."""
    looks = itertools.count()
    patch.setitem(loop.CLOCKS, "wall", lambda: next(looks) * seconds_a_look)


def test_a_training_ends_when_its_time_is_up_and_is_finished(
    tmp_path: Path, reals: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_of(monkeypatch, 0.1)
    config = dataclasses.replace(SMOKE, total_kimg=1000.0, max_minutes=0.45 / 60)
    assert trained(tmp_path, reals, config)["images_seen"] == 40
    assert trained(tmp_path, reals, config)["already_trained"]
    facts = json.loads((tmp_path / "run/generator/train.json").read_text())
    assert facts["train_seconds"] == 0.5


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Gathers the learning rates of G and D of each step."""
    found: list[tuple[float, float]] = []

    def noting(state: TrainState, *arguments: Any, **named: Any) -> Any:
        losses = train_step(state, *arguments, **named)
        optimisers = (state.opt_g, state.opt_d)
        found.append(tuple(one.param_groups[0]["lr"] / 2e-4 for one in optimisers))
        return losses

    monkeypatch.setattr(loop, "train_step", noting)
    return found


def test_learning_rates_cool_down_over_the_last_pictures(
    tmp_path: Path, reals: TrainingSet, rates: list[tuple[float, float]]
) -> None:
    config = dataclasses.replace(SMOKE, cooldown_frac=0.25)
    trained(tmp_path, reals, config, out="before")
    expected = [1.0] * 15 + [1.0, 0.8, 0.6, 0.4, 0.2]  # 20 steps
    assert [g for g, _ in rates] == pytest.approx(expected)
    assert [d for _, d in rates] == pytest.approx(expected)
    # The share is of this training, not of the one that it goes on from
    rates.clear()
    trained(
        tmp_path,
        dataclasses.replace(reals, manifest_digest="cd" * 32),
        config,
        out="after",
        continue_from="before",
    )
    assert [g for g, _ in rates] == pytest.approx(expected)


def test_learning_rates_cool_down_over_the_last_minutes_and_on_after_a_stop(
    tmp_path: Path,
    reals: TrainingSet,
    rates: list[tuple[float, float]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock_of(monkeypatch, 6.0)  # a tenth of a minute a step
    reports: list[dict[str, Any]] = []
    config = dataclasses.replace(SMOKE, total_kimg=1e6, max_minutes=1.0, cooldown_frac=0.5)
    steps = iter(range(1, 1000))
    with pytest.raises(Stopped):
        trained(
            tmp_path, reals, config, stop_signal=lambda: signal.SIGINT if next(steps) == 7 else 0
        )
    assert trained(tmp_path, reals, config, report=reports.append)["images_seen"] == 80
    expected = [1.0] * 6 + [0.8, 0.6, 0.4, 0.2]
    assert [g for g, _ in rates] == pytest.approx(expected)
    assert checkpoint.finished(Store(tmp_path), "run/checkpoints")[-1].endswith("/0000000080")
    assert [one["progress"]["of_images"] for one in reports] == [80] * len(reports)
    assert "1 pictures/s: about 80 pictures in 1.0 minutes" in capsys.readouterr().err
    assert len(list((tmp_path / "run/samples").iterdir())) == 10  # a sheet every sixteenth of it
    # A kill before the generator stood leaves nothing to train
    rates.clear()
    (tmp_path / "run/generator/train.json").unlink()
    assert trained(tmp_path, reals, config)["images_seen"] == 80
    assert rates == []


def test_the_time_of_the_slowest_rank_counts_on_all_ranks(
    tmp_path: Path, reals: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_of(monkeypatch, 1.0)
    monkeypatch.setattr("models.training.distributed.max_over_ranks", lambda value: value * 10)
    config = dataclasses.replace(SMOKE, max_minutes=0.5)  # 1 s, 10 of another rank, 110, …
    trained(tmp_path, reals, config)
    facts = json.loads((tmp_path / "run/generator/train.json").read_text())
    assert (facts["images_seen"], facts["train_seconds"]) == (16, 110.0)


def test_training_continues_from_another_on_a_grown_manifest(
    tmp_path: Path, reals: TrainingSet, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = TrainingSet(reals.images[:30], reals.labels[:30], LABELS, "cd" * 32)
    trained(tmp_path, fewer, out="small")
    before = tensors(tmp_path, "small", 160)
    stop = iter(range(1, 1000))
    with pytest.raises(Stopped):
        trained(
            tmp_path,
            reals,
            out="grown",
            continue_from="small",
            stop_signal=lambda: signal.SIGTERM if next(stop) == 3 else 0,
        )
    assert "going on from 160 pictures" in capsys.readouterr().err
    more = trained(tmp_path, reals, out="grown", continue_from="small")
    assert more["images_seen"] == 320
    facts = json.loads((tmp_path / "grown/generator/train.json").read_text())
    assert facts["origin"] == {
        "folder": "small",
        "step": 20,
        "images_seen": 160,
        "manifest_digest": "cd" * 32,
        "labels": list(LABELS),
    }
    after = tensors(tmp_path, "grown", 320)
    assert before.keys() == after.keys()
    assert not torch.equal(before["G.dense.weight"], after["G.dense.weight"])
    assert trained(tmp_path, reals, out="grown", continue_from="small")["already_trained"]


@pytest.mark.ci
def test_labels_that_changed_places_mean_the_same_afterwards(
    tmp_path: Path, reals: TrainingSet
) -> None:
    trained(tmp_path, reals, out="before")
    plain = dataclasses.replace(reals, manifest_digest="cd" * 32)
    turned = dataclasses.replace(
        plain, labels=plain.labels[:, ::-1], label_names=tuple(reversed(plain.label_names))
    )
    for out, data in (("plain", plain), ("turned", turned)):
        trained(tmp_path, data, out=out, continue_from="before")
    ours, theirs = (tensors(tmp_path, out, 320) for out in ("plain", "turned"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    # Interrupted, it goes on in that order; started once more, it is found finished
    assert trained(tmp_path, turned, out="turned", continue_from="before")["already_trained"]
    longer = dataclasses.replace(SMOKE, total_kimg=0.2)
    more = trained(tmp_path, turned, longer, out="turned", continue_from="before")
    assert (more["images_seen"], more["already_trained"]) == (360, False)


def test_training_does_not_continue_from_other_labels_or_settings(
    tmp_path: Path, reals: TrainingSet
) -> None:
    trained(tmp_path, reals, out="before")
    other = dataclasses.replace(
        reals, labels=reals.labels[:, 1:], label_names=LABELS[1:], manifest_digest="cd" * 32
    )
    with pytest.raises(TrainingError, match=r"its labels are blonde_hair, .*; now ") as caught:
        trained(tmp_path, other, out="after", continue_from="before")
    assert "Train from the beginning instead" in str(caught.value)
    changed = dataclasses.replace(SMOKE, lr_g=0.5)
    with pytest.raises(TrainingError, match=r"cannot be gone on from: lr_g was 0\.0002, now 0\.5"):
        trained(tmp_path, reals, changed, out="after", continue_from="before")
    with pytest.raises(TrainingError, match="nowhere holds no checkpoint"):
        trained(tmp_path, reals, out="after", continue_from="nowhere")


class Copier(dcgan64.Generator):
    """Draws the same pictures whatever the arguments."""

    def __init__(self, spec: GeneratorSpec, images: Tensor) -> None:
        super().__init__(spec)
        self._images = images.float() / 127.5 - 1

    def forward(self, z: Tensor, *_others: object, **_more: object) -> Tensor:
        """Returns the first pictures."""
        return self._images[: len(z)]


def test_the_seconds_of_a_training_hold_what_a_gpu_had_still_to_do(
    tmp_path: Path, reals: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[torch.device] = []

    def finishing(device: torch.device) -> None:  # steps are queued, and done when waited for
        waits.append(device)
        time.sleep(0.05)

    monkeypatch.setattr(loop, "synchronise", finishing)
    trained(tmp_path, reals)
    facts = json.loads((tmp_path / "run/generator/train.json").read_text())
    assert waits == [torch.device("cpu")] * 20
    assert facts["train_seconds"] >= 20 * 0.05


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_gpu_repeats_its_bits_only_where_that_is_set(
    monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    set_to: dict[str, Any] = {}
    # Set and unset, so that it is put back at the end.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    for name in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device: None)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda _name: None)
    monkeypatch.setattr(
        torch,
        "use_deterministic_algorithms",
        lambda mode, *, warn_only: set_to.update(mode=mode, warn_only=warn_only),
    )
    config = dataclasses.replace(SMOKE, deterministic=deterministic)
    loop.set_up(config, torch.device("cuda", 0))
    assert set_to == {"mode": deterministic, "warn_only": True}
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is deterministic


def test_a_source_of_another_kind_of_device_does_not_begin_anew() -> None:
    stored = torch.arange(16, dtype=torch.uint8)  # a GPU's: seed and offset
    fresh, one, two, other = (torch.Generator().manual_seed(0) for _ in range(4))
    checkpoint._restore(one, stored)
    checkpoint._restore(two, stored)
    checkpoint._restore(other, stored + 1)
    draws = [torch.rand(4, generator=rng) for rng in (fresh, one, two, other)]
    assert torch.equal(draws[1], draws[2])
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[3])
    same = torch.Generator().manual_seed(5)
    checkpoint._restore(fresh, same.get_state())
    assert torch.equal(torch.rand(4, generator=fresh), torch.rand(4, generator=same))
