"""`omokage upscale`: what it writes and says, what it does not make twice, what it refuses."""

import io
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dataset.decode import UnreadablePicture
from dataset.errors import StoreError, UsageError
from models.sampling.draw import png_bytes
from pipeline.cli import cli
from studio.edits import Edits
from studio.png_metadata import recipe_facts, recipe_of_png
from studio.recipe import Recipe
from studio.upscaling import upscale
from tests.studio.drawn_faces import drawn_face

DIGEST = "ab" * 32


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOKAGE_PROGRESS", "off")


@pytest.fixture
def face(tmp_path: Path) -> Path:
    """A picture of 40x40 px that says nothing of itself."""
    file = tmp_path / "face.png"
    Image.fromarray(drawn_face(0, 40)).save(file)
    return file


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["upscale", *map(str, words)])


def texts(file: Path) -> dict[str, str]:
    with Image.open(file) as opened:
        return {
            str(name): str(text) for name, text in opened.info.items() if "omokage" in str(name)
        }


def drawn(file: Path, recipe: Recipe) -> Path:
    facts = recipe_facts(recipe, model="avatar-generator version 3", digest=DIGEST)
    file.write_bytes(png_bytes(Image.fromarray(drawn_face(0, 40)), facts))
    return file


@pytest.mark.parametrize("factor", [2, 4])
def test_one_picture_becomes_a_png_that_says_from_what(face: Path, factor: int) -> None:
    out = face.parent / "large.png"
    ended = run(face, "--factor", factor, "--denoise", 1, "--out", out)
    assert ended.exit_code == 0, ended.output
    assert ended.output == f"{out}: {40 * factor}x{40 * factor} px, from {face}\n"
    with Image.open(out) as opened:
        assert opened.format == "PNG"
        larger = np.asarray(opened)
    assert np.array_equal(larger, upscale(drawn_face(0, 40), factor, denoise=1))
    written = texts(out)
    assert written["omokage upscale"] == f"{factor}x, denoise 1"
    assert written["omokage source"].startswith("sha256:")
    assert "omokage link" not in written


def test_many_pictures_go_into_a_folder_as_png(face: Path) -> None:
    jpeg = face.with_name("other.jpg")
    Image.fromarray(drawn_face(1, 32)).save(jpeg)
    ended = run(face, jpeg, "--model", "photo", "--into", face.parent / "large")
    assert ended.exit_code == 0, ended.output
    made = sorted((face.parent / "large").iterdir())
    assert [file.name for file in made] == ["face.png", "other.png"]
    assert texts(made[1])["omokage upscale"] == "2x, by photo"


