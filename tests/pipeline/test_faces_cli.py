"""`omokage faces detect`: files, folders and globs; JSON or words; what cannot be read is named."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dataset.errors import ConfigError, UsageError
from pipeline.cli import cli
from tests.dataset.home import png, portrait, scenery
from tests.dataset.onnx_model import red_finder


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOKAGE_PROGRESS", "off")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "one.png").write_bytes(png(portrait(3)))
    (tmp_path / "inner" / "two.png").write_bytes(png(portrait(4, side=480)))
    (tmp_path / "none.png").write_bytes(png(scenery(1)))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def detect(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["faces", "detect", *map(str, arguments)])


def rows(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("mode", ["fast", "thorough"])
def test_folder_is_searched_with_its_subfolders(folder: Path, mode: str) -> None:
    result = detect(folder, "--mode", mode, "--json")
    assert result.exit_code == 0, result.output
    found = {str(row["file"]): row for row in rows(result)}
    assert set(found) == {str(folder / "one.png"), str(folder / "inner" / "two.png")}
    one = found[str(folder / "one.png")]
    assert set(one) == {"file", "x", "y", "w", "h", "score"}
    x, y, w, h = (int(str(one[name])) for name in "xywh")
    assert (x + w / 2, y + h / 2) == pytest.approx((120, 125), abs=25)


def test_glob_and_file_are_taken_once(folder: Path) -> None:
    result = detect(f"{folder}/**/*.png", folder / "one.png", "--mode", "fast", "--json")
    assert result.exit_code == 0, result.output
    assert len(rows(result)) == 2


def test_words_name_the_faces_and_what_has_none(folder: Path) -> None:
    result = detect(folder / "none.png", folder / "one.png", "--mode", "fast")
    lines = result.stdout.splitlines()
    assert lines[:2] == [f"{folder / 'none.png'}: no face", f"{folder / 'one.png'}: 1 face"]
    assert lines[2].split() == ["x", "y", "w", "h", "score"]
    assert len(lines[3].split()) == 5


def test_unreadable_file_is_named_and_the_others_go_on(folder: Path) -> None:
    (folder / "a-broken.png").write_bytes(png(portrait(3))[:900])
    result = detect(folder, "--mode", "fast", "--json")
    assert result.exit_code == 1
    assert len(rows(result)) == 2
    assert f"{folder / 'a-broken.png'}: damaged or cut off" in result.stderr
    assert "1 of 4 pictures could not be read" in result.stderr


def test_model_of_the_users_own_is_run(folder: Path) -> None:
    model = red_finder(folder / "m.onnx", input_px=64, box_px=16)
    options = ["--detector", "onnx", "--model", model, "--input-px", "64", "--min-score", "0.9"]
    result = detect(folder / "none.png", *options, "--json")
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        (["nothing-*.png"], UsageError, r"nothing-\*\.png: no picture there"),
        (["{folder}", "--detector", "onnx"], UsageError, "wants --model FILE"),
        (["{folder}", "--model", "x.onnx"], UsageError, "only for --detector onnx"),
        (
            ["{folder}", "--detector", "onnx", "--model", "x.onnx"],
            ConfigError,
            r"x\.onnx: an ONNX file is wanted and cannot be read: No such file",
        ),
    ],
)
def test_wrong_options_are_named(
    folder: Path, options: list[str], kind: type[Exception], said: str
) -> None:
    result = detect(*(option.format(folder=folder) for option in options))
    assert isinstance(result.exception, kind)
    with pytest.raises(kind, match=said):
        raise result.exception
