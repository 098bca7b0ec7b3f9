"""The executor that the crop shards are mapped over, as a Dagster resource."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

import dagster as dg
from pydantic import Field

from dataset.compute import executor_of, parse_compute


class ComputeResource(dg.ConfigurableResource[Any]):
    """Hands out a `concurrent.futures.Executor`: a pool of processes on this machine, or another.

    What `on` may be stands in dataset.compute.
    """

    workers: int = Field(default=2, ge=1, le=256, description="Workers of a pool.")
    on: str = Field(
        default="processes",
        description="processes[:N], threads[:N], distributed:ADDRESS or MODULE:FUNCTION.",
    )

    @contextlib.contextmanager
    def executor(self) -> Iterator[Executor]:
        """Yields the executor; see dataset.compute.executor_of for its end and its errors."""
        with executor_of(parse_compute(self.on, workers=self.workers)) as executor:
            yield executor
