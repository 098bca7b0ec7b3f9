"""Settings from the environment: read once, checked wholly, and handed on to child processes.

Pydantic checks them; pydantic-settings would add only the reading of os.environ, one line here.
"""

import os
import zoneinfo
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from dataset.compute import parse_compute
from dataset.errors import ConfigError, listed, nearest
from pipeline.automation.cron import (
    DEFAULT_GROW,
    DEFAULT_REFRESH,
    parse_threshold,
    refresh_crons,
)
from pipeline.automation.webhook import check_webhook

PROJECT = Path(__file__).resolve().parent.parent
"""The folder with workspace.yaml, dagster.yaml and mlflow/."""

BOARD_PORT = 4650
DAGSTER_URL, MLFLOW_URL = "http://127.0.0.1:3000", "http://127.0.0.1:5000"
EXECUTORS = ("in_process", "multiprocess")

# Variables of ours that other packages read by themselves.
ELSEWHERE = {
    "OMOKAGE_PROGRESS": "off silences the progress lines",
    "OMOKAGE_EXTRACTOR_WEIGHTS": "weights file of the extractor inception",
    "OMOKAGE_REAL_DATA": "folder of real pictures for the tests",
    "OMOKAGE_STUDIO_PASSWORD": "password of the studio's page, with a user",
    "OMOKAGE_STUDIO_USER": "user of the studio's page, with a password",
}


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().resolve())


def _whole_number(given: str | int) -> int:
    text = str(given)
    if text.isdecimal() and 1 <= int(text) <= 256:
        return int(text)
    raise ValueError(f'OMOKAGE_WORKERS is "{text}"; a whole number from 1 to 256 wanted')


def _names(given: str | tuple[str, ...]) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else given
    return tuple(filter(None, map(str.strip, names)))


def _check_executor(text: str) -> None:
    if text not in EXECUTORS:
        raise ConfigError(f'OMOKAGE_EXECUTOR is "{text}"; one of {", ".join(EXECUTORS)} wanted')


def _check_timezone(text: str) -> None:
    if text not in (known := zoneinfo.available_timezones()):
        hint = nearest(text, known) or "; a name such as Europe/Berlin wanted"
        raise ConfigError(f'OMOKAGE_TIMEZONE is "{text}", which is no time zone{hint}')


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

    home: Annotated[str, AfterValidator(_absolute)]
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
    executor: Annotated[str, _checked(lambda text, _: _check_executor(text))] = EXECUTORS[0]
    tracking_uri: str = ""
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
    def local_home(self) -> Path:
        """Folder of what must be local: Dagster's and MLflow's own files."""
        return Path(self.home) if "://" not in self.home else Path("var").resolve()

    def environment(self) -> dict[str, str]:
        """Returns the variables that give a child process these very settings, but the webhook.

        They stand in the Dagster UI, as the configuration of a resource, and it may hold a secret.
        """
        values = {**self.model_dump(exclude={"webhook"}), "sites": ",".join(self.sites)}
        own = {VARIABLES[field]: str(value) for field, value in values.items() if value}
        return own | {
            "DAGSTER_HOME": str(self.local_home / "dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "GIT_PYTHON_REFRESH": "quiet",
            # Threads that wait for work by spinning take 2.3x as long on a busy machine, and ones
            # that sleep at once 1.5x on an idle one: after a short spin it is a fifth more on both.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000"),
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
        }


VARIABLES = {field: f"OMOKAGE_{field.upper()}" for field in Settings.model_fields}
VARIABLES["tracking_uri"] = "MLFLOW_TRACKING_URI"


def read_settings(environment: Mapping[str, str] | None = None, *, home: str = "") -> Settings:
    """Reads the settings; `home` (an option of the command line) wins over OMOKAGE_HOME.

    Raises ConfigError with every fault at once: an unknown OMOKAGE_ variable (and the nearest
    right name), a number that is none, an unknown executor or compute.
    """
    given = os.environ if environment is None else environment
    values: dict[str, Any] = {
        field: given[name].strip() for field, name in VARIABLES.items() if given.get(name)
    }
    faults = _unknown(given)
    try:
        settings = Settings(**{**values, "home": home or values.get("home", "var")})
    except ValidationError as error:
        faults += [str(fault["ctx"]["error"]) for fault in error.errors()]
    if faults:
        raise ConfigError(f"the environment has faults:\n{listed(faults)}")
    database = settings.local_home / "mlflow" / "mlflow.db"
    tracking = settings.tracking_uri or f"sqlite:///{database}"
    mlflow = settings.mlflow_url or (tracking if tracking.startswith("http") else MLFLOW_URL)
    return settings.model_copy(update={"tracking_uri": tracking, "mlflow_url": mlflow})


def _unknown(given: Mapping[str, str]) -> list[str]:
    known = [*VARIABLES.values(), *ELSEWHERE]
    return [
        f"{name} is not a setting{nearest(name, known) or ': known are ' + ', '.join(known)}"
        for name in sorted(given)
        if name.startswith("OMOKAGE_") and name not in known
    ]
