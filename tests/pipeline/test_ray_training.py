"""A generator trained from Dagster's pages by a Ray cluster of two nodes, a rank on each."""

import contextlib
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from safetensors.torch import load_file

from models import train
from tests.assets.workshop import Workshop, ticks
from tests.models.homes import write_manifest
from tests.pipeline.conftest import Demo, clean_environment
from tests.pipeline.up_servers import Servers, started
from tests.ray_nodes import Nodes, started_nodes
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("ray", "aiohttp_cors")),
        reason="the packages ray[default,train] are not installed: pip install 'omokage[ray]'",
    ),
]

OF_JOBS = re.compile(r"models\.on_ray|RayTrainWorker|TrainController|ray::Line")


def at_work(nodes: Nodes) -> list[str]:
    """The processes of jobs, by their commands."""
    found = []
    for process in nodes.processes():
        with contextlib.suppress(psutil.Error):  # it has just ended
            words = " ".join(process.cmdline())
            found += [words] if OF_JOBS.search(words) else []
    return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    binaries, here = Path(sys.executable).parent, Path(__file__).resolve().parents[2]
    environment = clean_environment() | {
        "PATH": f"{binaries}:{os.environ['PATH']}",  # `python` of a job is the one of its node
        "PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}",
        "RAY_AUTH_MODE": "disabled",  # else a token in the home of the user would be required
        "OMP_NUM_THREADS": "1",
    }
    with started_nodes(environment, with_jobs=True) as made:
        yield made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ray") / "home"
    write_manifest(made)
    return made


@pytest.fixture(scope="module")
def servers(nodes: Nodes, home: Path) -> Iterator[Servers]:
    demo = Demo(home, home / "no.yaml", "")
    with started(demo, home, posts=40, OMOKAGE_LAUNCHER=f"ray:{nodes.jobs}") as servers:
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
    nodes: Nodes, servers: Servers, home: Path
) -> None:
    known = ticks(home)
    long = config(total_kimg="2.4")
    run_id = servers.launch("__ASSET_JOB", "generator", generator=long)
    wait_for(lambda: ticks(home) != known)
    servers.cancel(run_id)
    cancelled = time.monotonic()
    assert servers.wait_until_it_ended(run_id) == "CANCELED"
    wait_for(lambda: not at_work(nodes))
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


def test_a_fault_is_told_in_the_trainers_words(nodes: Nodes, home: Path) -> None:
    with pytest.raises(dg.Failure, match="batch is 9; a multiple of 2 is wanted for 2 processes"):
        Workshop(home).materialise(
            "smoke",
            trains_only=True,
            launcher=f"ray:{nodes.jobs}",
            processes=2,
            overrides={"batch": "9"},
        )
