"""The executor that the crop shards are mapped over, as a Dagster resource."""

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

import dagster as dg
from pydantic import Field

from dataset.parent import end_with_parent


class ComputeResource(dg.ConfigurableResource[Any]):
    """Hands out a `concurrent.futures.Executor`: a pool of processes on this machine."""

    workers: int = Field(default=2, ge=1, le=256, description="Processes of the pool.")

    @contextlib.contextmanager
    def executor(self) -> Iterator[Executor]:
        """Yields the executor; after an error what has not begun is dropped."""
        # spawn: the asset's process has threads (Dagster's, gRPC's), which a fork would break.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_worker_begins)
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()


def _worker_begins() -> None:
    # A Ctrl-C in the terminal reaches the whole group; the parent alone decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    end_with_parent(parent.pid if parent is not None else None)
