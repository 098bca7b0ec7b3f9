"""Settings from the environment: read once, checked wholly, and handed on to child processes.

Pydantic checks them; pydantic-settings would add only the reading of os.environ, one line here.
"""

import os
import re
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from crawlers.sites import is_loopback
from dataset.compute import LOCAL, parse_compute, parse_launcher
from dataset.errors import ConfigError, bare, listed, nearest
from dataset.store import DATA, HOME, STATE, Store
from pipeline.automation.cron import DEFAULT_REFRESH, refresh_crons

if TYPE_CHECKING:
    from models.registry.client import TrackingClient

PROJECT = Path(__file__).resolve().parent.parent
"""The folder with workspace.yaml, dagster.yaml and mlflow/."""

BOARD_PORT = 4650
KEEP = 5  # of the newest trainings, manifests and runs of a job: what `omokage gc` leaves
DAGSTER_URL, MLFLOW_URL = "http://127.0.0.1:3000", "http://127.0.0.1:5000"
EXECUTORS = ("in_process", "multiprocess")

# The chain, in its order; `crawl` stands for the crawl of every site.
CRAWL = "crawl"
DATASET_STAGES = ("posts", "faces", "labels", "machine_labels", "manifest")
TRAINING_STAGES = ("generator", "evaluation", "champion")
STAGES = (CRAWL, *DATASET_STAGES, *TRAINING_STAGES)

DEFAULT_GROW = "10%"  # of OMOKAGE_GROW, the growth of the manifest that starts a training

# Variables of ours that other packages read by themselves.
ELSEWHERE = {
    "OMOKAGE_PROGRESS": "off silences the progress lines",
    "OMOKAGE_EXTRACTOR_WEIGHTS": "weights file of the extractor inception",
    "OMOKAGE_REAL_DATA": "folder of real pictures for the tests",
    "OMOKAGE_STUDIO_PASSWORD": "password of the studio's page, with a user",
    "OMOKAGE_STUDIO_USER": "user of the studio's page, with a password",
}

# Variables of other programs for what we start, unless they are set already.
DEFAULTS = {
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # Threads that wait for work by spinning take 2.3x as long on a busy machine, and ones that
    # sleep at once 1.5x on an idle one: after a short spin it is a fifth more on both.
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "1000",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
}

# Also for what trains, measures and labels: what glibc's malloc frees stays in the process, in huge
# pages. Else a training step on a CPU gives 40 to 60 MB back and takes them again, in 16,000 page
# faults (docs/training.md). Not for crawls and servers, which are not to keep their peak of memory.
COMPUTING = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=8589934592"
    ":glibc.malloc.mmap_threshold=33554432",
}

# Variables of other programs that a run needs wherever it runs, where they are set.
OF_OTHERS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"),
    *("MLFLOW_S3_ENDPOINT_URL", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"),
)
# No run reads these: pages do, tests, and the daemon.
NOT_OF_RUNS = {
    *("OMOKAGE_REAL_DATA", "OMOKAGE_STUDIO_PASSWORD", "OMOKAGE_STUDIO_USER", "OMOKAGE_WEBHOOK"),
}


@dataclass(frozen=True)
class Threshold:
    """The growth that starts a training: a part of the learnt faces, a number, or either."""

    frac: float | None = None
    faces: int | None = None

    def reached(self, new: int, learnt: int) -> bool:
        """Tells whether so many new faces beside so many learnt ones are enough."""
        # Divided, since 0.1 * 1950 is a little more than 195.
        by_part = self.frac is not None and (not learnt or new / learnt >= self.frac)
        by_number = self.faces is not None and new >= self.faces
        return new > 0 and (by_part or by_number)

    @property
    def words(self) -> str:
        """What is wanted, such as `10 % or 500 wanted`."""
        parts = [percent(self.frac)] if self.frac is not None else []
        parts += [f"{self.faces:,}"] if self.faces is not None else []
        return f"{' or '.join(parts)} wanted"


def parse_threshold(text: str) -> Threshold:
    """Reads `10%`, `500`, or `10%,500` for either; raises ConfigError saying what is wanted."""
    parts: dict[bool, float] = {}
    for part in map(str.strip, text.split(",")):
        number = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,2})?)\s*(%?)", part)
        if number is None or float(number[1]) == 0 or ("." in number[1] and not number[2]):
            raise ConfigError(
                f'"{part}" is no growth; a part such as 10%, a number of faces such as 500, or '
                "both (10%,500: whichever comes first) wanted"
            )
        is_part = bool(number[2])
        if is_part in parts:
            raise ConfigError(f'"{text}" has two {"parts" if is_part else "numbers"}; one wanted')
        parts[is_part] = float(number[1])
    return Threshold(
        frac=parts[True] / 100 if True in parts else None,
        faces=int(parts[False]) if False in parts else None,
    )


