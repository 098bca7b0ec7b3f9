"""A fork server for the tests: starts a crawl in 0.1 s instead of 1 s.

A crawl is a process of its own, and a short one spends most of its time importing Scrapy and
Twisted. The fork server imports them once and forks for every crawl. Each child is a real process
(a pid that takes any signal; its own environment, folder, pipes and exit code) and behaves like
`python -m MODULE` or `python -c CODE`: `__main__`, `sys.argv` and the interpreter's end are the
same. It differs from a new interpreter in three ways, and tests of these pass `cold=True`: its
parent is the fork server, it starts with the fork server's memory, and there is no start-up.
multiprocessing's forkserver does not fit: its children run functions, not programs with their own
stdout, stderr and `__main__`.

    child = start(["-m", "crawlers.run", "--site", "demo"], env)
    out, err = child.communicate(timeout=600)

OMOKAGE_FORKSERVER=off starts every crawl cold; so does a system without Linux's pidfd.
"""

import array
import atexit
import contextlib
import dataclasses
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

REPOSITORY = Path(__file__).parents[2]
MODULE = "tests.crawlers.forkserver"
MESSAGE_BYTES = 4_000_000
DESCRIPTORS = 3  # of a job: stdout, stderr and where to report pid and exit code
NOT_PRELOADED = ("twisted.internet.reactor",)  # a crawl installs its own
PARTS = ("EXTENSIONS", "DOWNLOADER_MIDDLEWARES", "SPIDER_MIDDLEWARES", "ITEM_PIPELINES")


class Child(Protocol):
    """What the tests use of a crawl's process; subprocess.Popen[str] has it too."""

    pid: int

    @property
    def returncode(self) -> Any: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...
    def send_signal(self, sig: int, /) -> None: ...
    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]: ...


def start(
    arguments: Sequence[str], env: Mapping[str, str], *, cold: bool = False, quiet: bool = False
) -> Child:
    """Starts `python ARGUMENTS` (-m MODULE ... or -c CODE ...) in the repository's folder.

    env: the whole environment. cold: as a new interpreter. quiet: its output is discarded.
    """
    if cold or os.environ.get("OMOKAGE_FORKSERVER") == "off" or not hasattr(os, "pidfd_open"):
        pipe = subprocess.DEVNULL if quiet else subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=dict(env),
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
    return _server().start(arguments, env, quiet=quiet)


class ForkedChild:
    """A process that the fork server has forked, as its starter sees it; any thread may use it."""

    def __init__(self, status: socket.socket, pipes: Sequence[int]) -> None:
        self.pid = _receive_number(status)
        self.returncode: int | None = None
        self._texts = [""] * len(pipes)
        self._descriptor: int | None = None
        # It may be over already; from here on, no other process can be taken for it.
        with contextlib.suppress(ProcessLookupError):
            self._descriptor = os.pidfd_open(self.pid)
        self._watcher = threading.Thread(target=self._watch, args=(status,), daemon=True)
        # From the beginning, so that no pipe is ever full.
        self._readers = [
            threading.Thread(target=self._read, args=(place, pipe), daemon=True)
            for place, pipe in enumerate(pipes)
        ]
        for thread in (self._watcher, *self._readers):
            thread.start()

    def poll(self) -> int | None:
        """Returns the exit code (minus the signal's number), None while it lives."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; raises subprocess.TimeoutExpired."""
        self._watcher.join(timeout)
        if self._watcher.is_alive():
            raise subprocess.TimeoutExpired("a crawl", timeout or 0.0)
        if self.returncode is None:
            raise RuntimeError("the fork server ended before its child; its output is above")
        return self.returncode

    def kill(self) -> None:
        """Ends it with SIGKILL, if it lives."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, sig: int, /) -> None:
        """Sends a signal, if it lives."""
        if self._descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, sig)

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]:
        """Waits for its end and returns its stdout and stderr."""
        self.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        out, err = self._texts or ("", "")
        return out, err

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _watch(self, status: socket.socket) -> None:
        with status:
            self.returncode = _receive_number(status)

    def _read(self, place: int, pipe: int) -> None:
        with open(pipe, encoding="utf-8") as file:
            self._texts[place] = file.read()


class ForkServer:
    """The fork server's process, as its starter sees it; it ends with its starter."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(theirs.fileno())],
                cwd=REPOSITORY,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._socket = ours
        self._lock = threading.Lock()

    def start(self, arguments: Sequence[str], env: Mapping[str, str], *, quiet: bool) -> Child:
        """Forks a child and returns once it runs."""
        status, report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if quiet:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            pipes, ends = [], [nowhere, nowhere]
        else:
            (out, out_end), (err, err_end) = os.pipe(), os.pipe()
            pipes, ends = [out, err], [out_end, err_end]
        job = json.dumps({"arguments": list(arguments), "env": dict(env)}).encode()
        try:
            with self._lock:
                _send(self._socket, job, [*ends, report.fileno()])
        finally:
            report.close()
            for end in set(ends):
                os.close(end)
        return ForkedChild(status, pipes)

    def close(self) -> None:
        """Ends the fork server and waits for it."""
        self._socket.close()
        self._process.wait(timeout=600)


