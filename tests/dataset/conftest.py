"""What the dataset's tests share: an empty home, and the real material where it is."""

import os
from pathlib import Path

import pytest

from dataset.store import Store
from tests.dataset.home import Home

_DEFAULT = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(Store(str(tmp_path / "home")))


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("OMOKAGE_REAL_DATA", _DEFAULT))
    if not folder.is_dir():
        pytest.skip(f"no real material at {folder}; OMOKAGE_REAL_DATA names it")
    return folder


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOKAGE_PROGRESS", "off")
