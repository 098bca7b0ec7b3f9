"""Keeps memory within bounds: a budget that threads share, large blocks given back."""

import contextlib
import ctypes
import threading
from collections.abc import Iterator

LARGE_BYTES = 2**20
_M_MMAP_THRESHOLD = -3  # as glibc's malloc.h numbers it


def give_back_large_blocks() -> None:
    """Lets the C library give large blocks back to the system as soon as they are freed.

    glibc by itself raises its threshold with every large block that is freed, up to 32 MB, and then
    keeps such blocks in one arena a thread: six pictures of 40 MP, decoded one after the other in a
    pool, took 710 MB instead of 253. A C library without this setting is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back_free_memory() -> None:
    """Gives what was freed in small pieces back to the system, where the C library can (glibc).

    After reading 100,000 posts that was 8 MB of 20.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class ByteBudget:
    """At most `size` bytes may be in use at once; who wants more waits.

    Served in order of arrival, so that a big part is not passed by small ones for ever.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    @property
    def has_waiting(self) -> bool:
        """Whether someone waits for a part."""
        return self._turn.locked()

    @contextlib.contextmanager
    def reserved(self, part: int) -> Iterator[None]:
        """Waits until `part` is free and holds it within the block.

        Raises ValueError for a part that is greater than the whole.
        """
        if part > self.size:
            raise ValueError(f"{part:,} of a budget of {self.size:,}")
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._free >= part)
            self._free -= part
        try:
            yield
        finally:
            with self._freed:
                self._free += part
                self._freed.notify_all()
