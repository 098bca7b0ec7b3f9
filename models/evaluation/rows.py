"""Files of float32 rows that grow chunk by chunk, and go on where an interrupted one stopped."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset.errors import StoreError

Rows32 = npt.NDArray[np.float32]

_BYTES = 4


class RowFile:
    """Rows [N,width] of float32 on disk, of which the first `done` are written.

    Only whole chunks count: what a chunk's rows are may depend, in rounding, on the batch that
    they were made in. A torn tail is cut off when the file is opened.
    """

    def __init__(self, path: Path, rows: int, width: int, *, chunk: int) -> None:
        self.path, self.rows, self.width = path, rows, width
        self._row_bytes = width * _BYTES
        self.done = self._whole(chunk)

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Adds the next chunk [n,width], and returns once it is safe on the disk."""
        assert rows.shape[1] == self.width, (rows.shape, self.width)
        content = np.ascontiguousarray(rows, dtype=np.float32).tobytes()
        try:
            with self.path.open("r+b" if self.done else "wb") as file:
                file.seek(self.done * self._row_bytes)
                file.write(content)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                f"{self.path}: {error.strerror or error}; {self.rows * self._row_bytes:,} bytes "
                "are needed in all. The same command goes on from here."
            ) from error
        self.done += len(rows)

    def read(self) -> Rows32:
        """Maps all rows [N,width] into memory; they must be written."""
        assert self.done == self.rows, (self.path, self.done, self.rows)
        if not self.rows:
            return np.zeros((0, self.width), dtype=np.float32)
        return np.memmap(self.path, dtype=np.float32, mode="r", shape=(self.rows, self.width))

    def _whole(self, chunk: int) -> int:
        size = self.path.stat().st_size if self.path.exists() else 0
        there = min(size // self._row_bytes, self.rows)
        return there if there == self.rows else there - there % chunk


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Holds a lock file while the block works; waits for another process that holds it.

    The system lets go of it when the process ends, however it does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
