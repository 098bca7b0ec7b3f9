"""`omokage edit`: what it writes and says, what the results say of themselves, how it refuses."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from models.sampling.draw import png_bytes
from pipeline.cli import cli, main
from studio.edits import Edits, apply_edits
from studio.png_metadata import Facts, made_from_facts, open_picture, recipe_facts
from studio.recipe import Recipe

RECIPE = Recipe("avatar-generator/3", 17, ("blonde_hair",), 0.7, upscale=2)
PIXELS = np.random.default_rng(5).integers(0, 256, (24, 16, 3), dtype=np.uint8)
MODEL = "avatar-generator version 3"
DIGEST = "cd" * 32


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A PNG that says what it was drawn from."""
    return written(tmp_path / "drawn.png", recipe_facts(RECIPE, model=MODEL, digest=DIGEST))


def written(file: Path, facts: dict[str, str]) -> Path:
    file.write_bytes(png_bytes(Image.fromarray(PIXELS), facts))
    return file


def plain(file: Path) -> Path:
    Image.fromarray(PIXELS).save(file)
    return file


def edit(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["edit", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Runs the whole command line; returns its exit code and what it said on stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["omokage", "edit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return code, capsys.readouterr().err


def said_by(file: Path) -> Facts:
    return open_picture(file.read_bytes(), where=file.name)[1]


def test_every_option_is_an_edit_made_in_the_order_of_the_fields(tmp_path: Path) -> None:
    out = tmp_path / "new" / "edited.png"
    numbers = "--hue -30 --saturation 1.5 --contrast 0.8 --brightness 1.1 --scale 2 --rotate -90"
    options = ["--crop", "0,0.25,1,1", *numbers.split()]
    result = edit(plain(tmp_path / "a.bmp.png"), *options, "--out", out)
    assert result.exit_code == 0, result.output
    edits = Edits((0, 0.25, 1, 1), -90, 2, 1.1, contrast=0.8, saturation=1.5, hue=-30)
    assert np.array_equal(np.asarray(Image.open(out)), apply_edits(PIXELS, edits))
    assert result.stdout == f"{out}: 36x32 px, from {tmp_path / 'a.bmp.png'}\n"
    assert [file.name for file in out.parent.iterdir()] == ["edited.png"]


def test_a_drawn_picture_goes_on_saying_what_it_was_drawn_from(drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "edited.png"
    assert edit(drawn, "--rotate", 90, "--out", out).exit_code == 0
    with_edits = Recipe(
        "avatar-generator/3", 17, ("blonde_hair",), 0.7, upscale=2, edits=Edits(rotate=90)
    )
    facts = recipe_facts(with_edits, model=MODEL, digest=DIGEST)
    assert out.read_bytes() == png_bytes(Image.fromarray(np.rot90(PIXELS)), facts)


def test_a_second_edit_names_its_source_and_has_no_link(drawn: Path, tmp_path: Path) -> None:
    once, twice, thrice = (tmp_path / f"{count}.png" for count in (1, 2, 3))
    assert edit(drawn, "--rotate", 90, "--out", once).exit_code == 0
    assert edit(once, "--hue", 20, "--out", twice).exit_code == 0
    assert edit(twice, "--hue", 20, "--out", thrice).exit_code == 0
    for source, made in ((once, twice), (twice, thrice)):
        sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
        assert said_by(made) == {"omokage source": f"sha256:{sha256}", "omokage edits": "hue=20"}


def test_anothers_picture_is_named_as_the_source(tmp_path: Path) -> None:
    source, out = plain(tmp_path / "face.jpg"), tmp_path / "face.png"
    assert edit(source, "--scale", 0.5, "--out", out).exit_code == 0
    facts = made_from_facts(source.read_bytes(), edits="scale=0.5")
    assert said_by(out) == {name: text for name, text in facts.items() if name != "Software"}


def test_damaged_settings_are_told_and_the_picture_is_edited(tmp_path: Path) -> None:
    source = written(tmp_path / "face.png", {"omokage link": "model=a%2F1&seed=x"})
    result = edit(source, "--hue", 20, "--out", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert f"{source}: its settings are damaged" in result.stderr
    assert "The result names this file as its source." in result.stderr
    assert "omokage link" not in said_by(tmp_path / "out.png")


def test_many_pictures_go_into_a_folder_under_their_own_names(tmp_path: Path) -> None:
    inputs = [plain(tmp_path / name) for name in ("a.png", "b.jpg", "c d.webp")]
    into = tmp_path / "into"
    result = edit(*inputs, "--brightness", 0, "--into", into)
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in into.iterdir()) == ["a.png", "b.png", "c d.png"]
    assert all(not np.asarray(Image.open(file)).any() for file in into.iterdir())


def test_faulty_pictures_are_told_at_the_end_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, text = plain(tmp_path / "good.png"), tmp_path / "text.png"
    text.write_text("seed,label")
    small = tmp_path / "small.png"
    Image.new("RGB", (4, 4)).save(small)
    into = tmp_path / "into"
    inputs = [text, tmp_path / "no.png", tmp_path, small, good]
    code, message = refused(capsys, *inputs, "--hue", 1, "--into", into)
    assert code == 2
    head, *lines = message.splitlines()
    assert head == "omokage: 4 of 5 pictures were left out:"
    assert lines[0].startswith(f"  {text}: not a picture that can be opened")
    assert lines[1] == f"  {tmp_path}/no.png: is not there; a picture file is wanted"
    assert lines[2].startswith(f"  {tmp_path}: is a folder; name the pictures in it, such as")
    assert lines[3] == f"  {small}: the picture is 4x4 px; sides of at least 8 px are wanted"
    assert [file.name for file in into.iterdir()] == ["good.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--hue 1", "--out FILE.png or --into FOLDER is wanted; neither is given"),
        ("--hue 1 --out a.png --into b", "--into FOLDER is wanted; both are given"),
        ("--hue 1 --out a.jpg", "--out a.jpg: a name that ends in .png is wanted; PNG is written"),
        ("--out a.png", "no edit that changes anything is given; there are --crop, --rotate, --"),
        ("--scale 1 --out a.png", "no edit that changes anything is given"),
        ("--hue x --out a.png", '--hue is "x"; a number of -180 to 180 is wanted'),
        ("--hue 1;scale=2 --out a.png", '--hue is "1;scale=2"; a number'),
        ("--crop 1,0,0,1 --out a.png", '--crop is "1,0,0,1", which keeps nothing'),
        ("--hue x --scale 9 --out a.png", "a number of 0.25 to 4 is wanted; --hue is"),
        ("--scale 4 --crop 0,0,0.1,1 --out a.png", "crop would leave 2x24 px of 16x24"),
        ("--hue 1 --out {folder}/face.png", "would overwrite the input"),
        ("--hue 1 --into {folder}", "would overwrite the input"),
        ("--hue 1 --into {folder}/face.png", "face.png is a file; a folder is wanted"),
        ("--hue 1 --out {folder}/face.png/x.png", "face.png/x.png cannot be written: "),
        ("--hue 1 --out {folder}/folder.png", "folder.png cannot be written: Is a directory"),
    ],
)
def test_a_wrong_option_is_a_line_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, options: str, message: str
) -> None:
    source = plain(tmp_path / "face.png")
    (tmp_path / "folder.png").mkdir()
    before = source.read_bytes()
    code, error = refused(capsys, source, *options.format(folder=tmp_path).split())
    assert code in (2, 5)
    assert message in error
    assert "OMOKAGE_HOME" not in error
    assert source.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["face.png", "folder.png"]


def test_two_inputs_never_become_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [plain(tmp_path / "face.png"), plain(tmp_path / "face.jpg")]
    code, error = refused(capsys, *inputs, "--hue", 1, "--into", tmp_path / "into")
    assert code == 2
    assert f"{inputs[0]} and {inputs[1]} would both become {tmp_path}/into/face.png" in error
    code, error = refused(capsys, *inputs, "--hue", 1, "--out", tmp_path / "out.png")
    assert code == 2
    assert "is one file for 2 inputs; use --into FOLDER" in error
