"""A real demo board on a free loopback port, for the tests of every package."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from demo.board import Board, start
from demo.collection import Collection
from demo.drawn import drawn_collection
from demo.pictures import pictures_collection


@dataclasses.dataclass(frozen=True)
class RunningBoard:
    """Where a board answers, and what it serves."""

    url: str
    collection: Collection
    board: Board

    def now_serves(self, collection: Collection) -> None:
        """Serves another collection from now on: posts have come, changed or gone."""
        self.board.open(collection)


@contextlib.contextmanager
def start_board(
    folder: Path,
    *,
    count: int | None = None,
    pictures: Path | None = None,
    seed: int = 0,
    middlewares: Sequence[Middleware] = (),
) -> Iterator[RunningBoard]:
    """Serves `count` drawn posts, or the user's `pictures`, until the block ends.

    `folder` keeps what is drawn: hand in the same one to draw only once. `middlewares` see every
    request before the board does.
    """
    if pictures is not None:
        collection = pictures_collection(pictures, folder)
    else:
        collection = drawn_collection(folder, count or 60, seed, workers=1)
    with serve_collection(collection, middlewares=middlewares) as running:
        yield running


@contextlib.contextmanager
def serve_collection(
    collection: Collection, *, middlewares: Sequence[Middleware] = ()
) -> Iterator[RunningBoard]:
    """Serves a collection from a thread of its own until the block ends."""
    board = Board()
    board.open(collection)
    with served(start(board, "127.0.0.1", 0, middlewares=middlewares)) as url:
        yield RunningBoard(url, collection, board)


@contextlib.contextmanager
def served(starting: Coroutine[Any, Any, tuple[web.AppRunner, str]]) -> Iterator[str]:
    """Runs what `starting` starts on a loop in a thread until the block ends; yields its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="board", daemon=True)
    thread.start()
    try:
        runner, url = asyncio.run_coroutine_threadsafe(starting, loop).result(timeout=600)
        try:
            yield url
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(timeout=600)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=600)
        loop.close()
