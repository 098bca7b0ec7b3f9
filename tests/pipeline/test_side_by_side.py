"""Runs beside a training, by the servers of `omokage up`, and what a killed machine leaves."""

import shutil
from pathlib import Path

import pytest

from models.registry.client import TrackingClient
from pipeline.build import ASSET_JOB
from tests.pipeline.conftest import POST_COUNT, Demo
from tests.pipeline.up_servers import POLL_S, Servers, start
from tests.waiting import wait_for

pytestmark = pytest.mark.slow  # starts all servers twice

ENDLESS = {"total_kimg": "1000000", "device": "cpu", "threads": "1"}
SHORT = {"total_kimg": "0.08", "device": "cpu", "threads": "1"}


def test_a_training_holds_up_nothing_and_after_a_kill_of_all_processes_the_queue_moves(
    demo: Demo, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(demo.home, home)  # what is done here must not change what others look at
    servers = start(demo, home, posts=POST_COUNT)
    try:
        training = servers.launch("train_and_judge", generator=trained("dcgan64-smoke", ENDLESS))
        wait_for(lambda: servers.running("models.train"), "it never trained", poll_s=POLL_S)
        waiting = servers.launch(ASSET_JOB, "generator", generator=trained("dcgan64-smoke", SHORT))
        a_refresh_a_promotion_and_a_rollback_complete(servers)
        assert servers.status(training) == "STARTED"
        assert servers.status(waiting) == "QUEUED", "one GPU trains one generator"
    finally:
        servers.kill()
    servers = start(demo, home, posts=POST_COUNT)
    try:
        assert servers.status(training) == "FAILURE"
        assert servers.wait_until_it_ended(waiting) == "SUCCESS"
        report = wait_for(lambda: list(home.glob(f"reports/failures/*-{training[:8]}.md")))
        assert "Its process was killed" in report[0].read_text()
    finally:
        servers.stop()


def trained(preset: str, overrides: dict[str, str]) -> dict[str, object]:
    return {"preset": preset, "overrides": overrides}


def a_refresh_a_promotion_and_a_rollback_complete(servers: Servers) -> None:
    tracking = TrackingClient(uri=f"sqlite:///{servers.home}/mlflow/mlflow.db")
    client, name = tracking.client(), tracking.model
    first = client.get_model_version(name, "1")
    client.create_model_version(name, str(first.source), first.run_id, tags=first.tags)
    runs = [
        servers.launch("refresh_dataset", faces={"mode": "fast"}, manifest={"eval_frac": 0.12}),
        servers.launch("promote", ask_the_gate={"version": "2", "force": True, "reason": "eyes"}),
    ]
    assert [servers.wait_until_it_ended(run) for run in runs] == ["SUCCESS", "SUCCESS"]
    assert tracking.aliases()["champion"] == "2"
    assert servers.wait_until_it_ended(servers.launch("rollback")) == "SUCCESS"
    assert tracking.aliases()["champion"] == "1"
