"""What every test finds: one torch thread, and the long tests first."""

import os

import pytest

# Tests run side by side: threads that wait for each other's cores would slow all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

LONG_FIRST = (
    "test_killed_in_the_middle",
    "tests/pipeline/",
    "tests/benchmarks/",
    "tests/crawlers/test_memory.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with what takes longest, so that no worker ends alone with it."""
    items.sort(key=lambda item: [part not in item.nodeid for part in LONG_FIRST])
