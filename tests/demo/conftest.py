"""The board that the tests of this folder share: 70 drawn posts, drawn once and kept."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.board_fixture import RunningBoard, start_board

BOARD_POSTS = 70
GetJson = Callable[[str], Any]


@pytest.fixture(scope="session")
def board(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBoard]:
    # pytest's cache keeps the pictures for the next run, where it is not turned off.
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    folder = cache.mkdir("demo_board") if cache else tmp_path_factory.mktemp("demo_board")
    with start_board(folder, count=BOARD_POSTS) as running:
        yield running


@pytest.fixture
def get_json(board: RunningBoard) -> GetJson:
    def get(path: str) -> Any:
        with urllib.request.urlopen(board.url + path, timeout=600) as answer:
            return json.load(answer)

    return get


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The folder of recorded answers of real boards."""
    default = Path(__file__).parents[2] / ".." / "shared" / "data"
    folder = Path(os.environ.get("OMOKAGE_REAL_DATA", default)) / "api"
    if not folder.is_dir():
        pytest.skip(f"no recorded answers in {folder}; set OMOKAGE_REAL_DATA")
    return folder
