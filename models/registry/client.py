"""The client of MLflow's tracking server and registry: runs by key, versions, aliases, tags."""

import contextlib
import io
import json
import os
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from dataset.errors import RegistryError, StoreError
from dataset.store import file_lock
from models.registry.gate import OLD_METRIC
from models.registry.model_uri import explained, shown_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

SQLITE = "sqlite:///"  # begins the address of a database file
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # begin that of a database without a server
RUN_KEY = "omokage.run_key"
IMAGES = "images"  # where MLflow keeps the pictures of series
GONE = "RESOURCE_DOES_NOT_EXIST"
# What of an evaluation stands on the run as a metric, beside the distances that it names itself.
EVALUATED = (
    "sigma",
    "real_fd",
    "real_fd_at128",
    "real_precision",
    "real_recall",
    "real_coverage",
    "real_spread",
    "real_spread_within_labels",
    "precision",
    "recall",
    "coverage",
    "spread",
    "spread_within_labels",
    "precision_sigma",
    "recall_sigma",
    "coverage_sigma",
    "spread_sigma",
    "spread_within_labels_sigma",
    "label_ap",
    "label_ap_sigma",
    "real_label_ap",
    "label_chance",
    "flip_success",
    "memory_ratio",
    "copied_frac",
    "hair_colour_hits",
    "real_hair_colour_hits",
)


