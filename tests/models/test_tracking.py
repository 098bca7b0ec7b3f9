from pathlib import Path

import pytest

from dataset.errors import RegistryError
from models.tracking import MlflowTracker, NoTracker, tracker_from_environment


def test_metrics_go_to_the_run_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    run_id = client.create_run(client.create_experiment("e", str(tmp_path))).info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    tracker = tracker_from_environment()
    assert isinstance(tracker, MlflowTracker)
    tracker.params({"batch": 8})
    tracker.params({"batch": 8})  # a resumed training says so again
    tracker.metrics({"d": 0.5, "images_seen": 40})
    run = client.get_run(run_id)
    assert run.data.params == {"batch": "8"}
    assert run.data.metrics["train/d"] == 0.5
    assert client.get_metric_history(run_id, "train/d")[0].step == 40
    assert run.info.status == "RUNNING"

    client.delete_run(run_id)  # the run is gone in mid-training: told once, and trained on
    tracker.metrics({"d": 0.4, "images_seen": 80})
    tracker.metrics({"d": 0.3, "images_seen": 120})
    assert capsys.readouterr().err.count("MLflow did not take the numbers") == 1

    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(RegistryError, match="no MLflow run 0000"):
        tracker_from_environment()


def test_without_a_named_run_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    assert isinstance(tracker_from_environment(), NoTracker)
