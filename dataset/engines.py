"""The seam for bulk work: `map_batches` calls a worker with tables of keys, on any engine.

An engine is a `concurrent.futures.Executor` (see dataset.compute) or Ray Data, an optional package
that is imported where it is chosen. Workers return rows; who called commits them.
"""

import contextlib
import itertools
import logging
import os
import pickle
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa

from dataset.compute import CONNECT_WITHIN_S, POOLS, RAY, Compute, executor_of
from dataset.errors import ComputeError, ConfigError
from dataset.progress import progress_stream

IN_FLIGHT = 64  # results of 16 pictures with their crops are 0.5 MB each: 32 MB wait at most
TRIES = 3  # of a task whose worker died, the last time alone
FAILURES = 5  # of Ray, on end
PAUSE_S = 10.0  # a node's death is known to all some 15 s later

Result = TypeVar("Result")


class Worker(Protocol):
    """What does the work: made once by each actor or thread of an engine, from pickled settings."""

    def __init__(self, settings: Any) -> None: ...

    def __call__(self, keys: pa.Table) -> pa.Table:
        """Returns the rows for a few keys, whose first column names them in errors."""
        ...


@dataclass
class _Task(Generic[Result]):
    arguments: tuple[Any, ...]
    future: Future[Result]
    tries: int = 1

    @property
    def lost(self) -> bool:
        """Whether its worker died."""
        done = self.future.done() and not self.future.cancelled()
        return done and isinstance(self.future.exception(), _deaths())


