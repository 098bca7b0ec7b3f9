"""MLflow runs are found again by key; versions and aliases are kept in a real SQLite registry."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dataset.errors import RegistryError
from models.registry.client import TrackingClient


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> TrackingClient:
    home = tmp_path_factory.mktemp("mlflow")
    return TrackingClient(
        uri=f"sqlite:///{home / 'mlflow.db'}", artifacts=(home / "artifacts").as_uri()
    )


def test_the_same_key_gives_the_same_run(tracking: TrackingClient) -> None:
    first = tracking.run_for("key-1", name="one", tags={"a": "1"})
    again = tracking.run_for("key-1", name="one", tags={"a": "2"})
    other = tracking.run_for("key-2", name="two", tags={})
    assert again == first != other
    assert tracking.client().get_run(first).data.tags["a"] == "2"


def test_a_run_ends_as_its_work_did(tracking: TrackingClient) -> None:
    run_id = tracking.run_for("key-3", name="three", tags={})
    with tracking.open_run(run_id):
        assert tracking.client().get_run(run_id).info.status == "RUNNING"
    assert tracking.client().get_run(run_id).info.status == "FINISHED"
    with pytest.raises(RuntimeError), tracking.open_run(run_id):
        raise RuntimeError
    assert tracking.client().get_run(run_id).info.status == "FAILED"
    with pytest.raises(KeyboardInterrupt), tracking.open_run(run_id):
        raise KeyboardInterrupt
    assert tracking.client().get_run(run_id).info.status == "KILLED"


def test_an_mlflow_that_is_gone_at_the_end_takes_nothing_from_a_training(
    tracking: TrackingClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*_: object, **__: object) -> None:
        raise MlflowException("connection refused")

    run_id = tracking.run_for("key-6", name="six", tags={})
    with tracking.open_run(run_id):
        monkeypatch.setattr(MlflowClient, "set_terminated", away)
    assert f"{run_id} is FINISHED, and MLflow does not know: " in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="of the training"), tracking.open_run(run_id):
        raise RuntimeError("of the training")
    monkeypatch.setattr(MlflowClient, "update_run", away)
    with pytest.raises(RegistryError, match="connection refused"), tracking.open_run(run_id):
        pass


def test_pictures_lie_where_the_artifact_root_says(
    tracking: TrackingClient, tmp_path: Path
) -> None:
    run_id = tracking.run_for("key-4", name="four", tags={})
    tracking.log_picture(run_id, "labels.png", b"picture")
    artifacts = tracking.client().get_run(run_id).info.artifact_uri
    assert artifacts.startswith(tracking.artifacts)
    assert (Path(artifacts.removeprefix("file://")) / "labels.png").read_bytes() == b"picture"


def test_an_evaluation_without_hair_labels_logs_the_rest(tracking: TrackingClient) -> None:
    run_id = tracking.run_for("key-5", name="five", tags={})
    made = {
        "fd_efficientnet_lite0": 12.5,
        "sigma": 0.1,
        "real_fd": 3.0,
        "hair_colour_hits": None,
        "protocol_digest": "p",
    }
    tracking.log_evaluation(run_id, made, step=4000)
    metrics = tracking.client().get_run(run_id).data.metrics
    assert metrics["eval/fd_efficientnet_lite0"] == 12.5
    assert "eval/hair_colour_hits" not in metrics


def test_no_alias_is_held_before_a_version_is_registered(tracking: TrackingClient) -> None:
    assert tracking.holder("champion") is None
    assert tracking.versions({}) == []


def test_a_server_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = TrackingClient(uri="http://127.0.0.1:9")
    with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:9 .*MLFLOW_TRACKING_URI"):
        away.run_for("key", name="x", tags={})
