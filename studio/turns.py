"""Lets one picture be drawn at a time, in the order in which they were asked for."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class Turns:
    """A lock that is given in the order of asking.

    A network uses all cores for one picture, and passes side by side are slower than one after the
    other: stylegan2 at 128 px took up to 1.4 s on two cores that others used too, and 0.3 s alone.
    Whoever asks for many pictures lets the others in after each.
    """

    def __init__(self) -> None:
        """Makes one that nobody holds."""
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()  # who holds it, and then those who wait

    @property
    def asking(self) -> int:
        """How many hold it or wait for it."""
        return len(self._queue)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for its turn and holds it."""
        mine = object()
        with self._changed:
            self._queue.append(mine)
            try:
                self._changed.wait_for(lambda: self._queue[0] is mine)
            except BaseException:  # stopped while it waited: the others must not wait for it
                self._leave(mine)
                raise
        try:
            yield
        finally:
            with self._changed:
                self._leave(mine)

    def _leave(self, mine: object) -> None:
        self._queue.remove(mine)
        self._changed.notify_all()


TURNS = Turns()  # of this process: its cores are what is shared
