"""Asks MLflow's registry which model a URI means, and fetches its files; faults in plain words."""

import concurrent.futures
import contextlib
import datetime
import logging
import os
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from dataset.errors import RegistryError, UsageError, bare

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION_URI = "models:/avatar-generator@champion"  # what draws unless an option says otherwise
REQUEST_S = 4  # that one HTTP request may take, connected or not
ANSWER_S = 5.0  # that a question may take, whatever kind of registry it is
_SQLITE = "sqlite:///"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
# MLflow's own defaults (120 s and 7 tries) are for trainings; a page has people who wait.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_S),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
_NAME = r"[^/@:'\"]+"
_FORMS = (
    re.compile(rf"models:/(?P<name>{_NAME})@(?P<alias>[^/@]+)"),
    re.compile(r"models:/(?P<logged>m-[0-9a-f]+)"),
    re.compile(rf"models:/(?P<name>{_NAME})/(?P<version>[1-9][0-9]*)"),
    re.compile(r"runs:/(?P<run>[0-9a-zA-Z]+)/(?P<path>[\w.-]+)"),
)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class ModelNotFoundError(RegistryError):
    """The registry answered, and has no such model, version or alias."""


class RegistryUnavailableError(RegistryError):
    """The registry did not answer, or not with what was wanted."""


class OtherSchemaError(RegistryUnavailableError):
    """The registry's database is of another MLflow; `schema_remedy` says what mends it."""


@dataclass(frozen=True)
class ModelUri:
    """A model URI in its parts.

    Attributes:
        text: as it was given.
        name: of the registered model, "" for a run's model and a logged one.
        alias, version: which of its versions; one of them is "".

    """

    text: str
    name: str = ""
    alias: str = ""
    version: str = ""


@dataclass(frozen=True)
class ResolvedModel:
    """The one model that a URI means just now.

    Attributes:
        name, version: "avatar-generator" and "3"; of a run's or a logged model the URI and "".
        made: when it was registered, such as "2026-11-21 20:15 UTC", "" if the registry keeps no
            time.

    """

    name: str
    version: str
    made: str

    @property
    def key(self) -> str:
        """What links name a version by, "avatar-generator/3"; "" for what is no version."""
        return f"{self.name}/{self.version}" if self.version else ""

    @property
    def title(self) -> str:
        """The model's name for people."""
        return f"{self.name} version {self.version}" if self.version else self.name


def is_model_uri(text: str) -> bool:
    """Tells whether a text is meant as a URI of MLflow's, not as a folder."""
    return text.startswith(("models:", "runs:"))


def parse_model_uri(text: str) -> ModelUri:
    """Reads a model URI; raises UsageError with the forms that there are."""
    for form in _FORMS:
        match = form.fullmatch(text)
        if match:
            parts = match.groupdict()
            return ModelUri(text, *(parts.get(part) or "" for part in ("name", "alias", "version")))
    raise UsageError(
        f'"{text}" is no model URI; models:/NAME@ALIAS, models:/NAME/3 or '
        "runs:/RUN_ID/generator wanted"
    )


