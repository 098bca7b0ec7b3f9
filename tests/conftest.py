"""What every test finds: one torch thread, a Ctrl-C that works, and the long tests first."""

import importlib
import os
import signal
import sys

import pytest

# Tests run side by side: threads that wait for each other's cores would slow all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# Some hundred processes are started: each would compile all modules of ours and the tests anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

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


@pytest.fixture(scope="session")
def torchvision_operators() -> None:
    """Lets `import torchvision` work where its wheel was built for another build of torch.

    Beside a CPU-only torch the wheel's own operators do not load, and its import then fails on the
    two of them that it describes further. They are declared here, and nowhere but in the tests; no
    network that is measured with uses them.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        import torch  # most tests do without

        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
        importlib.import_module("torchvision")
