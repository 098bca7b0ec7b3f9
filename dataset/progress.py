"""Progress of long work: a bar in a terminal, a plain line every few seconds elsewhere."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

Advance = Callable[[int], None]

LINE_EVERY_S = 5.0
VARIABLE = "OMOKAGE_PROGRESS"


@contextlib.contextmanager
def progress(label: str, total: int, *, unit: str) -> Iterator[Advance]:
    """Yields a function that takes the number of finished `unit`s since its last call.

    Talks on the stream of `progress_stream`: a tqdm bar if that is a terminal and tqdm is
    installed, else lines such as `faces 512/2,000 pictures, 41/s`. `total` 0 means unknown.
    """
    stream = progress_stream()
    if stream is None:
        yield lambda _count: None
        return
    bar = _bar(label, total, unit, stream=stream) if stream.isatty() else None
    if bar is not None:
        with bar:
            yield bar.update
        return
    lines = _Lines(label, total, unit, stream=stream)
    yield lines.advance
    lines.say()


def progress_stream() -> TextIO | None:
    """Returns where progress is shown: stderr, or None for OMOKAGE_PROGRESS=off."""
    return None if os.environ.get(VARIABLE) == "off" else sys.stderr


def _bar(label: str, total: int, unit: str, *, stream: TextIO):  # type: ignore[no-untyped-def]
    try:
        from tqdm import tqdm  # absent on a machine that only trains
    except ImportError:
        return None
    # A terminal that does not know its size (0 by 0, as in some containers) gets 80 by 24.
    unknown = 0 in os.get_terminal_size(stream.fileno())
    size = {"ncols": 80, "nrows": 24} if unknown else {"dynamic_ncols": True}
    return tqdm(total=total or None, desc=label, unit=f" {unit}", file=stream, **size)


class _Lines:
    """A line each LINE_EVERY_S seconds, and one at the end."""

    def __init__(self, label: str, total: int, unit: str, *, stream: TextIO) -> None:
        self._label, self._total, self._unit, self._stream = label, total, unit, stream
        self._done = 0
        self._started = self._said = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._said >= LINE_EVERY_S:
            self.say()

    def say(self) -> None:
        self._said = time.monotonic()
        rate = self._done / max(self._said - self._started, 1e-9)
        count = f"{self._done:,}/{self._total:,}" if self._total else f"{self._done:,}"
        print(f"{self._label} {count} {self._unit}, {rate:,.0f}/s", file=self._stream, flush=True)