class InOrder(Generic[Result]):
    """Calls `function` for each of `tasks`, its arguments; iterate for the results, in their order.

    When a worker dies, what it had under way is submitted again, at last alone, so that only a task
    that kills its worker by itself fails.
    """

    def __init__(
        self,
        executor: Executor,
        function: Callable[..., Result],
        tasks: Iterator[tuple[Any, ...]],
        *,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._executor, self._function = executor, function
        self._tasks = tasks
        self._in_flight = in_flight
        self._window: deque[_Task[Result]] = deque()

    def __iter__(self) -> Iterator[Result]:
        """Yields the results; raises what a task raised.

        Raises ComputeError if the executor takes no work any more, or if a task lost its worker
        TRIES times. What has not begun is cancelled then, and where the reader stops.
        """
        try:
            self._fill()
            while self._window:
                yield self._result(self._window[0])
                self._window.popleft()
                self._fill()
        finally:
            for task in self._window:
                task.future.cancel()
            self._window.clear()

    def _fill(self) -> None:
        while len(self._window) < self._in_flight:
            following = next(self._tasks, None)
            if following is None:
                return
            self._window.append(_Task(following, self._submitted(following)))

    def _result(self, task: _Task[Result]) -> Result:
        while True:
            try:
                return task.future.result()
            except _deaths() as error:
                if task.tries == TRIES:
                    raise died_over(task.arguments[-1]) from error
                self._again(task)
            except CancelledError as error:
                raise ComputeError(
                    "the executor dropped work that was not done. Is the cluster still there? "
                    "What was done stands; run it again."
                ) from error

    def _again(self, task: _Task[Result]) -> None:
        """Submits the first task of the window again: alone if it has been tried before."""
        others = [other for other in self._window if other is not task]
        if task.tries > 1:
            wait([other.future for other in others])
            others = []
        for lost in (task, *(other for other in others if other.lost)):
            if lost is task or lost.tries < TRIES - 1:
                lost.future = self._submitted(lost.arguments)
                lost.tries += 1

    def _submitted(self, arguments: tuple[Any, ...]) -> Future[Result]:
        try:
            return self._executor.submit(self._function, *arguments)
        except (BrokenExecutor, RuntimeError) as error:
            raise ComputeError(
                f"the executor takes no more work ({error}). What was done stands; run it again."
            ) from error


def _deaths() -> tuple[type[BaseException], ...]:
    """What a task raises whose worker died; a cluster has its own error for it."""
    distributed = sys.modules.get("distributed")
    return (BrokenExecutor,) if distributed is None else (BrokenExecutor, distributed.KilledWorker)


def died_over(keys: Any) -> ComputeError:
    """The error that names what a worker died over: of a table, the values of its first column."""
    named = keys.column(0).to_pylist() if isinstance(keys, pa.Table) else keys
    return ComputeError(
        f"a worker died {TRIES} times over the same pictures, at last with nothing else under "
        f"way: {', '.join(str(one) for one in named)}. Is there memory enough for them? Fewer "
        "workers (OMOKAGE_WORKERS) need less."
    )


class RayData:
    """Ray Data with a pool of actors on the cluster that this process is connected to."""

    def map_batches(
        self, worker: type[Worker], settings: object, batches: Iterable[pa.Table]
    ) -> Iterator[pa.Table]:
        """Yields the rows of each batch as they come, in any order.

        What a dead actor or node had under way is done again with all else that is left; the first
        of these alone once such a round brought nothing. Raises what a worker raised, and
        ComputeError for a batch that does not come back then, and if Ray itself fails FAILURES
        times on end.
        """
        made = pickle.dumps((worker, settings))
        left = {number: batch for number, batch in enumerate(batches) if batch.num_rows}
        alone, failures = False, 0
        while left:
            before, failed, fault = len(left), None, None
            round_of = dict(itertools.islice(left.items(), 1 if alone else None))
            try:
                for number, rows, fault in _done(made, round_of):
                    if fault is not None:
                        break
                    if left.pop(number, None) is not None:
                        yield rows
            # Any: Ray Data asserts what does not hold while a node dies.
            except Exception as error:
                failed = error
            if fault is not None:
                raise fault
            is_stuck = len(left) == before
            if failed is not None:
                failures = failures + 1 if is_stuck else 0
                if failures == FAILURES:
                    raise ComputeError(
                        f"Ray failed {FAILURES} times on end: {_line(failed)}. Are the nodes up, "
                        "and is Omokage installed on them? What was done stands; run it again."
                    ) from failed
                time.sleep(PAUSE_S)
            elif is_stuck and alone:
                raise died_over(next(iter(round_of.values())))
            alone = is_stuck and failed is None
            if left and (stream := progress_stream()):
                why = f"Ray failed ({_line(failed)})" if failed else "workers died"
                print(f"{why}: {len(left):,} batches are left, begun again", file=stream)


Engine = Executor | RayData


@contextlib.contextmanager
def engine_of(compute: Compute) -> Iterator[Engine]:
    """Yields the engine, and ends it; see `executor_of` for its end and its errors."""
    if compute.kind == RAY:
        with _connected(compute):
            yield RayData()
    else:
        with executor_of(compute) as executor:
            yield executor


@contextlib.contextmanager
def network_engine_of(compute: Compute) -> Iterator[Engine | None]:
    """Yields the engine for workers that run a network: None for a pool of this machine.

    One process with one network already uses all its cores, and has it in memory once.
    """
    if compute.kind in POOLS:
        yield None
    else:
        with engine_of(compute) as engine:
            yield engine


def map_batches(
    engine: Engine | None, worker: type[Worker], settings: object, batches: Iterable[pa.Table]
) -> Iterator[pa.Table]:
    """Calls a worker with each batch of keys; yields its rows, on Ray as they come, else in order.

    engine: None calls it here, with the settings as they are. No batch is lost: one whose worker
    died is done again, at last with nothing else under way. Raises what a worker raised, and
    ComputeError for a batch that kills its workers by itself.
    """
    if engine is None:
        return map(worker(settings), batches)
    if isinstance(engine, RayData):
        return engine.map_batches(worker, settings, batches)
    made = pickle.dumps((worker, settings))
    return iter(InOrder[pa.Table](engine, _called, ((made, batch) for batch in batches)))


_of_thread = threading.local()


def _called(made: bytes, batch: pa.Table) -> pa.Table:
    """Calls this thread's worker, which it keeps until another one is wanted."""
    if getattr(_of_thread, "made", None) != made:
        worker, settings = pickle.loads(made)  # noqa: S301 - our own
        _of_thread.worker, _of_thread.made = worker(settings), made
    rows: pa.Table = _of_thread.worker(batch)
    return rows


def _ray() -> Any:
    try:
        import ray.data  # an optional package, and slow to import
    except ImportError as error:
        raise ConfigError(
            f'"{RAY}" needs the package ray, which is not installed: '
            "pip install --constraint constraints.txt '.[ray]', here and on the cluster"
        ) from error
    # A page of traceback for each batch of a dead worker, of which we speak in a line.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


# A row of the data set is a batch: so a task of Ray's is one, and what dies with it is known.
_NUMBER, _KEYS, _ROWS, _FAULT = "number", "keys", "rows", "fault"


def _done(
    made: bytes, batches: dict[int, pa.Table]
) -> Iterator[tuple[int, pa.Table, Exception | None]]:
    """Yields what comes back of the batches: numbers, rows, and what the worker raised if it did.

    Those that die with their actors do not come back.
    """
    ray = _ray()
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # the batches of dead actors: they do not come back
    cpus = max(1, int(ray.cluster_resources().get("CPU", 0)))
    pool = ray.data.ActorPoolStrategy(min_size=min(cpus, len(batches)))  # more as the cluster grows
    rows = [
        pa.table({_NUMBER: [number], _KEYS: [_packed(batch)]}) for number, batch in batches.items()
    ]
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        # Of the last two options, which go with Ray 2.64.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Not read from anywhere: a task that reads would wait for ever for a CPU of the actors'.
        results = ray.data.from_arrow(rows).map_batches(
            _Actor,
            fn_constructor_args=(made,),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=pool,
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=0,  # by default a task that kills its actor is tried for ever
        )
    for block in results.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in block.to_pylist():
            fault = row[_FAULT] and pickle.loads(row[_FAULT])  # noqa: S301 - our worker's
            yield row[_NUMBER], _unpacked(row[_ROWS]), fault


class _Actor:
    """Calls a worker in an actor of Ray's, and sends what it raises as a value.

    Ray Data would take a batch that fails for one to be left out.
    """

    def __init__(self, made: bytes) -> None:
        self._made = made

    def __call__(self, block: pa.Table) -> pa.Table:
        (keys,) = block[_KEYS].to_pylist()
        rows, fault = pa.table({}), None
        try:
            rows = _called(self._made, _unpacked(keys))
        except Exception as error:
            error.add_note(f"on {socket.gethostname()}:\n{traceback.format_exc()}")
            fault = pickle.dumps(error)
        return pa.table(
            {
                _NUMBER: block[_NUMBER],
                _ROWS: pa.array([_packed(rows)], pa.large_binary()),
                _FAULT: pa.array([fault], pa.binary()),
            }
        )


def _line(error: Exception) -> str:
    first, _, _ = str(error).strip().partition("\n")  # then Ray explains for a page
    return first or type(error).__name__


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _unpacked(content: bytes) -> pa.Table:
    with pa.ipc.open_stream(content) as reader:
        return reader.read_all()


ADDRESS_VARIABLE = "RAY_ADDRESS"  # Ray's own
_PATIENCE = {  # a busy machine with a few cores misses the defaults when it starts
    "raylet_start_wait_time_s": 400,
    "worker_register_timeout_seconds": 300,
    "worker_niceness": 0,  # by default workers give way to everything else
}


@contextlib.contextmanager
def _connected(compute: Compute) -> Iterator[None]:
    """Connects to the cluster, or starts one on this machine, which ends with the block."""
    ray = _ray()
    if ray.is_initialized():  # by who calls, such as a job of Ray's
        yield
        return
    address = compute.address or os.environ.get(ADDRESS_VARIABLE, "")
    with contextlib.ExitStack() as ends:
        if not address:
            folder = tempfile.TemporaryDirectory(prefix="omokage-ray-", ignore_cleanup_errors=True)
            name = ends.enter_context(folder)
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
            # Else Ray leaves one in the user's home, for all.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        ends.callback(ray.shutdown)
        with _same_sigterm():
            if address:
                _join(ray, address)
            else:
                _start(ray, compute.workers, folder=name)
        yield


def _join(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    if "//" in address or not port.isdecimal():
        raise ConfigError(
            f'{ADDRESS_VARIABLE} or "{RAY}:ADDRESS" is "{address}"; HOST:PORT of the cluster '
            "wanted, of which this machine is a node (ray start --address HOST:PORT)"
        )
    try:
        # Ray itself would try for minutes, and then end this process.
        socket.create_connection((host, int(port)), timeout=CONNECT_WITHIN_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # it has no class for most of what may happen
        raise ComputeError(
            f"no Ray cluster could be joined at {address} ({_line(error)}). Is it running, and is "
            f"this machine a node of it (ray start --address {address})?"
        ) from error


def _start(ray: Any, workers: int, *, folder: str) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _temp_dir=folder,
            _system_config=_PATIENCE,
        )
    except Exception as error:  # it has no class for most of what may happen
        raise ComputeError(f"Ray could not be started on this machine: {_line(error)}") from error


@contextlib.contextmanager
def _same_sigterm() -> Iterator[None]:
    """Keeps this process's handler of SIGTERM: Ray puts one of its own there, which only exits."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
