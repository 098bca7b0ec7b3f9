"""Progress of long work: a bar in a terminal, a plain line every few seconds elsewhere."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]

LINE_EVERY_S = 5.0


@contextlib.contextmanager
def progress(label: str, total: int, *, unit: str) -> Iterator[Advance]:
    """Yields a function that takes the number of finished `unit`s since its last call.

    Talks on stderr: a tqdm bar if that is a terminal and tqdm is installed, else lines such as
    `faces 512/2,000 pictures, 41/s`. OMOKAGE_PROGRESS=off silences it.
    """
    if os.environ.get("OMOKAGE_PROGRESS") == "off":
        yield lambda _count: None
        return
    bar = _bar(label, total, unit) if sys.stderr.isatty() else None
    if bar is not None:
        with bar:
            yield bar.update
        return
    lines = _Lines(label, total, unit)
    yield lines.advance
    lines.end()


def _bar(label: str, total: int, unit: str):  # type: ignore[no-untyped-def]  # tqdm may be absent
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=label, unit=f" {unit}", dynamic_ncols=True)


class _Lines:
    """A line each LINE_EVERY_S seconds, and one at the end."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = 0
        self._started = self._said = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._said >= LINE_EVERY_S:
            self._say()

    def end(self) -> None:
        self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        rate = self._done / max(self._said - self._started, 1e-9)
        count = f"{self._done:,}/{self._total:,}" if self._total else f"{self._done:,}"
        print(f"{self._label} {count} {self._unit}, {rate:,.0f}/s", file=sys.stderr, flush=True)
