"""A studio's server as a child process, as `omokage studio` starts it, and how it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.servers import free_port

START_S = 600.0  # a cap; a server that ends fails at once
LABELS = (
    "long_hair", "short_hair", "blonde_hair", "blue_hair", "pink_hair", "blue_eyes", "red_eyes",
    "hair_ornament", "animal_ears",
)  # fmt: skip


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    process: subprocess.Popen[str]
    said: Path


@contextlib.contextmanager
def studio_server(
    home: Path, tracking_uri: str, *options: str, **variables: str
) -> Iterator[Running]:
    """Starts a studio on a free port; at the end one Ctrl-C must end it and leave no file."""
    port, temporary, said = free_port(), home / "temporary", home / "said.txt"
    temporary.mkdir()
    command = [sys.executable, "-m", "pipeline.cli", "studio", "--port", str(port)]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("OMOKAGE_")
    }
    environment |= {"MLFLOW_TRACKING_URI": tracking_uri, "TMPDIR": str(temporary)} | variables
    with said.open("w") as log:
        process = subprocess.Popen(
            [*command, "--home", str(home / "home"), *options],
            stdout=log, stderr=subprocess.STDOUT, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process, said)
        yield Running(url, process, said)
        process.send_signal(signal.SIGINT)
        assert process.wait(600) == 130, said.read_text()
        assert list(temporary.glob("omokage-studio-*")) == []
        assert "Traceback" not in said.read_text(), said.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen[str], said: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert process.poll() is None, said.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)
