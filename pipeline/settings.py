"""Settings from the environment: read once, checked wholly, and handed on to child processes."""

import os
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from dataset.compute import parse_compute
from dataset.errors import ConfigError, listed, nearest
from pipeline.automation.cron import DEFAULT_REFRESH, refresh_crons
from pipeline.automation.threshold import DEFAULT_GROW, parse_threshold
from pipeline.automation.webhook import check_webhook

PROJECT = Path(__file__).resolve().parent.parent
"""The folder with workspace.yaml, dagster.yaml and mlflow/."""

BOARD_PORT = 4650
DAGSTER_URL, MLFLOW_URL = "http://127.0.0.1:3000", "http://127.0.0.1:5000"
EXECUTORS = ("in_process", "multiprocess")

# Variables of ours that other rooms read by themselves.
ELSEWHERE = {
    "OMOKAGE_PROGRESS": "off silences the progress lines",
    "OMOKAGE_EXTRACTOR_WEIGHTS": "weights file of the extractor inception",
    "OMOKAGE_REAL_DATA": "folder of real pictures for the tests",
    "OMOKAGE_STUDIO_PASSWORD": "password of the studio's page, with a user",
    "OMOKAGE_STUDIO_USER": "user of the studio's page, with a password",
}


@dataclass(frozen=True)
class Settings:
    """Where things lie and how they run; each field has an environment variable (see VARIABLES)."""

    home: str
    sites: tuple[str, ...] = ("demo",)
    sites_file: str = ""
    board_url: str = f"http://127.0.0.1:{BOARD_PORT}"
    contact: str = ""
    workers: int = 2
    compute: str = "processes"
    executor: str = "in_process"
    tracking_uri: str = ""
    dagster_url: str = DAGSTER_URL  # where people open the two UIs: what links point at
    mlflow_url: str = MLFLOW_URL
    refresh: str = DEFAULT_REFRESH  # when the schedules of the sites come
    timezone: str = "UTC"  # of those crons
    grow: str = DEFAULT_GROW  # from what growth on a training is asked for
    auto_config: str = ""  # file with the configuration of the runs that nobody starts by hand
    webhook: str = field(default="", repr=False)  # may hold a secret

    @property
    def local_home(self) -> Path:
        """Folder of what must be local: Dagster's and MLflow's own files."""
        return Path(self.home) if "://" not in self.home else Path("var").resolve()

    def environment(self) -> dict[str, str]:
        """Returns the variables that give a child process these very settings, but the webhook.

        They stand in the Dagster UI, as the configuration of a resource, and it may hold a secret.
        """
        own = {
            VARIABLES["home"]: self.home,
            VARIABLES["sites"]: ",".join(self.sites),
            VARIABLES["sites_file"]: self.sites_file,
            VARIABLES["board_url"]: self.board_url,
            VARIABLES["contact"]: self.contact,
            VARIABLES["workers"]: str(self.workers),
            VARIABLES["compute"]: self.compute,
            VARIABLES["executor"]: self.executor,
            VARIABLES["tracking_uri"]: self.tracking_uri,
            VARIABLES["dagster_url"]: self.dagster_url,
            VARIABLES["mlflow_url"]: self.mlflow_url,
            VARIABLES["refresh"]: self.refresh,
            VARIABLES["timezone"]: self.timezone,
            VARIABLES["grow"]: self.grow,
            VARIABLES["auto_config"]: self.auto_config,
        }
        quiet = {
            "DAGSTER_HOME": str(self.local_home / "dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "GIT_PYTHON_REFRESH": "quiet",
            # Threads that wait for work by spinning take 2.3x as long on a busy machine.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
        }
        return {name: value for name, value in own.items() if value} | quiet


VARIABLES = {
    "home": "OMOKAGE_HOME",
    "sites": "OMOKAGE_SITES",
    "sites_file": "OMOKAGE_SITES_FILE",
    "board_url": "OMOKAGE_BOARD_URL",
    "contact": "OMOKAGE_CONTACT",
    "workers": "OMOKAGE_WORKERS",
    "compute": "OMOKAGE_COMPUTE",
    "executor": "OMOKAGE_EXECUTOR",
    "tracking_uri": "MLFLOW_TRACKING_URI",
    "dagster_url": "OMOKAGE_DAGSTER_URL",
    "mlflow_url": "OMOKAGE_MLFLOW_URL",
    "refresh": "OMOKAGE_REFRESH",
    "timezone": "OMOKAGE_TIMEZONE",
    "grow": "OMOKAGE_GROW",
    "auto_config": "OMOKAGE_AUTO_CONFIG",
    "webhook": "OMOKAGE_WEBHOOK",
}


def read_settings(environment: Mapping[str, str] | None = None, *, home: str = "") -> Settings:
    """Reads the settings; `home` (an option of the command line) wins over OMOKAGE_HOME.

    Raises ConfigError with every fault at once: an unknown OMOKAGE_ variable (and the nearest
    right name), a number that is none, an unknown executor or compute.
    """
    given = os.environ if environment is None else environment
    faults = _unknown(given)
    values = {field: given[name].strip() for field, name in VARIABLES.items() if given.get(name)}
    workers, fault = _workers(values.get("workers"))
    faults += fault
    compute, fault = _compute(values.get("compute", "processes"), workers)
    faults += fault
    executor = values.get("executor", EXECUTORS[0])
    if executor not in EXECUTORS:
        faults.append(f'OMOKAGE_EXECUTOR is "{executor}"; one of {", ".join(EXECUTORS)} wanted')
    sites = tuple(filter(None, map(str.strip, values.get("sites", "demo").split(","))))
    faults += _automation(values, sites)
    if faults:
        raise ConfigError(f"the environment has faults:\n{listed(faults)}")
    where = _absolute(home or values.get("home", "var"))
    settings = Settings(
        home=where,
        sites=sites,
        sites_file=values.get("sites_file", ""),
        board_url=values.get("board_url", f"http://127.0.0.1:{BOARD_PORT}"),
        contact=values.get("contact", ""),
        workers=workers,
        compute=compute,
        executor=executor,
        tracking_uri=values.get("tracking_uri", ""),
        dagster_url=values.get("dagster_url", DAGSTER_URL).rstrip("/"),
        mlflow_url=values.get("mlflow_url", "").rstrip("/"),
        refresh=values.get("refresh", DEFAULT_REFRESH),
        timezone=values.get("timezone", "UTC"),
        grow=values.get("grow", DEFAULT_GROW),
        auto_config=_absolute(values["auto_config"]) if "auto_config" in values else "",
        webhook=values.get("webhook", ""),
    )
    if not settings.tracking_uri:
        database = settings.local_home / "mlflow" / "mlflow.db"
        settings = replace(settings, tracking_uri=f"sqlite:///{database}")
    if settings.mlflow_url:
        return settings
    has_server = settings.tracking_uri.startswith("http")
    return replace(settings, mlflow_url=settings.tracking_uri if has_server else MLFLOW_URL)


def _absolute(home: str) -> str:
    return home if "://" in home else str(Path(home).expanduser().resolve())


def _unknown(given: Mapping[str, str]) -> list[str]:
    known = [*VARIABLES.values(), *ELSEWHERE]
    return [
        f"{name} is not a setting{nearest(name, known) or ': known are ' + ', '.join(known)}"
        for name in sorted(given)
        if name.startswith("OMOKAGE_") and name not in known
    ]


def _workers(text: str | None) -> tuple[int, list[str]]:
    if text is None:
        return os.cpu_count() or 1, []
    if text.isdecimal() and 1 <= int(text) <= 256:
        return int(text), []
    return 1, [f'OMOKAGE_WORKERS is "{text}"; a whole number from 1 to 256 wanted']


def _compute(text: str, workers: int) -> tuple[str, list[str]]:
    try:
        parse_compute(text, workers=workers)
    except ConfigError as error:
        return text, [f"OMOKAGE_COMPUTE: {error}"]
    return text, []


def _automation(values: Mapping[str, str], sites: tuple[str, ...]) -> list[str]:
    faults = []
    checks = (
        ("", lambda: refresh_crons(values.get("refresh", ""), sites)),
        ("OMOKAGE_GROW: ", lambda: parse_threshold(values.get("grow", DEFAULT_GROW))),
        ("OMOKAGE_WEBHOOK: ", lambda: check_webhook(values.get("webhook", ""))),
    )
    for named, check in checks:
        try:
            check()
        except ConfigError as error:
            faults.append(f"{named}{error}")
    zone = values.get("timezone", "UTC")
    if zone not in (known := zoneinfo.available_timezones()):
        hint = nearest(zone, known) or "; a name such as Europe/Berlin wanted"
        faults.append(f'OMOKAGE_TIMEZONE is "{zone}", which is no time zone{hint}')
    return faults


assert set(VARIABLES) == {field.name for field in fields(Settings)}