@dataclass(frozen=True)
class TrackingClient:
    """The MLflow tracking server and registry, and one registered model in it.

    A run belongs to a training, not to a process: it is found again by its key when the training
    resumes. `artifacts` is the artifact root of a new experiment, empty for the server's own.
    `mlflow_url` and `dagster_url` are where people open the two UIs, for links.
    """

    uri: str = field(repr=False)  # may have a password; `place` is for people
    artifacts: str = ""
    experiment: str = "avatar-generators"
    model: str = "avatar-generator"
    mlflow_url: str = "http://127.0.0.1:5000"
    dagster_url: str = "http://127.0.0.1:3000"

    @property
    def place(self) -> str:
        """The address for people: without user, password and query."""
        return shown_uri(self.uri)

    def database_exists(self) -> bool:
        """Tells whether there is anything to ask: a server, or a database file made before."""
        return not self.uri.startswith(SQLITE) or Path(self.uri.removeprefix(SQLITE)).exists()

    def client(self) -> "MlflowClient":
        """Returns a client on this server, after making the database on first use.

        A home's own database first follows the home (see `relocate`). Raises RegistryError, naming
        the URI, when it is out of reach or of another MLflow; StoreError if there is no database
        yet and it cannot be made.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("DO_NOT_TRACK", "true")
        import mlflow  # slow to import, and only some stages need it

        if self.uri.startswith(SQLITE):
            database = Path(self.uri.removeprefix(SQLITE)).absolute()
            lay_out(database, artifacts=self.artifacts)
            if self.artifacts == _artifacts_beside(database):  # a home's own, no user's elsewhere
                relocate(database)
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        with self.explained():
            return mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment_id(self) -> str:
        """Returns the id of the experiment, made on first use with our artifact root."""
        client = self.client()
        with self.explained():
            known = client.get_experiment_by_name(self.experiment)
            if known is not None:
                return str(known.experiment_id)
            return str(client.create_experiment(self.experiment, self.artifacts or None))

    def run_for(self, key: str, *, name: str, tags: dict[str, str]) -> str:
        """Returns the id of the run with this key, made on first use; opens it again if it ended.

        The same key (the digest of manifest and configuration) always gives the same run, so a
        training that was stopped goes on in the run that it began.
        """
        client, experiment_id = self.client(), self.experiment_id()
        with self.explained():
            found = client.search_runs(
                [experiment_id], f"tags.`{RUN_KEY}` = '{key}'", max_results=1
            )
            if found:
                run_id = str(found[0].info.run_id)
                for tag, value in tags.items():
                    client.set_tag(run_id, tag, value)
                return run_id
            run = client.create_run(
                experiment_id,
                start_time=int(time.time() * 1000),
                tags={RUN_KEY: key, **tags},
                run_name=name,
            )
            return str(run.info.run_id)

    @contextlib.contextmanager
    def open_run(
        self, run_id: str, *, interrupts: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
    ) -> Iterator[None]:
        """Marks a run as running while the block works, then finished, failed or killed.

        interrupts: what is raised in the block when a person stops it; the run is then killed. An
        MLflow that is out of reach at the end takes nothing from the block: a line on stderr.
        """
        client = self.client()
        with self.explained():
            client.update_run(run_id, status="RUNNING")
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except interrupts:
            status = "KILLED"
            raise
        finally:
            try:
                with self.explained():
                    client.set_terminated(run_id, status)
            except RegistryError as error:
                print(
                    f"run {run_id} is {status}, and MLflow does not know: {error}", file=sys.stderr
                )

    def log_evaluation(
        self, run_id: str, made: Mapping[str, Any], *, step: int, model_id: str | None = None
    ) -> None:
        """Puts an evaluation's numbers onto the generator's run, at the images that it has seen.

        What was not measured, such as the label AP of a family without labels, is left out, and so
        is what stands there already at that step. model_id: of the logged model, which then has
        the numbers too: MLflow compares models by their own.
        """
        metric, kernel = made.get("metric", OLD_METRIC), made.get("kernel_metric")
        named = [metric, f"{metric}_at128", f"joint_{metric}"]
        ends = ("", "_sigma", "_se", "_at128", "_at128_se")
        named += [f"{kernel}{end}" for end in ends] if kernel else []
        client = self.client()
        with self.explained():
            for name in (*named, *EVALUATED):
                if made.get(name) is None:
                    continue
                key, value = f"eval/{name}", float(made[name])
                known = client.get_metric_history(run_id, key)
                same = [one for one in known if (one.step, one.value) == (step, value)]
                if same and not model_id:
                    continue
                # Logged with the same time again, a run's metric stands there once.
                at = same[0].timestamp if same else None
                client.log_metric(run_id, key, value, timestamp=at, step=step, model_id=model_id)
            client.set_tag(run_id, "omokage.protocol", made["protocol_digest"])

    def log_picture(self, run_id: str, name: str, png: bytes) -> None:
        """Puts a PNG among the run's artifacts."""
        with tempfile.TemporaryDirectory() as folder, self.explained():
            path = Path(folder) / name
            path.write_bytes(png)
            self.client().log_artifact(run_id, str(path))

    def log_picture_of_step(self, run_id: str, key: str, png: bytes, *, step: int) -> None:
        """Puts a PNG into the run's series `key`, at the images seen; once at most."""
        client = self.client()
        known = re.compile(rf"{re.escape(key)}[+%]step[+%]{step}[+%]")
        with self.explained():
            names = [Path(file.path).name for file in client.list_artifacts(run_id, IMAGES)]
            if not any(known.match(name) for name in names):
                with Image.open(io.BytesIO(png)) as picture:
                    client.log_image(run_id, picture.convert("RGB"), key=key, step=step)

    def runs(self) -> list["Run"]:
        """Returns all runs of our experiment, the deleted ones too: their artifacts still exist."""
        from mlflow.entities import ViewType

        client, token = self.client(), None
        found: list[Run] = []
        with self.explained():
            experiment = client.get_experiment_by_name(self.experiment)
            while experiment is not None:
                ids = [experiment.experiment_id]
                page = client.search_runs(ids, run_view_type=ViewType.ALL, page_token=token)
                found += page
                if not (token := page.token):
                    break
        return found

    def pictures(self, run_id: str) -> list[str]:
        """Returns the paths of the pictures of series among a run's artifacts."""
        client = self.client()
        with self.explained():
            return [file.path for file in client.list_artifacts(run_id, IMAGES)]

    def versions(self, tags: Mapping[str, str]) -> list["ModelVersion"]:
        """Returns the model's versions that bear all these tags, the newest first."""
        client = self.client()
        with self.explained():
            found = client.search_model_versions(f"name='{self.model}'")
        bearing = [v for v in found if all(v.tags.get(k) == value for k, value in tags.items())]
        return sorted(bearing, key=lambda version: int(version.version), reverse=True)

    def register(
        self, uri: str, *, run_id: str, tags: dict[str, str], description: str, model_page: str
    ) -> "ModelVersion":
        """Makes a logged model the next version of the registered model, with its tags at once.

        model_page: description of the registered model, if this is its first version.
        """
        client = self.client()
        with self.explained():
            if self.registered() is None:
                client.create_registered_model(self.model, description=model_page)
            # A server takes a logged model (models:/m-…) only if it is named beside it.
            model_id = uri.removeprefix("models:/") if uri.startswith("models:/m-") else None
            return client.create_model_version(
                self.model,
                uri,
                run_id=run_id,
                tags=tags,
                description=description,
                model_id=model_id,
            )

    def registered(self) -> "RegisteredModel | None":
        """Returns the registered model with its tags and aliases; None before the first version."""
        client = self.client()
        with self.explained():
            found = client.search_registered_models(f"name='{self.model}'")
        return found[0] if found else None

    def version(self, number: str) -> "ModelVersion | None":
        """Returns a version of the registered model; None if there is none of that number."""
        from mlflow.exceptions import MlflowException

        if not (number.isascii() and number.isdecimal()):
            return None
        client = self.client()
        with self.explained():
            try:
                return client.get_model_version(self.model, number)
            except MlflowException as error:
                if error.error_code == GONE:
                    return None
                raise

    def aliases(self) -> dict[str, str]:
        """Returns the version that each alias stands for."""
        model = self.registered()
        return {name: str(v) for name, v in model.aliases.items()} if model else {}

    def holder(self, alias: str) -> "ModelVersion | None":
        """Returns the version that has the alias; None if none does."""
        return self.version(self.aliases().get(alias, ""))

    def set_alias(self, alias: str, version: str) -> None:
        """Moves an alias to a version."""
        with self.explained():
            self.client().set_registered_model_alias(self.model, alias, version)

    def drop_alias(self, alias: str) -> None:
        """Takes an alias away; one that nobody bears is fine."""
        with self.explained():
            self.client().delete_registered_model_alias(self.model, alias)

    def model_tags(self) -> dict[str, str]:
        """Returns the tags of the registered model."""
        model = self.registered()
        return dict(model.tags) if model else {}

    def tag_model(self, tag: str, value: str) -> None:
        """Puts a tag onto the registered model."""
        with self.explained():
            self.client().set_registered_model_tag(self.model, tag, value)

    def tag_version(self, version: "ModelVersion", tags: Mapping[str, str]) -> None:
        """Puts tags onto a version; those that stand there already are not written again."""
        client = self.client()
        with self.explained():
            for tag, value in tags.items():
                if version.tags.get(tag) != value:
                    client.set_model_version_tag(self.model, str(version.version), tag, value)

    def untag_version(self, version: "ModelVersion", tag: str) -> None:
        """Takes a tag from a version; one that is not there is fine."""
        if tag in version.tags:
            with self.explained():
                self.client().delete_model_version_tag(self.model, str(version.version), tag)

    def describe(self, page: str) -> None:
        """Sets the registered model's description, if it is another."""
        model = self.registered()
        if model is not None and model.description != page:
            with self.explained():
                self.client().update_registered_model(self.model, page)

    def describe_version(self, version: "ModelVersion", page: str) -> None:
        """Sets a version's description, if it is another."""
        if version.description != page:
            with self.explained():
                self.client().update_model_version(self.model, str(version.version), page)

    def run_url(self, run_id: str) -> str:
        """Returns where people see a run in MLflow's UI."""
        return f"{self.mlflow_url}/#/experiments/{self.experiment_id()}/runs/{run_id}"

    def fetch_model(self, uri: str, into: Path) -> Path:
        """Fetches a model's files into a folder and returns where they lie.

        uri: models:/NAME/3, models:/NAME@alias or runs:/ID/generator. Raises RegistryError if
        MLflow has no such model.
        """
        self.client()  # sets the address that MLflow's own functions use
        import mlflow.artifacts

        with self.explained(f"{self.place} did not give the model {uri}", OSError):
            found = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into))
        return Path(found)

    def version_url(self, version: str) -> str:
        """Returns where people see a version of the registered model in MLflow's UI."""
        return f"{self.mlflow_url}/#/models/{self.model}/versions/{version}"

    def explained(
        self, fault: str = "", *errors: type[Exception]
    ) -> contextlib.AbstractContextManager[None]:
        """Raises RegistryError when MLflow, its database or one of `errors` fails in the block."""
        return explained(self.uri, fault, *errors)


