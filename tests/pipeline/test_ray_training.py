"""A generator trained from Dagster's pages by a Ray cluster of two nodes, a rank on each."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from safetensors.torch import load_file

from models import train
from pipeline.servers import free_port
from tests.assets.workshop import Workshop, ticks
from tests.models.homes import write_manifest
from tests.pipeline.conftest import Demo, clean_environment
from tests.pipeline.up_servers import Servers, started
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("ray", "aiohttp_cors")),
        reason="the packages ray[default,train] are not installed: pip install 'omokage[ray]'",
    ),
]

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
# A busy machine misses Ray's own limits, and a worker would give way to all else there is.
PATIENT = {
    "RAY_raylet_start_wait_time_s": "400",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "400000",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # else a token in the home of the user would be asked for
    "OMP_NUM_THREADS": "1",
}
TRIES = 5
OF_JOBS = re.compile(r"models\.on_ray|RayTrainWorker|TrainController|ray::Line")


@dataclass(frozen=True)
class Node:
    """A raylet, and at a head what goes with it, in a folder of its own."""

    process: subprocess.Popen[bytes]
    folder: Path

    def outcome(self) -> str:
        """Returns `up`, `lost` or "" while it starts.

        A raylet gives up if Ray's agent, a process of its own, is not there within 30 seconds.
        """
        errors = self.folder.glob("session_*/logs/raylet*.err")
        if self.process.poll() is not None or any(
            "Check failed" in path.read_text(errors="replace") for path in errors
        ):
            return "lost"
        said = (self.folder / "said").read_text(errors="replace")
        return "up" if "Ray runtime started" in said else ""

    def end(self) -> None:
        """Ends all that it has started."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for one in family:
            with contextlib.suppress(psutil.Error):
                one.kill()
        self.process.kill()
        self.process.wait(600)


@dataclass(frozen=True)
class Cluster:
    """Two raylets on this machine, a CPU each."""

    nodes: list[Node]
    launcher: str

    def at_work(self) -> list[str]:
        """The processes of jobs, by their commands."""
        found = []
        for node in self.nodes:
            for process in psutil.Process(node.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it has just ended
                    words = " ".join(process.cmdline())
                    found += [words] if OF_JOBS.search(words) else []
        return found


def started_node(folder: Path, *options: str) -> Node:
    """Starts a node, again if a busy machine was too slow for it."""
    for attempt in range(TRIES):
        own = folder / f"{attempt}"
        own.mkdir(parents=True)
        with (own / "said").open("wb") as said:
            process = subprocess.Popen(
                ray_start(own, *options),
                env=patient_environment(),
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        node = Node(process, own)
        if wait_for(node.outcome, poll_s=0.2) == "up":
            return node
        node.end()
    raise AssertionError(f"no node of Ray started in {TRIES} tries")


def ray_start(folder: Path, *options: str) -> list[str]:
    command = [str(BIN / "ray"), "start", "--block", "--num-cpus=1", "--num-gpus=0", *options]
    for port in ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export"):
        command.append(f"--{port}-port={free_port()}")
    command += [f"--runtime-env-agent-port={free_port()}", "--object-store-memory=100000000"]
    return [*command, "--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder}"]


def patient_environment() -> dict[str, str]:
    path = f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}"
    # `python` of a job is the one of its node.
    ours = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": path}
    return {**clean_environment(), **PATIENT, **ours}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not in pytest's folder: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    port, jobs = free_port(), free_port()
    options = ["--head", f"--port={port}", f"--dashboard-port={jobs}"]
    with contextlib.ExitStack() as started:
        nodes = []
        for name, more in (
            ("head", [*options, f"--ray-client-server-port={free_port()}"]),
            ("other", [f"--address=127.0.0.1:{port}"]),
        ):
            nodes.append(started_node(folder / name, *more))
            started.callback(nodes[-1].end)
        yield Cluster(nodes, f"ray:http://127.0.0.1:{jobs}")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ray") / "home"
    write_manifest(made)
    return made


@pytest.fixture(scope="module")
def servers(cluster: Cluster, home: Path) -> Iterator[Servers]:
    demo = Demo(home, home / "no.yaml", "")
    with started(demo, home, posts=40, OMOKAGE_LAUNCHER=cluster.launcher) as servers:
        yield servers


def config(**overrides: str) -> dict[str, Any]:
    overrides = {"device": "cpu", "threads": "1", "snapshot_kimg": "10", **overrides}
    return {"preset": "dcgan64-smoke", "processes": 2, "overrides": overrides}


def generators(home: Path) -> set[Path]:
    return {path.parent for path in home.glob("generators/*/checkpoints")}


def test_two_ranks_of_a_cluster_learn_what_one_process_does(servers: Servers, home: Path) -> None:
    run_id = servers.launch("__ASSET_JOB", "generator", generator=config(total_kimg="0.08"))
    arguments = ["--home", str(home), "--out", "runs/one", "--preset", "dcgan64-smoke"]
    for name, value in config(total_kimg="0.08")["overrides"].items():
        arguments += ["--set", f"{name}={value}"]
    assert train.main(arguments) == 0
    assert servers.wait_until_it_ended(run_id) == "SUCCESS"
    (folder,) = generators(home)
    facts = json.loads((folder / "generator/train.json").read_text())
    assert facts["processes"] == 2
    state = "checkpoints/0000000080/state.safetensors"
    alone, shared = (load_file(path / state) for path in (home / "runs/one", folder))
    assert alone.keys() == shared.keys()
    apart = {
        name: float((alone[name].double() - shared[name].double()).abs().max()) for name in alone
    }
    assert max(apart.values()) <= 1e-5
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        log = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION)
        observed = [one.asset_observation for one in log]
        seen = [one.metadata["images_seen"].value for one in observed if one is not None]
    assert seen == [40, 80]


def test_a_cancelled_training_saves_leaves_nothing_and_goes_on_in_its_mlflow_run(
    cluster: Cluster, servers: Servers, home: Path
) -> None:
    known = ticks(home)
    long = config(total_kimg="2.4")
    run_id = servers.launch("__ASSET_JOB", "generator", generator=long)
    wait_for(lambda: ticks(home) != known)
    servers.cancel(run_id)
    cancelled = time.monotonic()
    assert servers.wait_until_it_ended(run_id) == "CANCELED"
    wait_for(lambda: not cluster.at_work())
    assert time.monotonic() - cancelled < 30
    (progress,) = ticks(home) - known
    (state,) = progress.parent.glob("checkpoints/*/state.json")
    assert 40 <= json.loads(state.read_text())["images_seen"] < 2400
    client = servers.mlflow_client()
    (experiment,) = client.search_experiments(filter_string="name = 'avatar-generators'")
    runs = {run.info.run_id for run in client.search_runs([experiment.experiment_id])}

    again = servers.launch("__ASSET_JOB", "generator", generator=long)
    assert servers.wait_until_it_ended(again) == "SUCCESS"
    facts = json.loads((home / "generators/current.json").read_text())
    assert (facts["images_seen"], facts["folder"]) == (2400, f"generators/{progress.parent.name}")
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == runs
    steps = [one.step for one in client.get_metric_history(facts["mlflow_run"], "train/d_loss")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 2400


def test_a_fault_is_told_in_the_trainers_words(cluster: Cluster, home: Path) -> None:
    with pytest.raises(dg.Failure, match="batch is 9; a multiple of 2 is wanted for 2 processes"):
        Workshop(home).materialise(
            "smoke",
            trains_only=True,
            launcher=cluster.launcher,
            processes=2,
            overrides={"batch": "9"},
        )