def percent(part: float) -> str:
    """Returns a part of 1 in words, such as `3.24 %`."""
    number = f"{100 * part:,.2f}".rstrip("0").rstrip(".")
    return f"{number} %"


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().resolve())


def _local_folder(path: str, info: ValidationInfo) -> str:
    name, hint = VARIABLES[str(info.field_name)], ""
    if "://" in path:
        if info.field_name == "home":
            hint = f"; {DATA} may name an object store, with {HOME} a folder of this machine"
        raise ValueError(f'{name} is "{path}"; a local folder wanted{hint}')
    return _absolute(path)


def _whole_number(given: str | int) -> int:
    text = str(given)
    if text.isdecimal() and 1 <= int(text) <= 256:
        return int(text)
    raise ValueError(f'OMOKAGE_WORKERS is "{text}"; a whole number from 1 to 256 wanted')


def _names(given: str | tuple[str, ...]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else given
    return tuple(filter(None, map(str.strip, names)))


def _check_executor(text: str) -> None:
    if text not in EXECUTORS and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text):
        raise ConfigError(
            f'OMOKAGE_EXECUTOR is "{text}"{nearest(text, EXECUTORS)}; {", ".join(EXECUTORS)} or '
            "MODULE:ATTRIBUTE wanted, such as dagster_k8s:k8s_job_executor"
        )


def _check_timezone(text: str) -> None:
    if text not in (known := zoneinfo.available_timezones()):
        hint = nearest(text, known) or "; a name such as Europe/Berlin wanted"
        raise ConfigError(f'OMOKAGE_TIMEZONE is "{text}", which is no time zone{hint}')


def check_webhook(url: str) -> None:
    """Raises ConfigError unless `url` is empty, https, or http on this machine.

    Its text names no more than the scheme and the host.
    """
    if not url:
        return
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise ConfigError(
            "it cannot be read; an address such as https://host/path wanted"
        ) from error
    if not host:
        raise ConfigError("it names no host; an address such as https://host/path wanted")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigError(
            f'its scheme is "{parts.scheme}" and its host {host}; https wanted (http only on this '
            "machine), since others could read along"
        )


def _checked(check: Callable[[str, dict[str, Any]], Any], prefix: str = "") -> AfterValidator:
    """Calls `check` with a value and the fields before it; pydantic gathers its ConfigErrors."""

    def validate(text: str, info: ValidationInfo) -> str:
        try:
            check(text, info.data)
        except ConfigError as error:
            raise ValueError(f"{prefix}{error}") from error
        return text

    return AfterValidator(validate)


Address = Annotated[str, AfterValidator(lambda url: url.rstrip("/"))]


class Settings(BaseModel):
    """Where things lie and how they run; each field has an environment variable (see VARIABLES)."""

    model_config = ConfigDict(frozen=True)

    home: Annotated[str, AfterValidator(_local_folder)]
    # The three roots of the home: itself, unless they are put elsewhere.
    data: Annotated[str, AfterValidator(_absolute)] = ""
    state: Annotated[str, AfterValidator(_local_folder)] = ""
    scratch: Annotated[str, AfterValidator(_local_folder)] = ""
    sites: Annotated[tuple[str, ...], BeforeValidator(_names)] = ("demo",)
    sites_file: str = ""
    board_url: str = f"http://127.0.0.1:{BOARD_PORT}"
    contact: str = ""
    workers: Annotated[int, BeforeValidator(_whole_number)] = os.cpu_count() or 1
    compute: Annotated[
        str,
        _checked(
            lambda text, before: parse_compute(text, workers=before.get("workers", 1)),
            "OMOKAGE_COMPUTE: ",
        ),
    ] = "processes"
    launcher: Annotated[
        str, _checked(lambda text, _: parse_launcher(text), "OMOKAGE_LAUNCHER: ")
    ] = LOCAL
    executor: Annotated[str, _checked(lambda text, _: _check_executor(text))] = EXECUTORS[0]
    # File with tags of single stages, for executors that give each its own resources
    step_tags: Annotated[str, AfterValidator(_absolute)] = ""
    tracking_uri: str = Field(default="", repr=False)  # may hold a password
    dagster_home: Annotated[str, AfterValidator(_absolute)] = ""
    dagster_url: Address = DAGSTER_URL  # where people open the two UIs: what links point at
    mlflow_url: Address = ""
    # When the schedules of the sites come, and the growth that starts a training
    refresh: Annotated[str, _checked(lambda text, before: refresh_crons(text, before["sites"]))] = (
        DEFAULT_REFRESH
    )
    grow: Annotated[str, _checked(lambda text, _: parse_threshold(text), "OMOKAGE_GROW: ")] = (
        DEFAULT_GROW
    )
    webhook: Annotated[str, _checked(lambda text, _: check_webhook(text), "OMOKAGE_WEBHOOK: ")] = (
        Field(default="", repr=False)  # may hold a secret
    )
    timezone: Annotated[str, _checked(lambda text, _: _check_timezone(text))] = "UTC"
    # File with the configuration of the runs that nobody starts by hand
    auto_config: Annotated[str, AfterValidator(_absolute)] = ""

    @property
    def store(self) -> Store:
        """The home's three roots."""
        return Store(self.data, state=self.state, scratch=self.scratch)

    @property
    def own_database(self) -> Path:
        """MLflow's database in the home, which is used unless MLFLOW_TRACKING_URI says another."""
        return Path(self.state) / "mlflow" / "mlflow.db"

    @property
    def is_tracked_here(self) -> bool:
        """Whether MLflow's database is the home's own."""
        return self.tracking_uri == f"sqlite:///{self.own_database}"

    def environment(self) -> dict[str, str]:
        """Returns the variables that give a child process these very settings, but the webhook.

        A webhook may hold a secret, and no child needs it.
        """
        values = {**self.model_dump(exclude={"webhook"}), "sites": ",".join(self.sites)}
        if {self.data, self.state, self.scratch} == {self.home}:
            # So that a --home of a child moves all three.
            values |= {"data": "", "state": "", "scratch": ""}
        own = {VARIABLES[field]: str(value) for field, value in values.items() if value}
        return _unless_set(DEFAULTS) | own


