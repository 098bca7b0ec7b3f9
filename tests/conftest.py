"""What every test finds: one torch thread, a Ctrl-C that works, and the long tests first."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hypothesis_profiles import load_profile

ROOT = Path(__file__).resolve().parent.parent

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

load_profile()

LONG_FIRST = (
    "tests/pipeline/test_chain.py::test_killed_in_the_middle",
    "tests/pipeline/test_chain.py",  # makes the demo; the others do what needs none
    "tests/assets/",
    "tests/models/test_loop.py",
    "tests/models/test_families.py",
    "tests/deploy/test_compose.py",
    "tests/models/test_resume.py",
    "tests/pipeline/test_browser.py",
    "tests/pipeline/",
    "tests/benchmarks/",
    "tests/crawlers/test_memory.py",
    "tests/studio/test_page_browser.py",
)


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """Undoes what a test, or what it calls, sets in the environment, as commands and MLflow do."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with what takes longest, so that no worker ends alone with it."""
    items.sort(key=lambda item: [part not in item.nodeid for part in LONG_FIRST])


def untracked_files() -> set[str]:
    """Files of the checkout that git neither tracks nor ignores, and databases of MLflow's default.

    MLflow's default address is a database in the working folder: whoever forgets to name another
    one leaves it here.
    """
    listed = ""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    return {*listed.splitlines(), *(path.name for path in ROOT.glob("mlflow.db*"))}


BEFORE = pytest.StashKey[set[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remembers what lay in the checkout before the tests; the workers leave that to the first."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        session.config.stash[BEFORE] = untracked_files()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run if a test has left a file in the checkout."""
    if BEFORE not in session.config.stash:
        return
    before: set[str] = session.config.stash[BEFORE]
    left = sorted(untracked_files() - before)
    if left:
        print(f"\nERROR: the tests left files in the checkout: {', '.join(left)}", file=sys.stderr)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
