"""Everything a person looks at, together: Dagster's UI and daemon, MLflow's server, the board."""

import sys
import time

from pipeline.board import board_server, board_url, check_same_collection
from pipeline.instance import prepare_home
from pipeline.processes import (
    LOOPBACK,
    Server,
    check_port_free,
    interruptible,
    running,
    wait_until_answering,
)
from pipeline.settings import PROJECT, Settings

LOOK_EVERY_S = 1.0


def run_up(
    settings: Settings,
    *,
    dagster_port: int,
    mlflow_port: int,
    board_port: int,
    pictures: str,
    posts: int,
) -> None:
    """Starts all servers and keeps them until Ctrl-C or until one ends; raises OmokageError."""
    for port, name, option in (
        (dagster_port, "the Dagster UI", "--dagster-port"),
        (mlflow_port, "the MLflow server", "--mlflow-port"),
        (board_port, "the demo board", "--board-port"),
    ):
        check_port_free(port, name=name, option=option)
    store = prepare_home(settings)
    check_same_collection(store, pictures)
    board = board_server(store, pictures=pictures, posts=posts, port=board_port)
    mlflow = mlflow_server(settings, port=mlflow_port)
    dagster = dagster_server(settings, port=dagster_port, board=board_url(board_port))
    pages = {
        "Dagster UI": (dagster, f"http://{LOOPBACK}:{dagster_port}"),
        "MLflow UI": (mlflow, f"http://{LOOPBACK}:{mlflow_port}"),
        "demo board": (board, board_url(board_port)),
    }
    servers = [mlflow, board, dagster]
    with interruptible(), running(servers):
        for name, (server, url) in pages.items():
            path = "/health" if server is board else "/"
            wait_until_answering(server, url + path, timeout_s=180)
            print(f"{name:<12}{url}", flush=True)
        print("Ctrl-C ends all of them.", flush=True)
        while True:
            for server in servers:
                server.check_alive()
            time.sleep(LOOK_EVERY_S)


def mlflow_server(settings: Settings, *, port: int) -> Server:
    """Returns MLflow's tracking server and UI over the same database that the assets write to."""
    artifacts = settings.local_home / "mlflow" / "artifacts"
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port)]
    command += ["--backend-store-uri", settings.tracking_uri]
    command += ["--artifacts-destination", artifacts.as_uri(), "--workers", "1"]
    return Server("the MLflow server", command, settings.local_home / "logs" / "mlflow.log")


def dagster_server(settings: Settings, *, port: int, board: str) -> Server:
    """Returns Dagster's UI and daemon on our workspace."""
    command = [sys.executable, "-m", "dagster", "dev", "--host", LOOPBACK, "--port", str(port)]
    command += ["--workspace", str(PROJECT / "workspace.yaml")]
    return Server(
        "Dagster",
        command,
        settings.local_home / "logs" / "dagster.log",
        {"OMOKAGE_BOARD_URL": board},
    )