def computing_environment() -> dict[str, str]:
    """Returns the variables that let a training or an evaluation compute faster on a CPU."""
    return _unless_set(COMPUTING)


def _unless_set(defaults: Mapping[str, str]) -> dict[str, str]:
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


VARIABLES = {field: f"OMOKAGE_{field.upper()}" for field in Settings.model_fields}
VARIABLES |= {"tracking_uri": "MLFLOW_TRACKING_URI", "dagster_home": "DAGSTER_HOME"}


def variables_of_runs(credentials: Iterable[str] = ()) -> list[str]:
    """Returns the names of all variables that runs read, for launchers of containers.

    credentials: the names of those of the boards.
    """
    ours = {*VARIABLES.values(), *ELSEWHERE} - NOT_OF_RUNS
    return sorted({*ours, *DEFAULTS, *OF_OTHERS, *credentials})


def read_settings(environment: Mapping[str, str] | None = None, *, home: str = "") -> Settings:
    """Reads the settings; `home` (an option of the command line) wins over OMOKAGE_HOME.

    Raises ConfigError with every fault at once: an unknown OMOKAGE_ variable (and the nearest
    right name), a number that is none, an unknown executor or compute, data on an object store
    without a folder for the ledger.
    """
    given = os.environ if environment is None else environment
    values: dict[str, Any] = {
        field: given[name].strip() for field, name in VARIABLES.items() if given.get(name)
    }
    faults = _unknown(given)
    own = home or values.get("home", "")
    if "://" in values.get("data", "") and not own:
        # Not ./var: two working folders would be two ledgers of one data root.
        own = values.get("state", "")
        if not own:
            faults.append(f"{DATA} is an object store: set {HOME} or {STATE} to a local folder")
    own = own or "var"
    usual = "" if "://" in own else own
    roots = {name: values.get(name) or usual for name in ("data", "state", "scratch")}
    try:
        settings = Settings(**{**values, **roots, "home": own})
    except ValidationError as error:
        faults += [str(fault["ctx"]["error"]) for fault in error.errors()]
    if faults:
        raise ConfigError(f"the environment has faults:\n{listed(faults)}")
    tracking = settings.tracking_uri or f"sqlite:///{settings.own_database}"
    mlflow = settings.mlflow_url or (bare(tracking) if tracking.startswith("http") else MLFLOW_URL)
    dagster = settings.dagster_home or str(Path(settings.state) / "dagster")
    chosen = {"tracking_uri": tracking, "mlflow_url": mlflow, "dagster_home": dagster}
    return settings.model_copy(update=chosen)


def tracking_client(settings: Settings) -> "TrackingClient":
    """Returns the client of MLflow of these settings; it asks and makes nothing until it is used.

    For commands that do without Dagster, which takes seconds to import.
    """
    from models.registry.client import DATABASES, TrackingClient

    artifacts = ""
    if settings.tracking_uri.startswith(DATABASES):  # no server that would name a place
        artifacts = (Path(settings.state) / "mlflow" / "artifacts").as_uri()
    return TrackingClient(
        uri=settings.tracking_uri,
        artifacts=artifacts,
        mlflow_url=settings.mlflow_url,
        dagster_url=settings.dagster_url,
    )


def _unknown(given: Mapping[str, str]) -> list[str]:
    known = [*VARIABLES.values(), *ELSEWHERE]
    return [
        f"{name} is not a setting{nearest(name, known) or ': known are ' + ', '.join(known)}"
        for name in sorted(given)
        if name.startswith("OMOKAGE_") and name not in known
    ]
