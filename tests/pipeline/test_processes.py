"""Servers are started in groups and ended for sure; a taken port is a clear message."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dataset.errors import OmokageError, UsageError
from pipeline.servers import Server, check_port_free, running
from pipeline.settings import read_settings
from pipeline.up import mlflow_server

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def said_by(server: Server) -> str:
    for _ in range(200):
        text = server.log.read_text() if server.log.exists() else ""
        if text:
            return text
        time.sleep(0.05)
    raise AssertionError("the server said nothing")


def gone(pid: int) -> bool:
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_taken_port_names_the_port_and_the_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} on 127\.0\.0\.1 .*--mlflow-port"):
            check_port_free(port, name="the MLflow server", option="--mlflow-port")


def test_ending_a_server_ends_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.servers.PATIENCE_S", 0.5)
    server = Server("stubborn", [sys.executable, "-c", STUBBORN], tmp_path / "log")
    with running([server]):
        grandchild = int(said_by(server))
        assert psutil.pid_exists(grandchild)
    assert server.process is not None
    assert server.process.returncode is not None
    assert gone(grandchild)


def test_a_server_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    server = Server(
        "the board", [sys.executable, "-c", "print('no luck'); raise SystemExit(3)"], tmp_path / "l"
    )
    with running([server]):
        assert server.process is not None
        server.process.wait(600)
        with pytest.raises(OmokageError, match=r"(?s)the board ended with code 3.*no luck"):
            server.check_alive()


def test_servers_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from pipeline.servers import Server, running
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
server = Server("sleeper", sleep, Path({str(tmp_path / "log")!r}))
with running([server]):
    print(server.process.pid, flush=True)
    time.sleep(60)
"""
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait(600)
    assert gone(pid)


def test_variables_of_mlflow_that_are_set_go_before_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read_settings({}, home=str(tmp_path))
    jobs, artifacts = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "MLFLOW_ARTIFACTS_DESTINATION"
    for name, ours, given in [
        (jobs, "false", "true"),
        (artifacts, (tmp_path / "mlflow/artifacts").as_uri(), "s3://bucket/artifacts"),
    ]:
        monkeypatch.delenv(name, raising=False)
        assert mlflow_server(settings, port=5000).environment[name] == ours
        monkeypatch.setenv(name, given)
        assert mlflow_server(settings, port=5000).environment[name] == given
