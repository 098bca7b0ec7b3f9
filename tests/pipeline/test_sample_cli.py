from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from dataset.errors import RegistryError
from pipeline.cli import cli
from tests.models.small_generators import small_generator, write_generator


def test_a_tool_draws_from_a_named_folder_without_any_champion(tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "generator", small_generator("stylegan2"))
    out = tmp_path / "mix.png"
    words = ["sample", "mix", "--generator", folder, "--labels", "blue hair", "--out", str(out)]
    ended = CliRunner().invoke(cli, words)
    assert ended.exit_code == 0, ended.output
    with Image.open(out) as sheet:
        assert sheet.size == (6 * 16, 4 * 16)


def test_a_tools_help_is_its_own_and_names_the_command() -> None:
    ended = CliRunner().invoke(cli, ["sample", "morph", "--help"])
    assert ended.exit_code == 0
    assert "usage: omokage sample morph" in ended.output
    assert "omokage sample morph --seed 3 --to-seed 7" in ended.output
    assert "--home PATH" in ended.output


def test_without_a_champion_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    home, out = ["--home", str(tmp_path)], ["--out", str(tmp_path / "loop.gif")]
    for words in (["sample", *home, "loop", *out], ["sample", "loop", *home, *out]):
        # MLflow leaves the address that an earlier test gave it in the environment.
        ended = CliRunner().invoke(cli, words, env={"MLFLOW_TRACKING_URI": None})
        assert isinstance(ended.exception, RegistryError)
        assert str(tmp_path) in str(ended.exception)
        assert "has no champion yet: `make demo` makes one; or name a folder with" in str(
            ended.exception
        )


def test_options_before_a_tool_are_refused_and_not_forgotten() -> None:
    ended = CliRunner().invoke(cli, ["sample", "--seed", "3", "loop", "--out", "loop.gif"])
    assert ended.exit_code == 2
    assert "--seed must stand behind the command: loop" in ended.output


def test_a_fault_of_the_tool_keeps_its_exit_code(tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "generator", small_generator("dcgan64"))
    words = ["sample", "mix", "--generator", folder, "--out", str(tmp_path / "mix.png")]
    ended = CliRunner().invoke(cli, words)
    assert ended.exit_code == 2
    assert "dcgan64 has no W, which style mixing needs" in ended.output
