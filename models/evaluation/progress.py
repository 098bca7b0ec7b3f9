"""How far an evaluation has come: a bar for people, messages for the orchestrator, and its stop."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from dataset.progress import Advance, progress
from models.io.entry_point import Report, Stopped

REPORT_EVERY_S = 3.0


class EvalProgress:
    """Counts pictures over the whole evaluation; each call may raise Stopped."""

    def __init__(
        self, total: int, *, report: Report, advance: Advance, stop_signal: Callable[[], int]
    ) -> None:
        self._total, self._done, self._stage = total, 0, ""
        self._report, self._advance, self._stop_signal = report, advance, stop_signal
        self._reported = time.monotonic()

    def stage(self, name: str) -> None:
        """Says what is being done from now on."""
        self._stage = name
        self._send({})
        self.check()

    def report_facts(self, **facts: Any) -> None:
        """Says what the present stage found."""
        self._send(facts)

    def advance(self, count: int) -> None:
        """Counts pictures that are done, and safe on disk."""
        self._done += count
        self._advance(count)
        if time.monotonic() - self._reported >= REPORT_EVERY_S:
            self._send({})
        self.check()

    def check(self) -> None:
        """Raises Stopped if a signal asks for it."""
        if signum := self._stop_signal():
            raise Stopped(
                signum,
                f"stopped at {self._done:,} of {self._total:,} pictures; the same command goes on",
            )

    def _send(self, facts: dict[str, Any]) -> None:
        self._reported = time.monotonic()
        done = {"stage": self._stage, "done": self._done, "of": self._total}
        self._report({"progress": {**done, **facts}})


@contextlib.contextmanager
def eval_progress(
    total: int, *, report: Report, stop_signal: Callable[[], int]
) -> Iterator[EvalProgress]:
    """Yields the counter of an evaluation of `total` pictures."""
    with progress("evaluate", total, unit="pictures") as advance:
        yield EvalProgress(total, report=report, advance=advance, stop_signal=stop_signal)
