"""What every test finds: one torch thread, a Ctrl-C that works, and the long tests first."""

import os
import signal

import pytest

# Tests run side by side: threads that wait for each other's cores would slow all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

# What is started with & by a script ignores Ctrl-C, and so do its children, whom tests interrupt.
# This runs before there are workers, which inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG_FIRST = (
    "test_killed_in_the_middle",
    "tests/pipeline/",
    "tests/benchmarks/",
    "tests/crawlers/test_memory.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with what takes longest, so that no worker ends alone with it."""
    items.sort(key=lambda item: [part not in item.nodeid for part in LONG_FIRST])
