"""Servers as child processes, ended by one Ctrl-C: ports, groups, and the demo board."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from dataset.errors import OmokageError, UsageError
from dataset.progress import progress
from dataset.store import Store

LOOPBACK = "127.0.0.1"
PATIENCE_S = 15.0
LAST_LINES = 15

# Loaded here and not after a fork, where the loader's lock may be held for ever.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass
class Server:
    """A program to run: its name for people, its command, its log file."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it in a group of its own, its output in its log file, which begins anew."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_child_begins,
            )

    def check_alive(self) -> None:
        """Raises an error with the last lines of its log if it has ended.

        UsageError with the program's own words if it ended for a mistake of the user's.
        """
        if self.process is None or self.process.poll() is None:
            return
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        if self.process.returncode == UsageError.exit_code:
            raise UsageError("\n".join(lines))
        said = "\n".join(f"  {line}" for line in lines)
        raise OmokageError(
            f"{self.name} ended with code {self.process.returncode}. Its last lines in "
            f"{self.log}:\n{said}"
        )

    def stop(self) -> None:
        """Ends it and all that it started: SIGINT, then SIGTERM, then SIGKILL to the group."""
        if self.process is None:
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_S)
                break
        # What it started may outlive it for a moment; the group's name stays ours until then.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _child_begins() -> None:
    # A shell that starts us in the background hands ignored signals down; servers must hear them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if _LIBC is not None:  # they are others' programs: only the kernel can tell them we are gone
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Has SIGINT and SIGTERM raise KeyboardInterrupt in the block, so that all is ended in order.

    A shell that starts us in the background has SIGINT ignored; here it is heard again.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running(servers: Sequence[Server]) -> Iterator[None]:
    """Starts the servers in order; whatever happens, all are ended, the last one first."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in reversed(servers):
            server.stop()


def check_port_free(port: int, *, name: str, option: str) -> None:
    """Raises UsageError, naming the option to change, if something listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise UsageError(
                f"port {port} on {LOOPBACK} is taken, so {name} cannot start; end the program "
                f"that uses it, or choose another port with {option}"
            ) from error


def free_port() -> int:
    """Returns a port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_until_answering(server: Server, url: str, *, timeout_s: float) -> None:
    """Returns when `url` answers; raises OmokageError if the server ends or the time is over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        server.check_alive()
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise OmokageError(
        f"{server.name} did not answer at {url} within {timeout_s:.0f} s; see {server.log}"
    )


POSTS = 2_200
BOARD_SEED = 0
BOARD_FOLDER = "board"
IDENTITY = "board/served.json"


def check_same_collection(store: Store, pictures: str) -> None:
    """Raises UsageError if this home already holds the posts of another collection.

    Post numbers of two collections would stand for different pictures in one ledger.
    """
    wanted = {"pictures": str(Path(pictures).resolve()) if pictures else "drawn"}
    if store.state.exists(IDENTITY):
        known = store.state.read_json(IDENTITY)
        if known != wanted:
            raise UsageError(
                f"{store.state.url('')} holds the demo of {known['pictures']}, not of "
                f"{wanted['pictures']}; choose another folder with --home or OMOKAGE_HOME"
            )
        return
    store.state.write_json(IDENTITY, wanted)


def board_server(store: Store, *, pictures: str, posts: int, port: int) -> Server:
    """Returns the board's server, not yet started."""
    folder = store.state.make_folder(BOARD_FOLDER)
    command = [sys.executable, "-m", "demo.board", "--port", str(port), "--folder", str(folder)]
    if pictures:
        command += ["--pictures", str(Path(pictures).resolve())]
    else:
        command += ["--count", str(posts), "--seed", str(BOARD_SEED)]
    return Server("the demo board", command, store.state.local("logs/board.log"))


def board_url(port: int) -> str:
    """Returns the board's address."""
    return f"http://{LOOPBACK}:{port}"


def wait_for_board(server: Server, url: str) -> int:
    """Waits, with a progress bar, until the board has all its pictures; returns their number.

    Raises OmokageError with the board's own words if it ends.
    """
    total = 0
    while not total:
        total = _health(server, url)["total"]
    done = 0
    with progress("board", total, unit="pictures") as advance:
        while True:
            health = _health(server, url)
            advance(health["drawn"] - done)
            done = health["drawn"]
            if health["ready"]:
                return int(health["total"])
            time.sleep(0.3)


def _health(server: Server, url: str) -> dict[str, int]:
    for _attempt in range(240):
        server.check_alive()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                health: dict[str, int] = json.load(answer)
                return health
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise OmokageError(f"{server.name} does not answer at {url}/health; see {server.log}")
