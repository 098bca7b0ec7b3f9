"""Everything a person looks at, together: Dagster, MLflow's server, the board, the studio."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import ConfigError
from models.registry.client import DATABASES
from models.registry.model_uri import shown_uri
from pipeline.build import tracking_of
from pipeline.instance import (
    explained_databases,
    only_servers_of,
    prepare_home,
    prepare_pools,
    warn_of_password,
)
from pipeline.servers import (
    LOOPBACK,
    Server,
    board_server,
    board_url,
    check_port_free,
    check_same_collection,
    interruptible,
    running,
    wait_until_answering,
)
from pipeline.settings import DAGSTER_URL, MLFLOW_URL, PROJECT, Settings

LOOK_EVERY_S = 1.0
START_S = 180.0


def run_up(
    settings: Settings,
    *,
    dagster_port: int,
    mlflow_port: int,
    board_port: int,
    studio_port: int,
    pictures: str,
    posts: int,
) -> None:
    """Starts all servers and keeps them until Ctrl-C or until one ends; raises OmokageError.

    With a tracking server of one's own (MLFLOW_TRACKING_URI=http://…) none is started.
    """
    settings = linked(settings, dagster_port=dagster_port, mlflow_port=mlflow_port)
    store = prepare_home(settings)
    warn_of_password(settings.dagster_home)
    with explained_databases(settings):
        prepare_pools()
        # Not by the server: stopped on the way, it would leave half a database, and it neither
        # follows a home that was moved nor says what mends a database of an older MLflow.
        if settings.tracking_uri.startswith(DATABASES):
            tracking_of(settings).open().client()
    check_same_collection(store, pictures)
    board = board_server(store, pictures=pictures, posts=posts, port=board_port)
    dagster = dagster_server(settings, port=dagster_port, board=board_url(board_port))
    studio = studio_server(settings, port=studio_port)
    pages = [  # what most people came for comes first
        Page("studio", studio, studio_port, "--studio-port", answers="/health"),
        # Dagster opens on a timeline of runs, empty at first; this is the graph of the assets.
        Page("Dagster UI", dagster, dagster_port, "--dagster-port", opens="/asset-groups"),
        Page("demo board", board, board_port, "--board-port", answers="/health"),
    ]
    if settings.tracking_uri.startswith("http"):
        print(f"{'MLflow UI':<12}{shown_uri(settings.tracking_uri)} (yours)", flush=True)
    else:
        mlflow = mlflow_server(settings, port=mlflow_port)
        # MLflow opens in its mode for language models; this address is that of the trainings.
        opens = "/#/experiments?workflowType=machine_learning"
        pages.insert(2, Page("MLflow UI", mlflow, mlflow_port, "--mlflow-port", opens=opens))
    for page in pages:
        check_port_free(page.port, name=page.server.name, option=page.option)
    with only_servers_of(settings), interruptible(), running([page.server for page in pages]):
        print("starting; on a busy machine this takes a minute", flush=True)
        for page in pages:
            wait_until_answering(page.server, page.url + page.answers, timeout_s=START_S)
            print(f"{page.name:<12}{page.url}{page.opens}", flush=True)
        print("Ctrl-C ends all of them.", flush=True)
        try:
            while True:
                for page in pages:
                    page.server.check_alive()
                time.sleep(LOOK_EVERY_S)
        except KeyboardInterrupt:  # Dagster alone takes half a minute
            print("stopping all of them; this takes up to a minute", flush=True)
            raise


def linked(settings: Settings, *, dagster_port: int, mlflow_port: int) -> Settings:
    """Returns the settings whose links lead to these ports, where no address of one's own is set.

    What is set (OMOKAGE_DAGSTER_URL, OMOKAGE_MLFLOW_URL) is how people come here from elsewhere.
    """
    here: dict[str, str] = {}
    if settings.dagster_url == DAGSTER_URL:
        here["dagster_url"] = f"http://{LOOPBACK}:{dagster_port}"
    if settings.mlflow_url == MLFLOW_URL:
        here["mlflow_url"] = f"http://{LOOPBACK}:{mlflow_port}"
    return settings.model_copy(update=here)


@dataclass(frozen=True)
class Page:
    """What a person opens: its name, who serves it, where, and the option that moves it."""

    name: str
    server: Server
    port: int
    option: str
    answers: str = "/"  # path of a request that is answered once the server is up
    opens: str = ""  # path of the page that a person wants, if it is another than the first

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{LOOPBACK}:{self.port}"


def mlflow_server(settings: Settings, *, port: int) -> Server:
    """Returns MLflow's tracking server and UI over the same database that the assets write to."""
    artifacts = Path(settings.state) / "mlflow" / "artifacts"
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port)]
    command += ["--workers", "1"]
    log = Path(settings.state) / "logs" / "mlflow.log"
    ours = read_environment(PROJECT / "mlflow/server.env")
    ours["MLFLOW_ARTIFACTS_DESTINATION"] = artifacts.as_uri()
    environment = {name: os.environ.get(name, value) for name, value in ours.items()}
    # Not among the arguments, which every user of this machine can read: it may have a password.
    environment["MLFLOW_BACKEND_STORE_URI"] = settings.tracking_uri
    return Server("the MLflow server", command, log, environment)


def read_environment(path: Path) -> dict[str, str]:
    """Reads a file of NAME=value lines; raises ConfigError naming a line that is neither."""
    values = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise ConfigError(f'{path}, line {number}: NAME=value wanted, "{text}" found')
        values[name] = value
    return values


def dagster_server(settings: Settings, *, port: int, board: str) -> Server:
    """Returns Dagster's UI and daemon on our workspace."""
    command = [sys.executable, "-m", "dagster", "dev", "--host", LOOPBACK, "--port", str(port)]
    command += ["--workspace", str(PROJECT / "workspace.yaml")]
    return Server(
        "Dagster",
        command,
        Path(settings.state) / "logs" / "dagster.log",
        {"OMOKAGE_BOARD_URL": board},
    )


def studio_server(settings: Settings, *, port: int) -> Server:
    """Returns the studio's page, which draws with the champion of the same registry."""
    command = [sys.executable, "-m", "pipeline.cli", "studio", "--port", str(port)]
    command += ["--host", LOOPBACK, "--home", settings.home]
    return Server("the studio", command, Path(settings.state) / "logs" / "studio.log")
