"""What a training logs to MLflow, once and no more, however often it is killed."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from dataset.errors import RegistryError
from dataset.store import Store
from models.training import progress_log
from models.training.data import TrainingSet
from models.training.loop import train
from models.training.progress_log import (
    MlflowTracker,
    NoTracker,
    system_metrics,
    tracker_from_environment,
)
from tests.models.trainings import SMOKE


def test_metrics_go_to_the_run_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client, run_id = named_run(tmp_path, monkeypatch)
    tracker = tracker_from_environment()
    assert isinstance(tracker, MlflowTracker)
    tracker.params({"batch": 8})
    tracker.params({"batch": 8})  # a resumed training says so again
    tracker.metrics({"d": 0.5, "images_seen": 40})
    run = client.get_run(run_id)
    assert run.data.params == {"batch": "8"}
    assert run.data.metrics["train/d_loss"] == 0.5
    assert client.get_metric_history(run_id, "train/d_loss")[0].step == 40
    assert run.info.status == "RUNNING"

    client.delete_run(run_id)  # the run is gone in mid-training: reported once, and trained on
    tracker.metrics({"d": 0.4, "images_seen": 80})
    tracker.metrics({"d": 0.3, "images_seen": 120})
    assert capsys.readouterr().err.count("MLflow did not take the numbers") == 1

    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(RegistryError, match="no MLflow run 0000"):
        tracker_from_environment()


def named_run(folder: Path, patch: pytest.MonkeyPatch) -> tuple[MlflowClient, str]:
    """A new run that the environment names; with a client of its database."""
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    run_id = client.create_run(client.create_experiment("e", str(folder))).info.run_id
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    patch.setenv("MLFLOW_RUN_ID", run_id)
    return client, run_id


@pytest.mark.parametrize("enabled", ["true", "false"])
@pytest.mark.ci
def test_system_metrics_of_the_block_go_to_the_run_if_mlflows_variable_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: str
) -> None:
    client, run_id = named_run(tmp_path, monkeypatch)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", enabled)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.02")
    for _ in range(2):  # the second resumes
        with system_metrics(tracker_from_environment()):
            time.sleep(0.5 if enabled == "true" else 0)
    steps = [
        one.step for one in client.get_metric_history(run_id, "system/cpu_utilization_percentage")
    ]
    assert bool(steps) is (enabled == "true")
    assert steps == list(range(len(steps)))  # once each
    assert not [one for one in threading.enumerate() if one.name == "SystemMetricsMonitor"]


def test_a_server_out_of_reach_does_not_hold_the_end_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_log, "ENDING_S", 0.2)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    monkeypatch.setattr(SystemMetricsMonitor, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(SystemMetricsMonitor, "start", lambda _: None)
    monkeypatch.setattr(SystemMetricsMonitor, "finish", lambda _: time.sleep(30))
    tracker = MlflowTracker.__new__(MlflowTracker)
    tracker.run_id, tracker.uri = "0" * 32, "http://127.0.0.1:9"
    began = time.monotonic()
    with system_metrics(tracker):
        pass
    assert time.monotonic() - began < 5


def test_without_a_named_run_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    assert isinstance(tracker_from_environment(), NoTracker)


class Killed(Exception):  # what a SIGKILL leaves is what this leaves: nothing after the snapshot
    pass


@pytest.mark.ci
def test_a_training_killed_after_its_snapshot_stands_in_mlflow_once(
    tmp_path: Path, reals: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("e", (tmp_path / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)

    def start(stop_signal: Callable[[], int], commit: str) -> dict[str, Any]:
        monkeypatch.setattr("models.training.run_folder.commit", lambda: commit)
        return train(
            Store(tmp_path),
            "run",
            SMOKE,
            data=reals,
            report=lambda _payload: None,
            tracker=tracker_from_environment(),
            stop_signal=stop_signal,
        )

    steps = iter(range(1, 1000))

    def kill_at_17() -> int:  # after the snapshot at 80 pictures and the tick at 120
        if next(steps) == 17:
            raise Killed
        return 0

    with pytest.raises(Killed):
        start(kill_at_17, "c0ffee")
    before = {one.step: one for one in client.get_metric_history(run_id, "train/d_loss")}
    assert sorted(before) == [40, 80, 120]
    assert start(lambda: 0, "c0ffee-dirty")["images_seen"] == 160

    # Each step stands there once: that at 120 is the first time's
    for name in ("d_loss", "g_loss", "aug_p", "memory_mb", "pictures_per_s", "images_seen"):
        history = client.get_metric_history(run_id, f"train/{name}")
        assert sorted(one.step for one in history) == [40, 80, 120, 160], name
    after = {one.step: one for one in client.get_metric_history(run_id, "train/d_loss")}
    assert after[120].timestamp == before[120].timestamp
    assert after[160].value > 0

    # A picture a snapshot, in full and small
    names = [Path(file.path).name for file in client.list_artifacts(run_id, "images")]
    drawn = sorted(name.split("+timestamp")[0] for name in names if name.endswith(".png"))
    assert drawn == ["samples+step+160", "samples+step+80"]

    growth = client.download_artifacts(run_id, "growth.gif", str(tmp_path))
    assert Path(growth).read_bytes() == (tmp_path / "run/growth.gif").read_bytes()

    # Where it comes from, and what the second start had otherwise
    data = client.get_run(run_id).data
    assert data.params["manifest_digest"] == reals.manifest_digest
    assert data.params["config_digest"] == SMOKE.digest
    assert (data.params["commit"], data.tags["resumed.commit"]) == ("c0ffee", "c0ffee-dirty")
    assert [tag for tag in data.tags if tag.startswith("resumed.")] == ["resumed.commit"]
