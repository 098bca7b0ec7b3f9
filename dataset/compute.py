"""Executors of bulk work (processes, threads, Dask or the user's own), and child processes.

One is written as `processes`, `processes:4`, `threads:4`, `distributed:tcp://host:8786` or
`my_module:make_executor` (a function without arguments that returns an Executor); dataset.engines
runs the work on it, and on `ray` and `ray:host:6379`, which are no executors. A child process ends
itself when the process that started it has ended. Torch and the standard library are all that a
trainer finds on some machines, so nothing else is imported here.
"""

import contextlib
import importlib
import multiprocessing
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from dataset.errors import ComputeError, ConfigError, nearest

T = TypeVar("T")

POOLS = ("processes", "threads")
CLUSTER = "distributed"
RAY = "ray"
KINDS = (*POOLS, CLUSTER, RAY)
MAX_WORKERS = 256
CONNECT_WITHIN_S = 30
_FORMS = "processes:N, threads:N, distributed:ADDRESS, ray, ray:ADDRESS or MODULE:FUNCTION"
_HOST_PORT = r"[^\s/:]+:\d+"
_ADDRESS = rf"([a-z]+://)?{_HOST_PORT}"
_DOTTED = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"


@dataclass(frozen=True)
class Compute:
    """A checked choice: `kind` is one of KINDS, or "" for a user's `function` of `module`."""

    kind: str
    workers: int = 0
    address: str = ""
    module: str = ""
    function: str = ""


def parse_compute(text: str, *, workers: int) -> Compute:
    """Reads such a text; `workers` is for a pool that names no number of its own.

    Raises ConfigError, saying what was found and what is wanted. Nothing is imported or connected.
    """
    kind, _, rest = text.partition(":")
    if kind in POOLS:
        return Compute(kind, workers=_workers(text, rest) if ":" in text else workers)
    if kind == CLUSTER:
        if not re.fullmatch(_ADDRESS, rest):
            raise ConfigError(
                f'"{text}": the scheduler\'s address wanted, such as distributed:tcp://host:8786'
            )
        return Compute(kind, address=rest)
    if kind == RAY:
        if ":" in text and not re.fullmatch(_HOST_PORT, rest):
            raise ConfigError(
                f'"{text}": ray, or the address of a cluster such as ray:host:6379, wanted'
            )
        return Compute(kind, workers=workers, address=rest)
    if re.fullmatch(_DOTTED, kind) and rest.isidentifier():
        return Compute("", module=kind, function=rest)
    raise ConfigError(f'"{text}" is no compute{nearest(kind, KINDS)}; {_FORMS} wanted')


def _workers(text: str, number: str) -> int:
    if number.isdecimal() and 1 <= int(number) <= MAX_WORKERS:
        return int(number)
    raise ConfigError(f'"{text}": a whole number of workers from 1 to {MAX_WORKERS} wanted')


@contextlib.contextmanager
def executor_of(compute: Compute) -> Iterator[Executor]:
    """Yields the executor, and ends it: after an error without waiting for what is under way.

    Raises ConfigError for a module or package that is not there, ComputeError for a cluster that
    does not answer.
    """
    with _opened(compute) as executor:
        try:
            yield executor
        except BaseException:
            # Not cancel_futures: a cluster's executor may not know it.
            executor.shutdown(wait=False)
            raise
        executor.shutdown()


@contextlib.contextmanager
def _opened(compute: Compute) -> Iterator[Executor]:
    if compute.kind == "processes":
        yield Processes(compute.workers)
    elif compute.kind == "threads":
        yield ThreadPoolExecutor(compute.workers, thread_name_prefix="crop")
    elif compute.kind == CLUSTER:
        with _cluster(compute.address) as executor:
            yield executor
    else:
        yield _made_by(compute.module, compute.function)


class Processes(Executor):
    """A pool of processes on this machine that is replaced when one of them has died.

    The death of one fails all that was under way; what is submitted then goes to a new pool.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = _pool(workers)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submits a call, to a new pool if the present one is broken."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = _pool(self._workers)
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the pool as `concurrent.futures.Executor.shutdown` says."""
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawn: the asset's process has threads (Dagster's, gRPC's), which a fork would break.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=_worker_begins, initargs=(os.getpid(),)
    )


def _worker_begins(parent_pid: int) -> None:
    # A Ctrl-C in the terminal reaches the whole group; the parent alone decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent_pid)


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client  # an optional package, and slow to import
    except ImportError as error:
        raise ConfigError(
            f'"{CLUSTER}:{address}" needs the package distributed, which is not installed: '
            "pip install distributed, here and on the cluster"
        ) from error
    try:
        client = Client(address, timeout=CONNECT_WITHIN_S)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as error:
        raise ComputeError(
            f"no scheduler answers at {address} within {CONNECT_WITHIN_S} s ({error}). "
            "Is it running, and can this machine reach it?"
        ) from error
    with client:
        # pure=False: a batch that is run again must not be answered from what failed before.
        yield client.get_executor(pure=False)  # type: ignore[no-untyped-call]


