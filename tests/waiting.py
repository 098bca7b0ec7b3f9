"""Waits of the tests: they end with the event or with the process, not with the clock.

The cap is for a wait that would never end; no machine should be slow enough to meet it.
"""

import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

CAP_S = 600.0  # also written out where a call of the standard library takes a timeout


def wait_for(
    condition: Callable[[], T],
    otherwise: str = "the condition never became true",
    *,
    process: subprocess.Popen[Any] | None = None,
    poll_s: float = 0.02,
) -> T:
    """Returns what condition() gives as soon as that is true.

    Fails with `otherwise` after CAP_S, and at once if `process`, which was to make it true, ended.
    """
    end = time.monotonic() + CAP_S
    while not (found := condition()):
        if process is not None and process.poll() is not None:
            raise AssertionError(f"{otherwise}: the process ended with {process.returncode}")
        assert time.monotonic() < end, otherwise
        time.sleep(poll_s)
    return found
