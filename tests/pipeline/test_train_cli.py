"""`omokage train`: tracked, resumed by the same command, and ended by its time."""

import functools
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from dataset.errors import OmokageError, UsageError
from models.training import loop
from pipeline import build
from pipeline.cli import cli
from tests.assets.workshop import WorksHere
from tests.models.homes import write_manifest

SMALL = ("--preset", "smoke", "--set", "threads=1", "--set", "device=cpu")


def train(home: Path, *words: str) -> Result:
    environment = {"MLFLOW_TRACKING_URI": None, "OMOKAGE_PROGRESS": "off"}
    return CliRunner().invoke(cli, ["train", *words, "--home", str(home)], env=environment)


@pytest.mark.ci
def test_a_training_of_minutes_is_tracked_and_said_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path)
    here = functools.partial(WorksHere, trains_here=True)
    monkeypatch.setattr(build, "ChildProcess", here)
    looks = iter(range(1000))
    monkeypatch.setitem(loop.CLOCKS, "wall", lambda: float(next(looks)))  # a step takes a second
    for _ in range(2):  # the second time it is found finished
        ended = train(tmp_path, *SMALL, "--minutes", "0.25")
        assert ended.exit_code == 0, (ended.output, ended.exception)
        assert "0.2 minutes, 120 pictures: each of the 40 faces 3.0 times" in ended.output
        (folder,) = re.findall(r"evaluate (generators/\S+) --home", ended.output)
        assert (tmp_path / folder / "generator/train.json").exists()
        assert f"growth     {tmp_path / folder}/growth.gif" in ended.output
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    (run,) = client.search_runs(["1"])
    assert run.data.params["max_minutes"] == "0.25"
    assert "growth.gif" in [file.path for file in client.list_artifacts(run.info.run_id)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--minutes", "3", "--set", "total_kimg=9"), "--minutes 3 and total_kimg 9 both say"),
        (("--set", "batch"), "--set batch: key=value wanted"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ended = train(tmp_path, *words)
    assert isinstance(ended.exception, UsageError)
    assert said in str(ended.exception)


def test_a_home_without_a_face_set_says_what_makes_one(tmp_path: Path) -> None:
    ended = train(tmp_path, *SMALL)
    assert isinstance(ended.exception, OmokageError)
    assert "manifest" in str(ended.exception)