def _made_by(module: str, function: str) -> Executor:
    name = f"{module}:{function}"
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'"{name}": no module {error.name} to import; is its folder on PYTHONPATH?'
        ) from error
    maker = getattr(imported, function, None)
    if not callable(maker):
        hint = nearest(function, vars(imported))
        raise ConfigError(f'"{name}": {module} has no function {function}{hint}')
    executor = maker()
    if not isinstance(executor, Executor):
        raise ConfigError(
            f'"{name}" returned a {type(executor).__name__}; a concurrent.futures.Executor wanted'
        )
    return executor


LOCAL, TORCHRUN = "local", "torchrun"
LAUNCHERS = (LOCAL, RAY, TORCHRUN)
PROCESSES = "{processes}"  # in a command of torchrun: how many the stage asks for


@dataclass(frozen=True)
class Launcher:
    """What starts trainings and evaluations: `kind` is one of LAUNCHERS."""

    kind: str
    address: str = ""  # of the job server of a Ray cluster
    command: tuple[str, ...] = ()  # goes before `-m models.train …`

    def command_for(self, processes: int) -> list[str]:
        """Returns the command for so many processes, which it may leave to itself."""
        return [word.replace(PROCESSES, str(processes)) for word in self.command]

    @property
    def counts(self) -> bool:
        """Whether the command starts the requested number of processes, one too."""
        return any(PROCESSES in word for word in self.command)


def parse_launcher(text: str) -> Launcher:
    """Reads `local`, `ray:http://host:8265` or `torchrun:COMMAND`; raises ConfigError."""
    kind, _, rest = text.partition(":")
    if text == LOCAL:
        return Launcher(LOCAL)
    if kind == RAY:
        if not re.fullmatch(r"https?://[^\s/@]+/?", rest):
            raise ConfigError(
                f'"{text}": the address of the job server of a Ray cluster wanted, such as '
                "ray:http://host:8265"
            )
        return Launcher(RAY, address=rest.rstrip("/"))
    if kind == TORCHRUN:
        try:
            command = tuple(shlex.split(rest))
        except ValueError as error:
            raise ConfigError(f'"{text}": {str(error).lower()}') from error
        if not command:
            raise ConfigError(
                f'"{text}": the command wanted that starts the processes, such as '
                "torchrun:srun torchrun --nnodes 2 --nproc-per-node 4"
            )
        return Launcher(TORCHRUN, command=command)
    raise ConfigError(
        f'"{text}" is no launcher{nearest(kind, LAUNCHERS)}; {LOCAL}, {RAY}:ADDRESS or '
        f"{TORCHRUN}:COMMAND wanted"
    )


CHECK_EVERY_S = 0.5
GRACE_S = 60.0


def end_with_parent(parent_pid: int | None = None) -> None:
    """Sends this process SIGTERM when its parent dies, and ends it for good GRACE_S later.

    parent_pid: the parent as it knows itself, so that one that died before this call is noticed;
    None takes the parent of this moment. Starts one daemon thread that watches `os.getppid()`.

    The kernel's PR_SET_PDEATHSIG is not used on purpose: it fires when the *thread* that started
    the child ends, so a child started from a pool's worker thread would be stopped in mid-work.
    """
    parent = os.getppid() if parent_pid is None else parent_pid
    threading.Thread(target=_watch, args=(parent,), name="end-with-parent", daemon=True).start()


def end_with_process(pid: int) -> None:
    """Sends this process SIGTERM when another one ends, and ends it for good GRACE_S later.

    For a grandchild, whose parent would outlive the one that started it. Systems without process
    descriptors (Linux has them) are polled for the process.
    """
    threading.Thread(target=_watch_process, args=(pid,), name="end-with", daemon=True).start()


def _watch_process(pid: int) -> None:
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(ProcessLookupError):  # it has gone already
            descriptor = os.pidfd_open(pid)
            select.select([descriptor], [], [])
            os.close(descriptor)
    else:
        while _is_alive(pid):
            time.sleep(CHECK_EVERY_S)
    _end(f"the process {pid} that this belongs to has gone: stopping")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(CHECK_EVERY_S)
    _end(f"the parent process {parent_pid} has gone: stopping")


def _end(text: str) -> None:
    with contextlib.suppress(OSError):  # who read our stderr may have gone with the parent
        print(text, file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(128 + signal.SIGTERM)


def run_with_parent(parent_pid: int, command: list[str]) -> int:
    """Runs a command that knows nothing of us, and returns its exit code.

    Sends it SIGTERM when the parent dies. The signals of its process group, which it gets too, are
    left to it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the command would inherit
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        print(f"{command[0]} cannot be run: {error.strerror}", file=sys.stderr)
        return 127
    while os.getppid() == parent_pid:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(CHECK_EVERY_S)
    child.terminate()
    return child.wait()


if __name__ == "__main__":  # python -m dataset.compute PARENT_PID COMMAND…
    sys.exit(run_with_parent(int(sys.argv[1]), sys.argv[2:]))
