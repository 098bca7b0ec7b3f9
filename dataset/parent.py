"""Lets a child process end when the process that started it has gone."""

import contextlib
import os
import select
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


def end_with_process(pid: int) -> None:
    """Sends this process SIGTERM when another one ends, and ends it for good GRACE_S later.

    For a grandchild, whose parent would outlive the one that started it. Systems without process
    descriptors (Linux has them) are asked whether the number is still in use.
    """
    threading.Thread(target=_watch_process, args=(pid,), name="end-with", daemon=True).start()


def _watch_process(pid: int) -> None:
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(ProcessLookupError):  # it has gone already
            descriptor = os.pidfd_open(pid)
            select.select([descriptor], [], [])
            os.close(descriptor)
    else:
        while _is_alive(pid):
            time.sleep(CHECK_EVERY_S)
    _end(f"the process {pid} that this belongs to has gone: stopping")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(CHECK_EVERY_S)
    _end(f"the parent process {parent_pid} has gone: stopping")


def _end(text: str) -> None:
    with contextlib.suppress(OSError):  # who read our stderr may have gone with the parent
        print(text, file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(128 + signal.SIGTERM)
