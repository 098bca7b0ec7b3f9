from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dataset.errors import RegistryError, UsageError
from models.io.generators import generator_digest
from pipeline.cli import cli
from tests.models.small_generators import small_generator, write_generator
from tests.studio.champions import Champions, generator, write_empty


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


def test_a_seed_that_no_generator_takes_is_refused_with_the_range() -> None:
    ended = CliRunner().invoke(cli, ["sample", "--seed", "99999999999999999999999"])
    assert ended.exit_code == 2
    assert "is not in the range 0<=x<=4611686018427387903" in ended.output


def test_a_fault_of_the_tool_keeps_its_exit_code(tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "generator", small_generator("dcgan64"))
    words = ["sample", "mix", "--generator", folder, "--out", str(tmp_path / "mix.png")]
    ended = CliRunner().invoke(cli, words)
    assert ended.exit_code == 2
    assert "dcgan64 has no W, which style mixing needs" in ended.output


@pytest.fixture(scope="module")
def champions(tmp_path_factory: pytest.TempPathFactory) -> Champions:
    """Version 1 has its weights, version 2 is from before models carried them."""
    home = tmp_path_factory.mktemp("registry")
    made = Champions(home, write_empty(home / "empty.db"))
    made.register(generator(1))
    made.register(generator(2), weights=False)
    return made


def sample(champions: Champions, *words: str) -> Result:
    return CliRunner().invoke(cli, ["sample", *words], env={"MLFLOW_TRACKING_URI": champions.uri})


def test_the_champions_own_weights_draw_whatever_home_they_came_from(
    champions: Champions, tmp_path: Path
) -> None:
    champions.crown("1")
    elsewhere = ["--home", str(tmp_path / "home"), "--labels", "blue hair"]
    grid, tool, mixed = (tmp_path / f"{name}.png" for name in ("grid", "tool", "mixed"))
    for words in (
        [*elsewhere, "--n", "2", "--out", str(grid)],
        ["grid", *elsewhere, "--n", "2", "--out", str(tool)],
        ["mix", *elsewhere, "--out", str(mixed)],
    ):
        ended = sample(champions, *words)
        assert ended.exit_code == 0, ended.output
    with Image.open(grid) as plain, Image.open(tool) as other, Image.open(mixed) as sheet:
        assert np.array_equal(np.asarray(plain), np.asarray(other))
        assert plain.info["omokage model"] == (
            "models:/avatar-generator@champion, avatar-generator version 1"
        )
        assert plain.info["omokage seeds"] == "0-1"
        assert plain.info["omokage generator"] == generator_digest(generator(1))
        assert sheet.info["omokage generator"] == generator_digest(generator(1))
    assert not (tmp_path / "home").exists()


def test_a_champion_without_its_weights_draws_grids_and_says_why_no_more(
    champions: Champions, tmp_path: Path
) -> None:
    champions.crown("2")
    out = tmp_path / "grid.png"
    assert sample(champions, "--n", "2", "--out", str(out)).exit_code == 0
    with Image.open(out) as grid:
        assert grid.size == (32, 16)
    ended = sample(champions, "mix", "--out", str(tmp_path / "mix.png"))
    assert isinstance(ended.exception, RegistryError)
    assert "avatar-generator version 2 was registered without its weights" in str(ended.exception)
    assert "--generator" in str(ended.exception)


def test_an_unknown_label_is_refused_and_no_file_is_made(
    champions: Champions, tmp_path: Path
) -> None:
    champions.crown("1")
    ended = sample(champions, "--labels", "blond_hair", "--out", str(tmp_path / "grid.png"))
    assert isinstance(ended.exception, UsageError)
    assert 'did you mean "blonde_hair"?' in str(ended.exception)
    assert list(tmp_path.iterdir()) == []