class Registry:
    """The registry behind a tracking URI; every question is answered within ANSWER_S seconds.

    MLflow's global addresses stay as they are. Its HTTP timeout and number of tries are set in the
    environment, for this process, unless they stand there already.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self.place = _place(tracking_uri)
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)

    @property
    def silence(self) -> str:
        """What is said of a registry that does not answer."""
        return (
            f"{self.place[0].upper()}{self.place[1:]} does not answer as it should. Does MLflow "
            "run, and is MLFLOW_TRACKING_URI right?"
        )

    def find(self, uri: ModelUri) -> ResolvedModel:
        """Returns the model that a URI means; raises RegistryError.

        It is a ModelNotFoundError or a RegistryUnavailableError.
        """
        return self._asked(lambda: self._found(uri), absent=self._absent(uri))

    def fetch(self, found: ResolvedModel, into: Path) -> Path:
        """Fetches a model's files into a folder and returns where they lie; raises RegistryError.

        It takes the time that the files need, but no longer than REQUEST_S without a byte.
        """
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        gone = f"{found.title} is not in {self.place}."
        location = self._asked(lambda: self._location(found), absent=gone)
        try:
            fetched = mlflow.artifacts.download_artifacts(
                artifact_uri=location,
                dst_path=str(into),
                tracking_uri=self.tracking_uri,
                registry_uri=self.tracking_uri,
            )
        except (MlflowException, OSError) as error:
            said = without_secrets(str(error), self.tracking_uri)
            _log.warning("%s could not be fetched: %s", found.title, said)
            raise RegistryUnavailableError(
                f"The files of {found.title} could not be fetched: {self.place} does not answer, "
                "or they are not where it says."
            ) from error
        return Path(fetched)

    def versions(self, name: str) -> list[str]:
        """Returns the versions of a registered model, the latest first; raises RegistryError."""

        def numbers() -> list[str]:
            found = self._client().search_model_versions(f"name = '{name}'")
            return [str(number) for number in sorted(int(one.version) for one in found)[::-1]]

        return self._asked(numbers, absent=f"There is no model {name} in {self.place}.")

    def _found(self, uri: ModelUri) -> ResolvedModel:
        if not uri.name:
            return ResolvedModel(uri.text, "", "")
        client = self._client()
        if uri.alias:
            version = client.get_model_version_by_alias(uri.name, uri.alias)
        else:
            version = client.get_model_version(uri.name, uri.version)
        return ResolvedModel(
            uri.name, str(version.version), format_time(version.creation_timestamp / 1000)
        )

    def _location(self, found: ResolvedModel) -> str:
        """Returns the artifact URI of a model's files."""
        if found.version:
            # Not `models:/NAME/3`: MLflow asks its global address for those, never this one.
            return self._client().get_model_version_download_uri(found.name, found.version)
        if found.name.startswith("runs:"):
            _, run_id, name = found.name.split("/")
            return self._location_in_run(run_id, name)
        logged = self._client().get_logged_model(found.name.removeprefix("models:/"))
        return str(logged.artifact_location)

    def _location_in_run(self, run_id: str, name: str) -> str:
        """Returns where a run's model of that name lies; MLflow 2 kept it among the artifacts."""
        client = self._client()
        info = client.get_run(run_id).info
        page = None
        while page is None or page.token:
            page = client.search_logged_models(
                [info.experiment_id],
                filter_string=f"name = '{name}'",
                page_token=page.token if page else None,
            )
            for logged in page:
                if logged.source_run_id == run_id:
                    return str(logged.artifact_location)
        return f"{info.artifact_uri}/{name}"

    def _client(self) -> "MlflowClient":
        import mlflow  # slow to import

        return mlflow.MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    def _exists(self) -> bool:
        """Tells whether there is anything to ask; MLflow would make a missing SQLite file."""
        if not self.tracking_uri.startswith(_SQLITE):
            return True
        return Path(self.tracking_uri.removeprefix(_SQLITE).partition("?")[0]).exists()

    def _asked(self, question: Callable[[], _T], *, absent: str) -> _T:
        if not self._exists():
            raise ModelNotFoundError(absent)
        import mlflow  # noqa: F401  slow to import; that is no fault of the registry
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            # A file answers or fails by itself; it may take its time on a busy machine.
            is_file = self.tracking_uri.startswith(_SQLITE)
            return question() if is_file else _within(question, ANSWER_S)
        except MlflowException as error:
            if error.error_code in _ABSENT:
                raise ModelNotFoundError(absent) from error
            raise self._silent(error) from error
        except (OSError, ImportError, SQLAlchemyError) as error:  # a TimeoutError is an OSError
            raise self._silent(error) from error

    def _silent(self, error: Exception) -> RegistryUnavailableError:
        remedy = schema_remedy(error, self.tracking_uri)
        # What is logged may hold paths and SQL, which no page shows.
        said = remedy or without_secrets(str(error), self.tracking_uri)
        _log.warning("MLflow at %s: %s", self.place, said)
        if remedy:
            return OtherSchemaError(
                f"The database of {self.place} is of another version of MLflow. Whoever runs this "
                "page finds in its log what mends it."
            )
        return RegistryUnavailableError(self.silence)

    def _absent(self, uri: ModelUri) -> str:
        if uri.alias:
            return (
                f"There is no {uri.alias} yet: no version of {uri.name} in {self.place} has that "
                "alias. `make demo` makes and registers a generator."
            )
        if uri.version:
            return f"There is no version {uri.version} of {uri.name} in {self.place}."
        return f"There is no model {uri.text} in {self.place}."


