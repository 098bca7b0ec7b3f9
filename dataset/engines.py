"""The seam for bulk work: `map_batches` calls a worker with tables of keys, on any engine.

An engine is a `concurrent.futures.Executor` (see dataset.compute) or Ray Data, an optional package
that is imported where it is chosen. Workers return rows; who called commits them.
"""

import contextlib
import logging
import os
import pickle
import signal
import socket
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from typing import Any, Protocol

import pyarrow as pa

from dataset.compute import CONNECT_WITHIN_S, POOLS, RAY, Compute, InOrder, died_over, executor_of
from dataset.errors import ComputeError, ConfigError
from dataset.progress import progress_stream


class Worker(Protocol):
    """What does the work: made once by each actor or thread of an engine, from pickled settings."""

    def __init__(self, settings: Any) -> None: ...

    def __call__(self, keys: pa.Table) -> pa.Table:
        """Returns the rows for a few keys, whose first column names them in errors."""
        ...


class RayData:
    """Ray Data with a pool of actors on the cluster that this process is connected to."""

    def map_batches(
        self, worker: type[Worker], settings: object, batches: Iterable[pa.Table]
    ) -> Iterator[pa.Table]:
        """Yields the rows of each batch as they come, in any order.

        What a dead actor or node had under way is done again, with all the others; alone once such
        a round brought nothing. Raises what a worker raised, and ComputeError for batches over
        which actors still die then.
        """
        made = pickle.dumps((worker, settings))
        left = {number: batch for number, batch in enumerate(batches) if batch.num_rows}
        alone = False
        while left:
            before, lost = len(left), None
            try:
                for number, rows in _done(made, left, alone=alone):
                    if left.pop(number, None) is not None:
                        yield rows
            except _ray().exceptions.RayError as error:  # such as rows that went with their node
                lost = error
            if len(left) == before and alone:
                raise died_over(next(iter(left.values()))) from lost
            alone = len(left) == before
            if left and (stream := progress_stream()):
                print(f"ray: {len(left):,} batches died with their workers: again", file=stream)


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
            "pip install omokage[ray], here and on the cluster"
        ) from error
    # A page of traceback for each batch of a dead worker, of which we speak in a line.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


# A row of the data set is a batch: so a task of Ray's is one, and what dies with it is known.
_NUMBER, _KEYS, _ROWS, _FAULT = "number", "keys", "rows", "fault"


def _done(
    made: bytes, batches: dict[int, pa.Table], *, alone: bool
) -> Iterator[tuple[int, pa.Table]]:
    """Yields what comes back of the batches, by their numbers. Raises what a worker raised."""
    ray = _ray()
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # the batches of dead actors: they do not come back
    cpus = max(1, int(ray.cluster_resources().get("CPU", 0)))
    size = 1 if alone else min(cpus, len(batches))
    pool = ray.data.ActorPoolStrategy(
        min_size=size,
        max_size=size if alone else None,
        max_tasks_in_flight_per_actor=1 if alone else None,
    )
    rows = [
        pa.table({_NUMBER: [number], _KEYS: [_packed(batch)]}) for number, batch in batches.items()
    ]
    with ray.data.DataContext.current(context):
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
                if row[_FAULT] is not None:
                    raise pickle.loads(row[_FAULT])  # noqa: S301 - our own worker's
                yield row[_NUMBER], _unpacked(row[_ROWS])


class _Actor:
    """Calls a worker in an actor of Ray's, and sends what it raises as a value.

    Ray Data would take a batch that fails for one to be left out.
    """

    def __init__(self, made: bytes) -> None:
        self._made = made

    def __call__(self, block: pa.Table) -> pa.Table:
        rows, faults = [], []
        for keys in block[_KEYS].to_pylist():
            fault = None
            try:
                rows.append(_packed(_called(self._made, _unpacked(keys))))
            except Exception as error:
                error.add_note(f"on {socket.gethostname()}:\n{traceback.format_exc()}")
                rows.append(b"")
                fault = pickle.dumps(error)
            faults.append(fault)
        return pa.table(
            {
                _NUMBER: block[_NUMBER],
                _ROWS: pa.array(rows, pa.large_binary()),
                _FAULT: pa.array(faults, pa.binary()),
            }
        )


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
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ComputeError(
            f"no Ray cluster could be joined at {address} ({error}). Is it running, and is this "
            f"machine a node of it (ray start --address {address})?"
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
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ComputeError(f"Ray could not be started on this machine: {error}") from error


@contextlib.contextmanager
def _same_sigterm() -> Iterator[None]:
    """Keeps this process's handler of SIGTERM: Ray puts one of its own there, which only exits."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
