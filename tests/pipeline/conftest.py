"""One undisturbed demo of a small collection, which the tests of the chain look at."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

POSTS = 480
SMOKE = """\
generator: {preset: smoke}
evaluation: {fakes: 64}
"""


@dataclass(frozen=True)
class Demo:
    """A finished demo: its home, what it said, and how to run commands on it."""

    home: Path
    config: Path
    output: str

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pipeline.cli", *arguments]

    def demo_command(self, home: Path | None = None) -> list[str]:
        return self.command(
            "demo", "--home", str(home or self.home), "--posts", str(POSTS),
            "--config", str(self.config),
        )  # fmt: skip

    def run(self, *arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        return run(self.command(arguments[0], "--home", str(home or self.home), *arguments[1:]))


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, as a person would in a shell without our variables."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=clean_environment(), check=False
    )


def clean_environment() -> dict[str, str]:
    """The environment without what another test may have set in it."""
    ours = ("OMOKAGE_", "MLFLOW_", "DAGSTER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    config = folder / "smoke.yaml"
    config.write_text(SMOKE)
    made = Demo(folder / "home", config, "")
    ended = run(made.demo_command())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return Demo(made.home, config, ended.stdout + ended.stderr)