_servers: dict[int, ForkServer] = {}  # by the pid of their starter: a fork starts its own


def _server() -> ForkServer:
    pid = os.getpid()
    if pid not in _servers:
        _servers[pid] = ForkServer()
        atexit.register(_servers[pid].close)
    return _servers[pid]


@dataclasses.dataclass
class Job:
    """What a child is to do, and the descriptors that it gets."""

    arguments: list[str]
    env: dict[str, str]
    out: int
    err: int
    report: socket.socket


def next_job(server: socket.socket) -> Job | None:
    """Forks for every job; returns it in the child that is to run it, and None at the end."""
    waiting = selectors.DefaultSelector()
    waiting.register(server, selectors.EVENT_READ)
    living: dict[int, tuple[int, socket.socket]] = {}  # by process descriptor
    while True:
        for key, _events in waiting.select():
            if key.fileobj is not server:
                descriptor = int(key.fd)
                waiting.unregister(descriptor)
                os.close(descriptor)
                pid, report = living.pop(descriptor)
                _ended, status = os.waitpid(pid, 0)
                _report(report, os.waitstatus_to_exitcode(status))
                report.close()
                continue
            job = _receive(server)
            if job is None:
                return None
            pid = os.fork()
            if pid == 0:
                waiting.close()
                server.close()
                job.report.close()
                for descriptor, (_pid, report) in living.items():
                    os.close(descriptor)
                    report.close()
                return job
            os.close(job.out)
            os.close(job.err)
            descriptor = os.pidfd_open(pid)
            waiting.register(descriptor, selectors.EVENT_READ)
            living[descriptor] = (pid, job.report)
            _report(job.report, pid)


def run_job(job: Job) -> None:
    """Becomes what `python ARGUMENTS` would be; its end is the interpreter's."""
    for descriptor, place in ((job.out, 1), (job.err, 2)):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(job.env)
    kind, what, *others = job.arguments
    if kind == "-m":
        sys.argv = [what, *others]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        assert kind == "-c", kind
        sys.argv = ["-c", *others]
        sys.path[0] = ""
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


def preload() -> None:
    """Imports what a crawl imports, but for what belongs to one process only."""
    from scrapy.settings import Settings

    settings = Settings()
    settings.setmodule("crawlers.settings")
    for name in (
        "crawlers.run",
        "crawlers.spiders",
        "scrapy.commands.crawl",
        "scrapy.core.downloader.handlers.http11",
        "scrapy.dupefilters",
        "scrapy.pqueues",
        "scrapy.squeues",
        "scrapy.statscollectors",
        "twisted.internet.asyncioreactor",
    ):
        importlib.import_module(name)
    for part in PARTS:
        for name in settings.get_component_priority_dict_with_base(part):
            if isinstance(name, str):
                importlib.import_module(name.rpartition(".")[0])
    # What runs as `__main__` must not have been imported before.
    del sys.modules["crawlers.run"], sys.modules["crawlers"].run
    for name in NOT_PRELOADED:
        assert name not in sys.modules, f"{name} cannot be shared by forked crawls"
    assert threading.active_count() == 1, "a fork takes no threads along"
    gc.collect()
    gc.freeze()  # else each child's first collection would copy all of it


def _receive_number(status: socket.socket) -> int:
    word = status.recv(100)
    if not word:
        raise RuntimeError("the fork server has ended; its output is above")
    return int(word)


def _send(server: socket.socket, content: bytes, descriptors: Sequence[int]) -> None:
    packed = array.array("i", descriptors)
    server.sendmsg([content], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])


def _receive(server: socket.socket) -> Job | None:
    space = socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize)
    content, ancillary, _flags, _address = server.recvmsg(MESSAGE_BYTES, space)
    if not content:
        return None
    descriptors = array.array("i")
    for _level, _kind, packed in ancillary:
        descriptors.frombytes(packed)
    out, err, report = descriptors
    return Job(**json.loads(content), out=out, err=err, report=socket.socket(fileno=report))


def _report(report: socket.socket, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
        report.send(str(number).encode())


if __name__ == "__main__":
    own = socket.socket(fileno=int(sys.argv[1]))
    preload()
    job = next_job(own)
    if job is not None:
        run_job(job)
