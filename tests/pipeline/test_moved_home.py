"""A home that was moved or copied opens at its new place alone, and one of another MLflow says how.

The stored home of version 0.1.0 has a training; its half is registered here as the champion.
"""

import contextlib
import functools
import hashlib
import shutil
import socket
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.pyfunc import load_model
from PIL import Image

from dataset.errors import RegistryError, StoreError, UsageError
from models.registry.client import SQLITE, TrackingClient
from models.registry.program import log_generator
from models.registry.promotion import CHAMPION
from pipeline import build
from pipeline.settings import read_settings
from studio.model_source import ModelSource
from tests.assets.workshop import WorksHere
from tests.pipeline.conftest import omokage_here
from tests.pipeline.test_stored_home import ARCHIVE, TRAINING

OLDER, NEWER = "0584bdc529eb", "fedcba987654"  # a migration of MLflow's, and none that there is
KEY = "registered"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run, its picture, and a champion; nobody changes it."""
    home = tmp_path_factory.mktemp("homes") / "old pläce"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(home, filter="data")
    tracking = tracking_of(home)
    run_id = tracking.run_for(KEY, name="one", tags={})
    tracking.log_picture(run_id, "labels.png", b"picture")
    uri = log_generator(str(home / TRAINING), run_id=run_id, tracking_uri=tracking.uri)
    version = tracking.register(uri, run_id=run_id, tags={}, description="", model_page="")
    tracking.set_alias(CHAMPION, str(version.version))
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, at another place; the original is as before when the test has ended."""
    before = files_of(made)
    yield Path(shutil.copytree(made, tmp_path / "new place" / "ü"))
    assert files_of(made) == before


def tracking_of(home: Path) -> TrackingClient:
    return build.tracking_of(read_settings({}, home=str(home))).open()


def files_of(home: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(home)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(home.rglob("*"))
    }


@contextlib.contextmanager
def gone(folder: Path) -> Iterator[None]:
    """Has a folder elsewhere for the block."""
    away = folder.rename(folder.with_name("away"))
    try:
        yield
    finally:
        away.rename(folder)


def test_a_moved_home_has_its_champion(made: Path, home: Path, tmp_path: Path) -> None:
    with gone(made):
        out = tmp_path / "sample.png"
        drawn = omokage_here("sample", "--home", str(home), "--n", "2", "--out", str(out))
        assert drawn.exit_code == 0, (drawn.output, drawn.exception)
        assert f"{home} was at {made}: the locations in MLflow's database" in drawn.stderr
        with Image.open(out) as grid:
            assert grid.size == (2 * 64, 64)
        again = omokage_here("status", "--home", str(home))
        assert "@champion is version 1" in again.output
        assert "was at" not in again.output
        tracking = tracking_of(home)
        assert ModelSource(tracking_uri=tracking.uri).current().version == "1"
        picture = download_artifacts(
            run_id=tracking.run_for(KEY, name="one", tags={}),
            artifact_path="labels.png",
            tracking_uri=tracking.uri,
        )
        assert Path(picture).read_bytes() == b"picture"
        fetched = tracking.fetch_model(f"models:/{tracking.model}@{CHAMPION}", tmp_path / "model")
        assert (fetched / "MLmodel").exists()
        assert len(load_model(str(fetched)).predict(pd.DataFrame({"labels": [""]}))) == 1


def test_nothing_in_the_database_of_a_copy_names_the_original(made: Path, home: Path) -> None:
    tracking_of(home).client()
    for text in (str(made), made.as_uri(), made.parent.name):
        assert text.encode() not in b"".join(live_cells(home / "mlflow/mlflow.db"))


def live_cells(database: Path) -> Iterator[bytes]:
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.text_factory = bytes
        for (table,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall():
            for row in db.execute(f'SELECT * FROM "{table.decode()}"'):
                yield from (cell for cell in row if isinstance(cell, bytes))


def made_at(database: Path) -> set[str]:
    """The names of the homes that the experiments' locations are below."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        found = db.execute("SELECT artifact_location FROM experiments").fetchall()
    return {unquote(text.split("/mlflow/artifacts")[0].rsplit("/", 1)[1]) for (text,) in found}


def test_the_servers_start_on_a_database_that_has_followed_the_home(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that none of them is started
        port = taken.getsockname()[1]
        ended = omokage_here("up", "--home", str(home), "--mlflow-port", str(port))
    assert isinstance(ended.exception, UsageError)
    assert made_at(home / "mlflow/mlflow.db") == {"ü"}


@pytest.mark.ci
def test_a_training_in_a_copy_writes_into_the_copy(
    made: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = functools.partial(WorksHere, trains_here=True)
    monkeypatch.setattr(build, "ChildProcess", here)
    small = [f"--set={word}" for word in ("threads=1", "device=cpu", "total_kimg=0.064")]
    ended = omokage_here("train", "--home", str(home), "--preset", "dcgan64-smoke", *small)
    assert ended.exit_code == 0, (ended.output, ended.exception)
    client = MlflowClient(tracking_of(home).uri)
    newest, first = client.search_runs(["1"], order_by=["attributes.start_time DESC"])
    assert newest.info.artifact_uri.startswith(home.as_uri())
    assert first.info.artifact_uri.startswith(home.as_uri())
    assert client.list_artifacts(newest.info.run_id)


def test_a_database_that_is_no_homes_is_left_alone(home: Path, tmp_path: Path, made: Path) -> None:
    elsewhere = tmp_path / "shared" / "mlflow" / "mlflow.db"
    elsewhere.parent.mkdir(parents=True)
    shutil.copy(made / "mlflow/mlflow.db", elsewhere)
    before = list(live_cells(elsewhere))
    settings = read_settings({"MLFLOW_TRACKING_URI": f"{SQLITE}{elsewhere}"}, home=str(home))
    build.tracking_of(settings).open().client()
    assert list(live_cells(elsewhere)) == before


@pytest.mark.parametrize("content", [b"no database", None])
def test_a_database_that_cannot_be_changed_is_named(home: Path, content: bytes | None) -> None:
    database = home / "mlflow/mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as busy:
        if content is None:
            busy.execute("CREATE TRIGGER held UPDATE ON runs BEGIN SELECT RAISE(FAIL, 'held'); END")
        else:
            database.write_bytes(content * 100)
        with pytest.raises(StoreError, match=r"database .*mlflow\.db cannot be read, or not be ch"):
            tracking_of(home).client()
    if content is None:  # nothing of it was done
        assert made_at(database) == {"old pläce"}


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        (OLDER, r"made by an older MLflow .* Back it up, .*: mlflow db upgrade 'sqlite:///{home}/"),
        (NEWER, r"made by a newer MLflow than the one installed, [\d.]+: install that one again"),
    ],
)
def test_a_database_of_another_mlflow_names_what_mends_it(
    home: Path, revision: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(sqlite3.connect(home / "mlflow/mlflow.db")) as db, db:
        db.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    expected = said.format(home=home)
    for words in (("champions",), ("sample",), ("sample", "grid"), ("status",), ("up",)):
        ended = omokage_here(*words, "--home", str(home))
        assert isinstance(ended.exception, RegistryError), (words, ended.exception)
        with pytest.raises(RegistryError, match=expected):
            raise ended.exception
    with pytest.raises(RegistryError, match="another version of MLflow") as page:
        ModelSource(tracking_uri=tracking_of(home).uri).current()
    assert str(home) not in str(page.value)
    assert "MLflow than the one installed" in caplog.text
