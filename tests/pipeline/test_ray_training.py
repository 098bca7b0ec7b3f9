"""A generator trained from Dagster's pages by a Ray cluster of two nodes, a rank on each."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
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
from tests.pipeline.conftest import Demo
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
    "OMP_NUM_THREADS": "1",
}
OF_JOBS = re.compile(r"models\.on_ray|RayTrainWorker|TrainController|ray::Line")


@dataclass
class Cluster:
    """Two raylets on this machine, a CPU each."""

    folder: Path
    head: subprocess.Popen[bytes]
    dashboard: int
    address: str
    other: subprocess.Popen[bytes] | None = None

    @property
    def launcher(self) -> str:
        return f"ray:http://127.0.0.1:{self.dashboard}"

    def at_work(self) -> list[str]:
        """The processes of jobs, by their names."""
        found = []
        for node in (self.head, self.other):
            assert node is not None
            for process in psutil.Process(node.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it has just ended
                    words = " ".join(process.cmdline())
                    found += [words] if OF_JOBS.search(words) else []
        return found


def node(folder: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    ports = ["dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export"]
    command = [str(BIN / "ray"), "start", "--block", "--num-cpus=1", "--num-gpus=0", *options]
    command += [f"--{port}-port={free_port()}" for port in (*ports, "runtime-env-agent")]
    command += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, f"--temp-dir={folder}"],
            env={
                **os.environ,
                **PATIENT,
                "PATH": f"{BIN}:{os.environ['PATH']}",  # `python` of a job is the one of its node
                "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a node and all that it started."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for one in (*family, psutil.Process(process.pid)):
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.wait(600)


def is_up(folder: Path, name: str) -> bool:
    return "Ray runtime started" in (folder / f"{name}.log").read_text(errors="replace")


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """The head, which the servers of Dagster start beside."""
    # Not in pytest's folder: the path of a socket has at most 107 characters.
    folder = Path(f"/tmp/omokage-ray-{os.getpid()}")
    folder.mkdir()
    port, dashboard = free_port(), free_port()
    options = (f"--port={port}", f"--dashboard-port={dashboard}")
    process = node(folder, "head", "--head", *options, f"--ray-client-server-port={free_port()}")
    made = Cluster(folder, process, dashboard, f"127.0.0.1:{port}")
    yield made
    for one in (made.other, made.head):
        if one is not None:
            end(one)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ray") / "home"
    write_manifest(made)
    return made


@pytest.fixture(scope="module")
def servers(head: Cluster, home: Path) -> Iterator[Servers]:
    demo = Demo(home, home / "no.yaml", "")
    with started(demo, home, posts=40, OMOKAGE_LAUNCHER=head.launcher) as servers:
        yield servers


@pytest.fixture(scope="module")
def cluster(head: Cluster, servers: Servers) -> Cluster:
    wait_for(lambda: is_up(head.folder, "head"), process=head.head)
    head.other = node(head.folder, "other", f"--address={head.address}")
    wait_for(lambda: is_up(head.folder, "other"), process=head.other)
    return head


def config(**overrides: str) -> dict[str, Any]:
    overrides = {"device": "cpu", "threads": "1", "snapshot_kimg": "10", **overrides}
    return {"preset": "dcgan64-smoke", "processes": 2, "overrides": overrides}


def generators(home: Path) -> set[Path]:
    return {path.parent for path in home.glob("generators/*/checkpoints")}


def test_two_ranks_of_a_cluster_learn_what_one_process_does(
    cluster: Cluster, servers: Servers, home: Path
) -> None:
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
        seen = [one.asset_observation.metadata["images_seen"].value for one in log]
    assert seen == [40, 80]


def test_a_cancelled_training_saves_leaves_nothing_and_goes_on_in_its_mlflow_run(
    cluster: Cluster, servers: Servers, home: Path
) -> None:
    known = ticks(home)
    long = config(total_kimg="3.2")
    run_id = servers.launch("__ASSET_JOB", "generator", generator=long)
    wait_for(lambda: ticks(home) != known)
    servers.cancel(run_id)
    cancelled = time.monotonic()
    assert servers.wait_until_it_ended(run_id) == "CANCELED"
    wait_for(lambda: not cluster.at_work())
    assert time.monotonic() - cancelled < 30
    (progress,) = ticks(home) - known
    (state,) = progress.parent.glob("checkpoints/*/state.json")
    assert 40 <= json.loads(state.read_text())["images_seen"] < 3200
    client = servers.mlflow_client()
    (experiment,) = client.search_experiments(filter_string="name = 'avatar-generators'")
    runs = {run.info.run_id for run in client.search_runs([experiment.experiment_id])}

    again = servers.launch("__ASSET_JOB", "generator", generator=long)
    assert servers.wait_until_it_ended(again) == "SUCCESS"
    facts = json.loads((home / "generators/current.json").read_text())
    assert (facts["images_seen"], facts["folder"]) == (3200, f"generators/{progress.parent.name}")
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == runs
    steps = [one.step for one in client.get_metric_history(facts["mlflow_run"], "train/d_loss")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 3200


def test_a_fault_is_told_in_the_trainers_words(cluster: Cluster, home: Path) -> None:
    with pytest.raises(dg.Failure, match="batch is 9; a multiple of 2 is wanted for 2 processes"):
        Workshop(home).materialise(
            "smoke",
            trains_only=True,
            launcher=cluster.launcher,
            processes=2,
            overrides={"batch": "9"},
        )
