"""Turns at the generator: many draw at once, picture by picture, each in the order they came."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Turns:
    """A lock that is handed on in order.

    A picture takes all cores, so that two at once are no faster; but a grid of sixteen must not
    keep the first picture of the next person waiting. threading.Lock knows no order: the one that
    just gave it back may take it again at once.
    """

    def __init__(self) -> None:
        self._waiting: deque[threading.Event] = deque()
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for its turn, which lasts for the block."""
        mine = threading.Event()
        with self._guard:
            self._waiting.append(mine)
            if self._waiting[0] is mine:
                mine.set()
        mine.wait()
        try:
            yield
        finally:
            with self._guard:
                self._waiting.popleft()
                if self._waiting:
                    self._waiting[0].set()

    def each(self, made: Iterable[T]) -> Iterator[T]:
        """Yields what is made, a turn for each, and gives the turn back in between."""
        source = iter(made)
        end = object()
        while True:
            with self.turn():
                one = next(source, end)
            if one is end:
                return
            yield one  # type: ignore[misc]
