"""A password in MLFLOW_TRACKING_URI shows in no argument, configuration, event or error."""

import logging
import time
import traceback
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from dataset.errors import RegistryError
from models.registry.client import TrackingClient
from models.registry.model_uri import Registry, parse_model_uri, shown_uri, without_secrets
from models.training.progress_log import (
    MlflowTracker,
    system_metrics,
    tracker_from_environment,
)
from pipeline.build import build_defs, tracking_of
from pipeline.settings import Settings, read_settings
from pipeline.up import mlflow_server

PASSWORD = "sesame"
NOBODY = f"http://me:{PASSWORD}@127.0.0.1:9"  # nothing listens there
URIS = [
    NOBODY,
    f"postgres://me:{PASSWORD}@127.0.0.1:9/mlflow",  # a scheme that SQLAlchemy does not know
    f"postgresql://me:{PASSWORD}@127.0.0.1:9/mlflow",
    f"postgresql+psycopg2://127.0.0.1:9/mlflow?user=me&password={PASSWORD}",
    f"mysql://me:{PASSWORD}@127.0.0.1:9/mlflow",  # its driver is not installed
]


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)


def settings_of(uri: str, home: Path) -> Settings:
    return read_settings({"OMOKAGE_HOME": str(home), "MLFLOW_TRACKING_URI": uri})


def whole_text(error: BaseException) -> str:
    """What a traceback and Dagster's event log show: the causes too."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("uri", URIS)
def test_no_error_of_mlflow_shows_it(uri: str, tmp_path: Path) -> None:
    tracking = TrackingClient(uri=uri)
    assert PASSWORD not in repr(tracking)
    place = shown_uri(uri)
    assert place.startswith(uri.partition("://")[0])
    assert "127.0.0.1:9" in place
    with pytest.raises(RegistryError) as caught:
        tracking.registered()
    assert place in str(caught.value)
    assert PASSWORD not in whole_text(caught.value)
    with pytest.raises(RegistryError) as caught:
        tracking.fetch_model("models:/avatar-generator/1", tmp_path)
    assert PASSWORD not in whole_text(caught.value)


@pytest.mark.parametrize("uri", URIS)
def test_no_error_of_the_studio_or_the_trainer_shows_it(
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(RegistryError) as caught:
        Registry(uri).find(parse_model_uri("models:/avatar-generator@champion"))
    assert PASSWORD not in str(caught.value)  # its page shows the text alone
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(RegistryError) as caught:
        tracker_from_environment()
    assert "no MLflow run" in str(caught.value)
    assert PASSWORD not in whole_text(caught.value) + caplog.text


def test_no_warning_of_the_system_metrics_shows_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    monkeypatch.setattr(logging.getLogger("mlflow"), "propagate", True)
    tracker = MlflowTracker.__new__(MlflowTracker)  # as if the server had ended since
    tracker.run_id, tracker.uri = "0" * 32, NOBODY
    with system_metrics(tracker):
        time.sleep(0.5)
    assert "Failed to get mlflow run: API request to http://127.0.0.1:9/" in caplog.text
    assert PASSWORD not in caplog.text


def test_other_addresses_and_texts_stay_as_they_are() -> None:
    for uri in ("sqlite:////home/me@home/mlflow.db", "http://127.0.0.1:5000", "databricks"):
        assert shown_uri(uri) == uri
        assert without_secrets(f"{uri} and more", uri) == f"{uri} and more"


@pytest.mark.parametrize("uri", URIS)
def test_no_argument_of_a_server_has_it(uri: str, tmp_path: Path) -> None:
    settings = settings_of(uri, tmp_path)
    server = mlflow_server(settings, port=5000)
    assert PASSWORD not in " ".join(server.command)
    assert server.environment["MLFLOW_BACKEND_STORE_URI"] == uri
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in settings.mlflow_url  # which links show


def test_neither_the_definitions_nor_the_event_log_of_a_failed_run_have_it(tmp_path: Path) -> None:
    defs = build_defs(settings=settings_of(NOBODY, tmp_path / "home"))
    shown = serialize_value(RepositorySnap.from_def(defs.get_repository_def()))
    assert PASSWORD not in shown
    assert "avatar-generators" not in shown  # of a resource that is hidden, nothing is shown
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        run = defs.resolve_job_def("rollback").execute_in_process(
            instance=instance, raise_on_error=False
        )
        assert not run.success
        (failed,) = [event for event in run.all_events if event.is_step_failure]
        error = failed.step_failure_data.user_failure_data
        assert error is not None
        assert "MLflow at http://127.0.0.1:9 did not answer" in (error.description or "")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 2
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def test_an_address_without_a_password_is_shown_where_it_is_configured(tmp_path: Path) -> None:
    settings = settings_of("http://127.0.0.1:5001", tmp_path)
    defs = build_defs(settings=settings)
    assert "http://127.0.0.1:5001" in serialize_value(
        RepositorySnap.from_def(defs.get_repository_def())
    )
    assert tracking_of(settings).uri == settings.tracking_uri
