"""Two nodes of Ray on this machine, a CPU each, as `ray start` makes them."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipeline.servers import LOOPBACK, free_port
from tests.waiting import wait_for

STARTS = 5  # a raylet gives up if an agent of its own is not there in 30 s, whatever is set
PATIENT = {  # a busy machine misses Ray's own limits, and a worker would give way to all else
    "RAY_raylet_start_wait_time_s": "400",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "400000",
    "RAY_worker_niceness": "0",
}


class Node:
    """A raylet, and at a head what goes with it, in a folder of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], *options: str) -> None:
        folder.mkdir()
        self._folder = folder
        ports = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export")
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1",
            "--num-gpus=0", "--object-store-memory=200000000", "--disable-usage-stats",
            f"--node-ip-address={LOOPBACK}", "--min-worker-port=0", "--max-worker-port=0",
            *(f"--{name}-port={free_port()}" for name in (*ports, "runtime-env-agent")),
            f"--temp-dir={folder}", *options,
        ]  # fmt: skip
        with (folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                command, env=environment, stdout=said, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def outcome(self) -> str:
        """Returns `up`, `lost` or "" while it starts."""
        errors = self._folder.glob("session_*/logs/raylet*.err")
        if self._process.poll() is not None or any(
            "Check failed" in path.read_text(errors="replace") for path in errors
        ):
            return "lost"
        said = (self._folder / "said").read_text(errors="replace")
        return "up" if "Ray runtime started" in said else ""

    def processes(self) -> list[psutil.Process]:
        """All it has started, also what its parent has left behind."""
        mine = {self._process.pid}
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self._process.pid).children(recursive=True)
            mine |= {process.pid for process in family}  # jobs have sessions of their own
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                if os.getsid(pid) == self._process.pid:
                    mine.add(pid)
        found = []
        for pid in mine:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def kill(self) -> None:
        """Kills all of them at once."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait()


class Nodes:
    """A head, and a second node that may be killed and started again.

    address: where a node joins, HOST:PORT; jobs: the job server's address, if there is one.
    """

    def __init__(self, folder: Path, environment: dict[str, str], *, with_jobs: bool) -> None:
        self._folder, self._environment = folder, environment | PATIENT
        self._started = 0
        port, jobs = free_port(), free_port()
        self.address, self.jobs = f"{LOOPBACK}:{port}", f"http://{LOOPBACK}:{jobs}"
        self._other: Node | None = None
        self._head = self._start(
            "--head", f"--port={port}", f"--ray-client-server-port={free_port()}",
            f"--dashboard-port={jobs}", f"--include-dashboard={str(with_jobs).lower()}",
        )  # fmt: skip

    def complete(self) -> None:
        """Starts the second node unless it is there."""
        if self._other is None:
            self._other = self._start(f"--address={self.address}")

    def kill_other(self) -> None:
        """Kills all processes of the second node."""
        assert self._other is not None
        self._other.kill()
        self._other = None

    def end(self) -> None:
        for node in (self._other, self._head):
            if node is not None:
                node.kill()

    def processes(self) -> list[psutil.Process]:
        nodes = [node for node in (self._head, self._other) if node is not None]
        return [process for node in nodes for process in node.processes()]

    def _start(self, *options: str) -> Node:
        for _ in range(STARTS):
            self._started += 1
            node = Node(self._folder / str(self._started), self._environment, *options)
            if wait_for(node.outcome, poll_s=0.1) == "up":
                return node
            node.kill()
        raise AssertionError(f"no node of Ray started in {STARTS} tries")


@contextlib.contextmanager
def started_nodes(environment: dict[str, str], *, with_jobs: bool = False) -> Iterator[Nodes]:
    """Starts both nodes with this environment, and ends them."""
    # Not in pytest's folder: the path of a socket has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    try:
        nodes = Nodes(folder, environment, with_jobs=with_jobs)
        try:
            nodes.complete()
            yield nodes
        finally:
            nodes.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
