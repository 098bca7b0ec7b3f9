"""A child ends when its parent has gone, even if that was before the child could look."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

WAITING = "import sys, time; from dataset.compute import end_with_parent; {call}; time.sleep(900)"
STARTING = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {WAITING.format(call="end_with_parent()")!r}])
print(child.pid, flush=True)
time.sleep(900)
"""


def test_a_parent_that_had_gone_before_is_noticed_by_its_number() -> None:
    call = f"end_with_parent({os.getppid()})"  # not the one that starts it: ours
    ended = subprocess.run(
        [sys.executable, "-c", WAITING.format(call=call)], timeout=600, check=False
    )
    assert ended.returncode == -signal.SIGTERM


@pytest.mark.ci
def test_a_killed_parent_takes_the_child_along() -> None:
    parent = subprocess.Popen([sys.executable, "-c", STARTING], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(1.0)
    parent.kill()
    parent.wait(600)
    _, alive = psutil.wait_procs([child], timeout=600)
    assert alive == []


BETWEEN = """
import os, subprocess, sys, time
command = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(900)"]
subprocess.Popen([sys.executable, "-m", "dataset.compute", str(os.getpid()), *command])
time.sleep(900)
"""


def test_a_command_that_knows_nothing_of_its_parent_ends_with_it_too() -> None:
    parent = subprocess.Popen([sys.executable, "-c", BETWEEN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    command = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(600)
    _, alive = psutil.wait_procs([command], timeout=600)
    assert alive == []


def test_nobody_reading_stderr_any_more_does_not_keep_it_alive() -> None:
    call = "sys.stdin.read(); end_with_parent(1)"  # 1 is not its parent: as if that had died
    child = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(call=call)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stderr is not None
    child.stderr.close()
    child.stdin.close()
    assert child.wait(600) == -signal.SIGTERM
