"""A generator on two processes: it trains, and both end when the run does, however that ends."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

import psutil
import pytest

from dataset.store import Store
from models.training import checkpoint
from tests.assets.workshop import (
    INTERRUPTS,
    Workshop,
    interrupting_the_first_tick,
    ticks,
)
from tests.models.homes import write_manifest
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

DAGSTER = """
import sys
from pathlib import Path
from tests.assets.workshop import Workshop
Workshop(Path(sys.argv[1])).materialise(
    "smoke",
    trains_only=True,
    processes=2,
    # no snapshot by itself: the one that is found was saved at the end
    overrides={"total_kimg": "400", "snapshot_kimg": "400", "seed": "7"},
)
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop(tmp_path_factory.mktemp("two"))
    write_manifest(made.home)
    return made


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != "zombie"]


def test_a_cancelled_run_ends_both_processes_and_the_next_goes_on(workshop: Workshop) -> None:
    config: dict[str, Any] = {
        "processes": 2,
        "overrides": {"total_kimg": "0.64", "snapshot_kimg": "10"},
    }
    before = set(psutil.Process().children(recursive=True))
    with interrupting_the_first_tick(workshop.home), pytest.raises(INTERRUPTS):
        workshop.materialise("smoke", trains_only=True, **config)
    assert left(list(set(psutil.Process().children(recursive=True)) - before)) == []
    (folder,) = workshop.home.glob("generators/*/checkpoints/*/state.json")
    assert 40 <= json.loads(folder.read_text())["images_seen"] < 640

    made = workshop.materialise("smoke", trains_only=True, **config)["generator"]
    assert (made["resumed"], made["images_seen"]) == (True, 640)
    assert (made["processes"], made["device"]) == (2, "CPU, 2 processes")
    assert 640 in workshop.history(made["mlflow_run"], "train/d_loss")


def test_all_processes_save_and_end_when_dagster_is_killed(workshop: Workshop) -> None:
    known = ticks(workshop.home)
    dagster = subprocess.Popen(
        [sys.executable, "-c", DAGSTER, str(workshop.home)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: ticks(workshop.home) != known)
    below = psutil.Process(dagster.pid).children(recursive=True)
    assert len(below) >= 3  # torchrun and two of ours
    os.kill(dagster.pid, signal.SIGKILL)
    dagster.wait(600)
    wait_for(lambda: not left(below))
    (progress,) = ticks(workshop.home) - known
    store = Store(workshop.home)
    out = progress.parent.relative_to(workshop.home).as_posix()
    assert len(checkpoint.finished(store, f"{out}/checkpoints")) == 1


def test_a_fault_is_told_once_in_the_trainers_words(workshop: Workshop) -> None:
    config: dict[str, Any] = {"processes": 2, "overrides": {"batch": "9"}}
    with pytest.raises(Exception, match="batch is 9; a multiple of 2 is wanted for 2 processes"):
        workshop.materialise("smoke", trains_only=True, **config)
