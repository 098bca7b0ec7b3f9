"""`omokage` in processes that have imported Dagster, MLflow and torch when they begin.

Tests that start the demo two dozen times would spend most of their time on imports. Here a process
imports them once and forks. A fork is a process of its own, killed, interrupted and waited for as
any other, and runs `pipeline.cli` as `python -m pipeline.cli` does; what the demo starts itself
(crawler, trainer, workers) is started as ever.
"""

import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
WANTED = (  # what a run of the demo imports in the end
    "matplotlib.backends.backend_agg",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "models.training.checkpoint",
    "models.io.generators",
    "models.presets",
    "pipeline.demo",
)


@dataclass
class Running:
    """One command, as a test sees it: what `subprocess.Popen` would be."""

    pid: int
    stdout: IO[str]
    stderr: IO[str]
    ended: socket.socket  # tells the exit code
    returncode: int | None = field(default=None, init=False)

    def wait(self, timeout_s: float = 600.0) -> int:
        """Returns the exit code, -n if signal n ended it; fails if it takes longer."""
        if self.returncode is None:
            self.ended.settimeout(timeout_s)
            self.returncode = int(self.ended.recv(16))
            self.ended.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends it a signal; it must not have been waited for."""
        assert self.returncode is None
        os.kill(self.pid, number)

    def completed(self) -> "subprocess.CompletedProcess[str]":
        """Waits for the end; returns what it said since, and its exit code."""
        with self.stdout, self.stderr:
            # Progress comes on stderr; stdout is some lines at the end, which a pipe holds.
            said = self.stderr.read()
            return subprocess.CompletedProcess([], self.wait(), self.stdout.read(), said)


class WarmOmokage:
    """Starts commands of `omokage` in forks of one process, in the environment given."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.pipeline.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
                pass_fds=[theirs.fileno()],
            )

    def start(self, arguments: Sequence[str], *, in_own_session: bool = False) -> Running:
        """Begins `omokage ARGUMENTS…`."""
        (out, its_out), (error, its_error) = os.pipe(), os.pipe()
        ended, status = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        task = {"arguments": list(arguments), "in_own_session": in_own_session}
        with status:
            theirs = [its_out, its_error, status.fileno()]
            socket.send_fds(self._ours, [json.dumps(task).encode()], theirs)
            pid = int(ended.recv(16))
        os.close(its_out)
        os.close(its_error)
        return Running(pid, os.fdopen(out), os.fdopen(error), ended)

    def run(self, arguments: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """Runs `omokage ARGUMENTS…` to its end."""
        return self.start(arguments).completed()

    def close(self) -> None:
        """Ends the process that forks, after the last of its forks."""
        self._ours.shutdown(socket.SHUT_RDWR)  # a process that a test has forked holds it too
        self._ours.close()
        assert self._process.wait(600) == 0


def next_task(requests: socket.socket) -> dict[str, Any] | None:
    """Forks for each task: returns the task in a fork, None in the end here."""
    while True:
        words, handed, _, _ = socket.recv_fds(requests, 65536, 3)
        if not words:
            return None
        if os.fork():
            for number in handed:
                os.close(number)
            continue
        # Between here and the command stands a process that waits for it and tells its end.
        requests.close()
        out, error, status = handed
        pid = os.fork()
        if pid == 0:
            os.close(status)
            task: dict[str, Any] = json.loads(words)
            stand_alone(out, error, in_own_session=task["in_own_session"])
            return task
        os.close(out)
        os.close(error)
        with socket.socket(fileno=status) as teller:
            teller.send(str(pid).encode())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            teller.send(str(code).encode())
        os._exit(0)


def stand_alone(out: int, error: int, *, in_own_session: bool) -> None:
    """Gives this process its own streams, and its own session if it shall have one."""
    if in_own_session:
        os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, stream in ((nothing, 0), (out, 1), (error, 2)):
        os.dup2(number, stream)
        os.close(number)


def main() -> None:
    for module in WANTED:
        importlib.import_module(module)
    assert threading.active_count() == 1, "a fork would have none of the other threads"
    task = next_task(socket.socket(fileno=int(sys.argv[1])))
    if task is None:
        while True:
            try:
                os.wait()
            except ChildProcessError:
                return
    sys.argv = ["omokage", *task["arguments"]]
    runpy.run_module("pipeline.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
