"""What the commands of models share: exit codes, Pipes, signals, the last line of JSON."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from dataset.compute import end_with_parent, end_with_process
from dataset.errors import OmokageError
from models.training.distributed import rank_of_environment

# torchrun ends all once one has ended; of a fault that all share, the first one has to report it.
FIRST_REPORTS_S = 3.0

Report = Callable[[dict[str, Any]], None]


class Stopped(Exception):  # being stopped is no fault
    """A signal ended the work, and what was done so far is saved."""

    def __init__(self, signum: int, text: str) -> None:
        super().__init__(text)
        self.signum = signum


def run_entry(work: Callable[[Report], dict[str, Any]], *, die_with_parent: int | None) -> int:
    """Runs `work`, reports its outcome, and returns the exit code.

    work takes a function that passes a JSON object on to the orchestrator (nothing happens if there
    is none) and returns a summary, which is printed as the last line of stdout. An OmokageError
    becomes one line on stderr and its exit code; Stopped becomes 128 + the signal's number.
    die_with_parent: the parent's process id, 0 for the present parent, None to outlive it.
    """
    if die_with_parent is not None and "LOCAL_RANK" in os.environ:
        end_with_parent()  # torchrun
        if die_with_parent:
            end_with_process(die_with_parent)  # who started torchrun
    elif die_with_parent is not None:
        end_with_parent(die_with_parent or None)
    with _reporting() as report:
        try:
            summary = work(report)
        except OmokageError as error:
            if rank_of_environment() > 0:
                time.sleep(FIRST_REPORTS_S)
                return error.exit_code
            report({"error": str(error), "exit_code": error.exit_code})
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        except Stopped as stopped:
            report({"stopped": str(stopped)})
            if rank_of_environment() == 0:
                print(stopped, file=sys.stderr)
            return 128 + stopped.signum
        report({"summary": summary})
    if rank_of_environment() == 0:
        print(json.dumps(summary, sort_keys=True), flush=True)
    return 0


_STOPPING = b"\nstopping: what is done is kept; once more, and it ends at once\n"
_passed_on = 0


def pass_on(signum: int) -> None:
    """Gives a signal to `stop_signals` of a thread that is not the main one, as of Ray's workers.

    0 takes it back.
    """
    global _passed_on
    _passed_on = signum


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Yields a function that gives the SIGINT or SIGTERM that came since, or 0.

    A second signal of the kind ends the process at once, as if nothing had been caught. Outside of
    the main thread, which alone gets signals, it gives the one of `pass_on`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: _passed_on
        return
    caught = 0

    def remember(signum: int, _frame: FrameType | None) -> None:
        nonlocal caught
        caught = signum
        signal.signal(signum, signal.SIG_DFL)
        if sys.stderr.isatty():  # and not print(), which the signal may have interrupted
            os.write(sys.stderr.fileno(), _STOPPING)

    before = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
    for which in before:
        signal.signal(which, remember)
    try:
        yield lambda: caught
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


@contextlib.contextmanager
def _reporting() -> Iterator[Report]:
    # Of the processes that torchrun starts, the first one reports.
    if "DAGSTER_PIPES_CONTEXT" not in os.environ or rank_of_environment() > 0:
        yield lambda _payload: None
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as context:
        yield context.report_custom_message