def lay_out(path: Path, *, artifacts: str = "") -> None:
    """Makes MLflow's database at `path` unless there is one; whole, or not at all.

    MLflow makes its tables in a hundred steps that it cannot go on with: where a process was killed
    between them, every later one fails on a table that is there already. Of two that come at once
    one waits for the other. artifacts: root of MLflow's own experiment "Default", by default a
    folder beside the database. Raises StoreError if the folder cannot be written.
    """
    if path.exists():
        return
    try:
        with file_lock(path.with_name(f"{path.name}.lock")):
            if not path.exists():
                _create_database(path, artifacts or _artifacts_beside(path))
    except OSError as error:
        raise StoreError(
            f"MLflow's database cannot be made at {path}: {error.strerror or error}; set "
            "OMOKAGE_HOME to a folder that can be written"
        ) from error


def _create_database(path: Path, artifacts: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # slow to import

    unfinished = path.with_name(f"{path.name}.unfinished")
    for left in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        left.unlink(missing_ok=True)  # by one that was killed
    store = SqlAlchemyStore(f"{SQLITE}{unfinished}", artifacts)  # type: ignore[no-untyped-call]
    store.engine.dispose()
    unfinished.rename(path)


# Columns that hold the absolute address of a file or folder; an older MLflow lacks some.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
_SOURCE = ("datasets", "dataset_source")  # JSON with the path of a manifest
# A home's artifact root, or the folder of an experiment below it.
_ROOT = re.compile(r"(file://.*/mlflow/artifacts)(?:/\d+)?")


def relocate(database: Path) -> None:
    """Points the locations in a home's own database at the folder of artifacts beside it.

    MLflow stores them absolute: of a home that was moved nothing would be found, and one that was
    copied would read from the original and write its next run there. All change in one
    transaction, and a line on stderr says so. Raises StoreError if they cannot.
    """
    if not database.exists():
        return
    here = _artifacts_beside(database)
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=30.0)) as db, db:
            moved = sorted(_roots(db) - {here})
            for root in moved:
                _rewrite(db, root, here)
    except sqlite3.Error as error:
        raise StoreError(
            f"MLflow's database {database} cannot be read, or not be changed after its home was "
            f"moved: {error}; make it writable, or restore it from a backup"
        ) from error
    for root in moved:
        print(
            f"{_home(here)} was at {_home(root)}: the locations in MLflow's database were changed",
            file=sys.stderr,
        )


def _roots(db: sqlite3.Connection) -> set[str]:
    """Returns the artifact roots of homes that the experiments were made in."""
    if not _has(db, *_LOCATIONS[0]):
        return set()
    found = db.execute("SELECT artifact_location FROM experiments").fetchall()
    return {match[1] for (text,) in found if (match := _ROOT.fullmatch(text or ""))}


def _rewrite(db: sqlite3.Connection, root: str, here: str) -> None:
    for table, column in _LOCATIONS:
        if _has(db, table, column):
            db.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (here, len(root) + 1, root, len(root) + 1, f"{root}/"),
            )
    table, column = _SOURCE
    if _has(db, table, column):
        texts = [f"{json.dumps(str(_home(one)))[:-1]}/" for one in (root, here)]
        db.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", texts)  # noqa: S608


def _has(db: sqlite3.Connection, table: str, column: str) -> bool:
    found = db.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column))
    return found.fetchone() is not None


def _artifacts_beside(database: Path) -> str:
    return (database.parent / "artifacts").as_uri()


def _home(root: str) -> Path:
    return Path(unquote(urlsplit(root).path)).parents[1]
