"""Lets a child process end when the process that started it has gone."""

import contextlib
import os
import signal
import sys
import threading
import time

CHECK_EVERY_S = 0.5
GRACE_S = 60.0


def end_with_parent(parent_pid: int | None = None) -> None:
    """Sends this process SIGTERM when its parent dies, and ends it for good GRACE_S later.

    parent_pid: the parent as it knows itself, so that one that died before this call is noticed;
    None takes the parent of this moment. Starts one daemon thread that watches `os.getppid()`.

    The kernel's PR_SET_PDEATHSIG is not used on purpose: it fires when the *thread* that started
    the child ends, so a child started from a pool's worker thread would be stopped in mid-work.
    """
    parent = os.getppid() if parent_pid is None else parent_pid
    threading.Thread(target=_watch, args=(parent,), name="end-with-parent", daemon=True).start()


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(CHECK_EVERY_S)
    with contextlib.suppress(OSError):  # who read our stderr may have gone with the parent
        print(f"the parent process {parent_pid} has gone: stopping", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(128 + signal.SIGTERM)