def test_a_drawn_picture_keeps_its_recipe_with_the_upscaling_in_it(tmp_path: Path) -> None:
    recipe = Recipe("avatar-generator/3", 17, ("blue_eyes",), psi=0.7)
    out = tmp_path / "large.png"
    ended = run(drawn(tmp_path / "one.png", recipe), "--factor", 4, "--denoise", 0, "--out", out)
    assert ended.exit_code == 0, ended.output
    extended = Recipe("avatar-generator/3", 17, ("blue_eyes",), psi=0.7, upscale=4, denoise=0)
    assert recipe_of_png(out.read_bytes(), where="large.png") == extended
    written = texts(out)
    assert written["omokage model"] == "avatar-generator version 3"
    assert written["omokage generator"] == DIGEST


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (Recipe("avatar-generator/3", 17), ["--model", "cunet"]),
        (Recipe("avatar-generator/3", 17, upscale=2), []),
        (Recipe("avatar-generator/3", 17, edits=Edits(rotate=90)), []),
    ],
    ids=["another upscaler", "upscaled already", "edited already"],
)
def test_what_no_recipe_can_say_is_said_as_a_source(
    recipe: Recipe, options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "large.png"
    ended = run(drawn(tmp_path / "one.png", recipe), *options, "--out", out)
    assert ended.exit_code == 0, ended.output
    assert recipe_of_png(out.read_bytes(), where="large.png") is None
    assert texts(out)["omokage source"].startswith("sha256:")


@pytest.mark.parametrize("has_recipe", [False, True])
def test_a_result_that_stands_is_not_made_again(face: Path, has_recipe: bool) -> None:
    if has_recipe:
        drawn(face, Recipe("avatar-generator/3", 17))
    out = face.parent / "large.png"
    assert run(face, "--out", out).exit_code == 0
    before = out.stat()
    ended = run(face, "--out", out)
    assert ended.output == f"{out}: stands already, from {face}\n"
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("options", [["--factor", 4], ["--denoise", 0], ["--model", "cunet"]])
def test_other_options_make_it_again(face: Path, options: list[object]) -> None:
    out = face.parent / "large.png"
    assert run(face, "--out", out).exit_code == 0
    before = out.read_bytes()
    assert "px, from" in run(face, *options, "--out", out).output
    assert out.read_bytes() != before


def test_another_input_makes_it_again(face: Path) -> None:
    out = face.parent / "large.png"
    assert run(face, "--out", out).exit_code == 0
    Image.fromarray(drawn_face(1, 40)).save(face)
    assert "px, from" in run(face, "--out", out).output


def test_a_result_that_was_cut_off_is_made_again(face: Path) -> None:
    out = face.parent / "large.png"
    assert run(face, "--out", out).exit_code == 0
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    assert "px, from" in run(face, "--out", out).output
    assert out.read_bytes() == whole


def test_bad_pictures_are_named_and_the_others_are_made(face: Path) -> None:
    (face.parent / "notes.png").write_text("no picture")
    wide = face.with_name("wide.png")
    Image.fromarray(np.zeros((4, 2100, 3), np.uint8)).save(wide)
    inputs = [face.parent / "nowhere.png", face.parent / "notes.png", wide, face]
    ended = run(*inputs, "--into", face.parent / "large")
    assert isinstance(ended.exception, UsageError)
    said = str(ended.exception)
    assert said.startswith("3 of 4 pictures were left out:")
    assert f"{inputs[0]}: is not there" in said
    assert f"{inputs[1]}: not a picture that can be opened" in said
    assert f"{wide}: 2100x4 made 2x larger is 4200x8 px; at most 4096 px a side are made" in said
    assert [file.name for file in (face.parent / "large").iterdir()] == ["face.png"]


def test_a_bomb_is_refused_in_a_plain_sentence(tmp_path: Path) -> None:
    bomb, file = io.BytesIO(), tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    file.write_bytes(bomb.getvalue())
    ended = run(file, "--out", tmp_path / "large.png")
    assert isinstance(ended.exception, UsageError | UnreadablePicture)
    assert str(ended.exception).startswith(f"{file}: ")
    assert "pixels" in str(ended.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{face}"], "--out FILE.png or --into FOLDER is wanted; neither is given"),
        (["{face}", "--out", "{face}"], "would overwrite the input"),
        (["{face}", "{face}", "--out", "large.png"], "is one file for 2 inputs; use --into"),
        (["{face}", "--out", "large.jpg"], "a name that ends in .png is wanted"),
    ],
)
def test_names_that_do_not_fit_are_refused(face: Path, words: list[str], said: str) -> None:
    ended = run(*(word.format(face=face) for word in words))
    assert isinstance(ended.exception, UsageError)
    assert said in str(ended.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--factor", "3"], "'3' is not one of '2', '4'"),
        (["--denoise", "4"], "4 is not in the range -1<=x<=3"),
        (["--model", "foto"], "'foto' is not one of 'anime', 'photo', 'cunet'"),
    ],
)
def test_options_out_of_range_are_refused(face: Path, words: list[str], said: str) -> None:
    ended = run(face, *words, "--out", face.parent / "large.png")
    assert ended.exit_code == 2
    assert said in ended.output


def test_a_place_that_cannot_be_written_is_named(face: Path) -> None:
    ended = run(face, "--out", face / "large.png")
    assert isinstance(ended.exception, StoreError | UsageError)
    assert str(face / "large.png") in str(ended.exception)


def test_long_work_shows_its_tiles(face: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOKAGE_PROGRESS", "on")
    monkeypatch.setattr("pipeline.commands.pictures._LONG_TILES", 5)
    ended = run(face, "--factor", 4, "--out", face.parent / "large.png")
    assert ended.exit_code == 0, ended.output
    assert "upscale face.png 5/5 tiles" in ended.stderr
