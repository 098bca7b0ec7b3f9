"""Every family trains, resumes bit for bit when killed, and learns on two processes as on one."""

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from models.families import FAMILIES
from tests.models.small_families import heads, narrow
from tests.models.train_on_ranks import main as train_on_ranks
from tests.models.training import trained

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("family", FAMILIES)
NETWORKS = ("G", "D", "ema")


class Killed(Exception):  # what a SIGKILL leaves is what this leaves: nothing after the snapshot
    pass


def state(home: Path, out: str) -> dict[str, Tensor]:
    (path,) = sorted((home / out / "checkpoints").glob("*/state.safetensors"))[-1:]
    return safetensors.torch.load(path.read_bytes())


@EVERY
def test_a_hundred_steps_are_fifty_a_kill_and_fifty_bit_for_bit(
    tmp_path: Path, family: str
) -> None:
    config = narrow(family, batch=4, total_kimg=0.4, snapshot_kimg=0.2, aug_p=0.5, mixing=0.0)
    data = heads(config.resolution_px)
    trained(tmp_path, data, config, out="straight")
    steps = iter(range(1, 1000))

    def kill_at_57() -> int:
        if next(steps) == 57:
            raise Killed
        return 0

    with pytest.raises(Killed):
        trained(tmp_path, data, config, out="killed", stop_signal=kill_at_57)
    trained(tmp_path, data, config, out="killed")
    straight, killed = state(tmp_path, "straight"), state(tmp_path, "killed")
    assert straight.keys() == killed.keys()
    assert [name for name in straight if not torch.equal(straight[name], killed[name])] == []


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    families = list(FAMILIES)
    train_on_ranks(one, 20, families)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [sys.executable, "-m", *torchrun, "tests.models.train_on_ranks", str(two), "20"]
    made = subprocess.run(
        [*command, *families], cwd=REPOSITORY, capture_output=True, text=True, timeout=600
    )
    assert made.returncode == 0, made.stderr[-2000:]
    for family in families:
        alone, shared = state(one, family), state(two, family)
        apart = {
            name: float((alone[name] - shared[name]).abs().max())
            for name in alone
            if name.split(".")[0] in NETWORKS
        }
        assert max(apart.values()) <= 1e-5, (family, max(apart, key=lambda name: apart[name]))