def schema_remedy(error: BaseException | None, uri: str) -> str:
    """Returns what to do about a database of another MLflow; "" if the error is of another kind.

    uri: of the database; only the path of an SQLite file is shown, others may hold a password.
    """
    found = re.search(r"out-of-date database schema \(found version (\w+)", str(error))
    if found is None:
        return ""
    import mlflow

    shown = shlex.quote(uri) if uri.startswith(_SQLITE) else '"$MLFLOW_TRACKING_URI"'
    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    if not list(migrations.glob(f"{found[1]}_*.py")):
        return (
            f"MLflow's database {shown} was made by a newer MLflow than the one installed, "
            f"{mlflow.__version__}: install that one again"
        )
    return (
        f"MLflow's database {shown} was made by an older MLflow than the one installed, "
        f"{mlflow.__version__}. Back it up, then bring it up to date: mlflow db upgrade {shown}"
    )


def shown_uri(uri: str) -> str:
    """Returns a tracking URI as people see it: without user, password and query."""
    return uri if uri.startswith(_SQLITE) or "://" not in uri else bare(uri)


def without_secrets(text: str, uri: str) -> str:
    """Returns a text, such as an error of MLflow's, with a tracking URI only as it is shown."""
    user = uri.partition("://")[2].partition("/")[0].rpartition("@")[0]
    text = text.replace(uri, shown_uri(uri))
    return text.replace(f"{user}@", "") if user else text


@contextlib.contextmanager
def explained(uri: str, fault: str = "", *errors: type[Exception]) -> Iterator[None]:
    """Raises RegistryError when the MLflow at `uri`, or one of `errors`, fails in the block.

    fault: what failed, in words. No password is in the text, nor in the cause that Dagster stores
    beside it. Errors of an SQLite file itself pass: a full disk is explained elsewhere.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    kinds: tuple[type[Exception], ...] = (MlflowException, *errors)
    if not uri.startswith(_SQLITE):
        kinds = (*kinds, SQLAlchemyError, ImportError)
    try:
        yield
    except kinds as error:
        said = without_secrets(str(error), uri)
        fault = fault or f"MLflow at {shown_uri(uri)} did not answer as it should"
        remedy = "Is MLFLOW_TRACKING_URI right, and does the server run?"
        if isinstance(error, ImportError) and uri.startswith("postgresql"):
            remedy = "Install omokage[postgres], and write postgresql+psycopg2://…"
        raise RegistryError(schema_remedy(error, uri) or f"{fault}: {said}. {remedy}") from (
            error if said == str(error) else None
        )


def format_time(seconds: float) -> str:
    """Returns a time since 1970 as people read it: "2026-11-21 20:15 UTC"."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _place(tracking_uri: str) -> str:
    """Names a registry for people: its address without a password, and no path of the machine."""
    parts = urlsplit(tracking_uri)
    if parts.scheme not in ("http", "https"):
        return "the registry"
    port = f":{parts.port}" if parts.port else ""
    return f"the registry at {parts.scheme}://{parts.hostname}{port}"


def _within(question: Callable[[], _T], limit_s: float) -> _T:
    """Returns the answer; raises TimeoutError if that takes too long, and what the question raises.

    The question goes on in a thread of its own, which ends with the process.
    """
    answer: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:  # handed on to whoever waits
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True, name="registry").start()
    result: _T = answer.result(timeout=limit_s)
    return result
