"""The benchmark of faces runs on a few drawn pictures and ends with one JSON object."""

import csv
import json
from pathlib import Path

import pytest

from benchmarks.faces import main
from tests.dataset.home import png, portrait, scenery

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOKAGE_PROGRESS", "off")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images", "no_face"):
        (tmp_path / name).mkdir()
    for seed in (3, 4):
        (tmp_path / "images" / f"{seed}.png").write_bytes(png(portrait(seed)))
    (tmp_path / "no_face" / "none.png").write_bytes(png(scenery(1)))
    with (tmp_path / "face_boxes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "x", "y", "w", "h", "kind", "drawn_by"])
        writer.writerows([[f"{seed}.png", 60, 60, 120, 130, "clear", "us"] for seed in (3, 4)])
    return tmp_path


def test_last_line_has_speed_ratios_and_what_was_found(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--pictures", str(folder), "--runs", "2"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert (result["benchmark"], result["unit"]) == ("faces", "pictures/s/core")
    assert result["value"] > 0
    assert set(result["ratios"]) == {"fast", "thorough"}
    assert (result["pictures"], result["runs"]) == (3, 2)
    assert result["device"].startswith("cpu x1")
    for mode in ("plain script", "fast", "thorough"):
        assert result["found"][mode]["clear_of"] == 2
        assert result["found"][mode]["boxes"] <= 3
        assert any(line.startswith(mode) for line in table)
    assert result["found"]["thorough"]["clear"] == 2


def test_pictures_without_a_list_of_faces_are_only_timed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--pictures", str(folder / "images"), "--runs", "1"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["found"] == {}


def test_folder_without_pictures_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--pictures", str(tmp_path)]) == 1
    assert f"{tmp_path}: no pictures there; --pictures names them" in capsys.readouterr().err
