"""Real trainings, alone and under torchrun, get a signal: they save, and the command resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dataset.store import Store
from models import train
from models.training import checkpoint

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
LENGTH = ["--set", "total_kimg=0.48", "--set", "snapshot_kimg=10", "--set", "device=cpu"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]


def started(home: Path, command: list[str]) -> subprocess.Popen[str]:
    """Starts a training and returns when it has printed its first tick."""
    child = subprocess.Popen(
        [sys.executable, *command], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    out = home / command[command.index("--out") + 1]
    end = time.monotonic() + 600
    while not (out / "progress.jsonl").exists():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < end, "no tick came"
        time.sleep(0.01)
    return child


def saved(home: Path, out: str) -> int:
    """The pictures seen by the only checkpoint; fails if its state is not whole."""
    store = Store(home)
    (place,) = checkpoint.finished(store, f"{out}/checkpoints")
    return int(checkpoint.facts_of(store, place)["images_seen"])


@pytest.mark.parametrize("family", ["srresnet", "omokage"])
def test_a_terminated_family_saves_and_the_same_command_goes_on(
    home: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    out = f"runs/stopped-{family}"
    options = ["--preset", f"{family}-smoke", *LENGTH, "--home", str(home), "--out", out]
    child = started(home, ["-m", "models.train", *options])
    child.send_signal(signal.SIGTERM)
    stderr = child.communicate(timeout=600)[1]
    assert child.returncode == 128 + signal.SIGTERM, stderr
    seen = saved(home, out)
    assert 40 <= seen < 480
    capsys.readouterr()
    assert train.main(options) == 0
    ended = capsys.readouterr()
    assert f"going on from {seen} pictures" in ended.err
    assert json.loads(ended.out.splitlines()[-1])["images_seen"] == 480


def test_two_processes_of_torchrun_both_end_and_have_saved(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--preset", "smoke", *LENGTH, "--set", "total_kimg=40", "--home", str(home)]
    options += ["--out", "runs/two"]
    child = started(home, [*TORCHRUN, "--nproc-per-node", "2", "-m", "models.train", *options])
    ranks = psutil.Process(child.pid).children(recursive=True)
    assert len(ranks) >= 2
    child.send_signal(signal.SIGTERM)
    stderr = child.communicate(timeout=600)[1]
    assert child.returncode != 0
    assert stderr.count("the same command goes on from there") == 1  # the first of them prints
    assert [rank for rank in ranks if rank.is_running() and rank.status() != "zombie"] == []
    seen = saved(home, "runs/two")
    more = [*options, "--set", f"total_kimg={(seen + 40) / 1000}"]
    assert train.main(more) == 0  # one process goes on with what two have begun
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["images_seen"] == seen + 40
