"""The demo board as a server of ours: what it serves, where, and when it is ready."""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from dataset.errors import OmokageError, UsageError
from dataset.progress import progress
from dataset.store import Store
from pipeline.processes import LOOPBACK, Server

POSTS = 2_200
SEED = 0
FOLDER = "board"
IDENTITY = "board/served.json"


def check_same_collection(store: Store, pictures: str) -> None:
    """Raises UsageError if this home already holds the posts of another collection.

    Post numbers of two collections would stand for different pictures in one ledger.
    """
    wanted = {"pictures": str(Path(pictures).resolve()) if pictures else "drawn"}
    if store.exists(IDENTITY):
        known = store.read_json(IDENTITY)
        if known != wanted:
            raise UsageError(
                f"{store.url('')} holds the demo of {known['pictures']}, not of "
                f"{wanted['pictures']}; choose another folder with --home or OMOKAGE_HOME"
            )
        return
    store.write_json(IDENTITY, wanted)


def board_server(store: Store, *, pictures: str, posts: int, port: int) -> Server:
    """Returns the board's server, not yet started."""
    folder = store.make_folder(FOLDER)
    command = [sys.executable, "-m", "demo.board", "--port", str(port), "--folder", str(folder)]
    if pictures:
        command += ["--pictures", str(Path(pictures).resolve())]
    else:
        command += ["--count", str(posts), "--seed", str(SEED)]
    return Server("the demo board", command, store.local("logs/board.log"))


def board_url(port: int) -> str:
    """Returns the board's address."""
    return f"http://{LOOPBACK}:{port}"


def wait_for_board(server: Server, url: str) -> int:
    """Waits, with a progress bar, until the board has all its pictures; returns their number.

    Raises OmokageError with the board's own words if it ends.
    """
    total = 0
    while not total:
        total = _health(server, url)["total"]
    done = 0
    with progress("board", total, unit="pictures") as advance:
        while True:
            health = _health(server, url)
            advance(health["drawn"] - done)
            done = health["drawn"]
            if health["ready"]:
                return int(health["total"])
            time.sleep(0.3)


def _health(server: Server, url: str) -> dict[str, int]:
    for _attempt in range(240):
        server.check_alive()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                health: dict[str, int] = json.load(answer)
                return health
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise OmokageError(f"{server.name} does not answer at {url}/health; see {server.log}")
