"""The chain with PostgreSQL in the place of Dagster's and MLflow's SQLite files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.settings import PROJECT
from tests.pipeline.automatic_home import automatic_home
from tests.pipeline.conftest import POST_COUNT, omokage_here
from tests.pipeline.postgres import PASSWORD, missing, postgres
from tests.pipeline.test_automation import WEAK

pytestmark = [
    pytest.mark.slow,  # a board, an MLflow server, a refresh and a training
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

STORAGE = "\nstorage:\n  postgres:\n    postgres_url: {env: DAGSTER_POSTGRES_URL}\n"


@pytest.fixture
def addresses() -> Iterator[list[str]]:
    with postgres("dagster", "mlflow") as made:
        yield made


def test_the_chain_runs_and_promotes_on_postgres(
    addresses: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster_url, mlflow_url = addresses
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_url)
    home = tmp_path / "home"
    (home / "dagster").mkdir(parents=True)
    ours = (PROJECT / "dagster.yaml").read_text()
    (home / "dagster/dagster.yaml").write_text(ours + STORAGE)
    config = tmp_path / "automatic.yaml"
    config.write_text(WEAK)
    given = {"OMOKAGE_AUTO_CONFIG": str(config), "OMOKAGE_COMPUTE": "threads:1"}
    with automatic_home(
        home, monkeypatch, posts=POST_COUNT, given=given, database=mlflow_url
    ) as automatic:
        (refresh,) = automatic.schedule_tick("refresh_demo_schedule")
        assert refresh.success
        (training,), _ = automatic.sensor_tick("train_when_grown")
        assert training.success
        runs, reason = automatic.sensor_tick("train_when_grown")
        assert not runs
        assert "learnt from this very manifest" in reason
        assert automatic.champion() == 1
        assert len(automatic.trainings()) == 1
        assert automatic.instance.get_runs_count() == 2
        assert type(automatic.instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        shown = commands()
        assert "mlflow server" in "\n".join(shown)
        assert PASSWORD not in "\n".join(shown)
        assert len([one for one in shown if "mlflow" in one]) == 2
    # Without the server: the commands use the database itself.
    variables = {"MLFLOW_TRACKING_URI": mlflow_url, "DAGSTER_HOME": str(home / "dagster")}
    ended = omokage_here("champions", "--home", str(home), **variables)
    assert "(none) → 1" in ended.output, ended.output
    for words, said in [
        (("rollback",), "nothing changed: "),  # there was no champion before it
        (("promote", "1"), "nothing changed: "),
        (("status",), "@champion is version 1"),
    ]:
        ended = omokage_here(*words, "--home", str(home), **variables)
        assert said in ended.output, (ended.output, ended.exception)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert [
        path
        for path in files
        if path.name == "MLmodel" and path.is_relative_to(home / "mlflow/artifacts")
    ]
    assert not [path for path in files if path.suffix == ".db"]
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def commands() -> list[str]:
    """The command lines of what this process has started; one that has just ended has none."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one too
            found.append(" ".join(one.cmdline()))
    return found
