"""A generator on two hosts: network namespaces joined by a cable, a process of torchrun on each."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.assets.workshop import INTERRUPTS, Workshop, interrupting_when, ticks
from tests.models.homes import write_manifest
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

# What srun is on a cluster: starts the command on both hosts, and ends when both have.
BOTH = """
import signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)  # the processes of the group get it themselves
torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
torchrun += ["--nproc-per-node", "1", "--rdzv-backend", "static"]
torchrun += ["--master-addr", "10.231.7.1", "--master-port", "29511"]
hosts = []
for rank, host in enumerate(sys.argv[1:3]):
    there = ["ip", "netns", "exec", host, "env", f"GLOO_SOCKET_IFNAME={host}"]
    there += [*torchrun, "--node-rank", str(rank), "--local-addr", f"10.231.7.{rank + 1}"]
    hosts.append(subprocess.Popen([*there, *sys.argv[3:]]))
sys.exit(max(abs(host.wait()) for host in hosts))
"""


@dataclass(frozen=True)
class Hosts:
    """Two hosts by their names, which are those of their network cards too."""

    names: tuple[str, str]

    @property
    def launcher(self) -> str:
        return f"torchrun:{sys.executable} -c '{BOTH}' {' '.join(self.names)}"

    def processes(self, host: str) -> list[int]:
        found = ip("netns", "pids", host).stdout.split()
        return [int(pid) for pid in found]

    def kill(self, host: str) -> None:
        """Ends all on a host at once, as a power cut does."""
        for pid in self.processes(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("network namespaces are made by `ip` of iproute2, which is not installed")
    one, two = (f"omo{os.getpid()}{which}" for which in "ab")
    made = []
    try:
        for host in (one, two):
            try:
                ip("netns", "add", host)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no right to make network namespaces: {error.stderr.strip()}")
            made.append(host)
        ip("link", "add", one, "netns", one, "type", "veth", "peer", "name", two, "netns", two)
        for number, host in enumerate((one, two), start=1):
            ip("-n", host, "address", "add", f"10.231.7.{number}/24", "dev", host)
            for card in (host, "lo"):
                ip("-n", host, "link", "set", card, "up")
        yield Hosts((one, two))
    finally:
        for host in made:
            ip("netns", "delete", host)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop(tmp_path_factory.mktemp("hosts"))
    write_manifest(made.home)
    return made


@contextlib.contextmanager
def killing(hosts: Hosts, host: str, *, when: Callable[[], object]) -> Iterator[None]:
    """Kills a host once something holds while the block works."""

    def work() -> None:
        wait_for(when)
        hosts.kill(host)

    killer = threading.Thread(target=work, daemon=True)
    killer.start()
    yield
    killer.join()


def checkpoints(workshop: Workshop) -> list[Path]:
    return list(workshop.home.glob("generators/*/checkpoints/*/state.json"))


def settings(hosts: Hosts, **overrides: str) -> dict[str, Any]:
    length = {"total_kimg": "1.2", "snapshot_kimg": "0.08"} | overrides
    return {"launcher": hosts.launcher, "trains_only": True, "overrides": length}


def test_a_training_goes_on_after_one_of_its_two_hosts_was_killed(
    workshop: Workshop, hosts: Hosts
) -> None:
    config = settings(hosts)
    with (
        killing(hosts, hosts.names[1], when=lambda: checkpoints(workshop)),
        pytest.raises(dg.Failure, match="it goes on where this stopped"),
    ):
        workshop.materialise("smoke", **config)
    assert [hosts.processes(host) for host in hosts.names] == [[], []]

    made = workshop.materialise("smoke", **config)["generator"]
    assert (made["resumed"], made["images_seen"], made["processes"]) == (True, 1200, 2)
    assert 1200 in workshop.history(made["mlflow_run"], "train/d_loss")
    assert len(list(workshop.home.glob("generators/*"))) == 1 + 1  # and current.json


def test_a_cancelled_run_saves_and_leaves_no_process_on_either_host(
    workshop: Workshop, hosts: Hosts
) -> None:
    known = ticks(workshop.home)
    config = settings(hosts, total_kimg="400", snapshot_kimg="400")
    with interrupting_when(lambda: ticks(workshop.home) != known), pytest.raises(INTERRUPTS):
        workshop.materialise("smoke", **config)
    assert [hosts.processes(host) for host in hosts.names] == [[], []]
    (progress,) = ticks(workshop.home) - known
    assert len(list(progress.parent.glob("checkpoints/*/state.json"))) == 1
