"""Locks between processes of one machine: a lock file, which is freed when its holder ends."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def file_lock(
    path: Path, *, timeout_s: float = -1, busy: Exception | None = None
) -> Iterator[None]:
    """Holds a lock file while the block works; the system frees it however the process ends.

    Waits for another process that holds it, for ever by default. After `timeout_s` it raises
    `busy`, or TimeoutError without one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not local to the thread: a generator may be closed by another one.
    lock = FileLock(path, timeout=timeout_s, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        if busy is None:
            raise
        raise busy from error
    try:
        yield
    finally:
        lock.release()
