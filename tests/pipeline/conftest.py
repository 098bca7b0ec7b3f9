"""One undisturbed demo of a small collection, which the tests of the chain look at."""

import dataclasses
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.settings import VARIABLES
from tests.pipeline.fork_server import WarmOmokage

POST_COUNT = 350  # a few more than the 256 faces to train on and 32 to judge by need
SMOKE = """\
manifest: {eval_frac: 0.12}
generator: {preset: smoke}
evaluation: {fakes: 64, repeats: 2, flips: 1}
"""


@dataclass(frozen=True)
class Demo:
    """A finished demo: its home, what it said, and how to run commands on it."""

    home: Path
    config: Path
    output: str

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pipeline.cli", *arguments]

    def demo_arguments(self, home: Path | None = None) -> list[str]:
        return [
            "demo", "--home", str(home or self.home), "--posts", str(POST_COUNT),
            "--config", str(self.config),
        ]  # fmt: skip

    def demo_command(self, home: Path | None = None) -> list[str]:
        return self.command(*self.demo_arguments(home))


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, as a person would in a shell without our variables."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=clean_environment(), check=False
    )


def clean_environment() -> dict[str, str]:
    """The environment without what another test may have set in it."""
    ours = ("OMOKAGE_", "MLFLOW_", "DAGSTER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def omokage_here(*words: str, **variables: str | None) -> Result:
    """Runs a command in this process, with these of our variables alone."""
    environment = dict.fromkeys(VARIABLES.values()) | {"OMOKAGE_PROGRESS": "off"} | variables
    return CliRunner().invoke(cli, words, env=environment)


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmOmokage]:
    """Runs commands of `omokage` that need not import everything once more."""
    omokage = WarmOmokage(clean_environment())
    yield omokage
    omokage.close()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A worker's own copy of the one demo that the first worker to come has run."""
    base = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist have folders of their own below the one of this run.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = made_once(shared / "demo")
    mine = tmp_path_factory.mktemp("demo") / "home"
    shutil.copytree(made.home, mine)
    return dataclasses.replace(made, home=mine)


def made_once(folder: Path) -> Demo:
    """Runs the demo in a folder that all workers share; those that come later wait for it."""
    folder.mkdir(exist_ok=True)
    config, said = folder / "smoke.yaml", folder / "output.txt"
    made = Demo(folder / "home", config, "")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            config.write_text(SMOKE)
            ended = run(made.demo_command())
            assert ended.returncode == 0, ended.stdout + ended.stderr
            said.write_text(ended.stdout + ended.stderr)
    return dataclasses.replace(made, output=said.read_text())
