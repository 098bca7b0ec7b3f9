"""What the crawl's tests share: made posts, a site row, recorded answers, and a running crawl."""

import contextlib
import datetime as dt
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from crawlers.ledger import Ledger, Row
from crawlers.post import Post
from crawlers.sites import Site, load_sites
from dataset.store import Store
from tests.board_fixture import RunningBoard, start_board
from tests.crawlers import forkserver

REPOSITORY = Path(__file__).parents[2]
MakePost = Callable[..., Post]
# Options of a crawl that reads nothing again.
ONLY_NEW = ("--recheck-days", "0", "--recheck-frac", "0")
# A crawl with the same waits as always, only shorter: for CrawlOf.program.
QUICK = (
    "-c",
    """
import sys
from crawlers import rate_limit, run, settings
settings.FIRST_WAIT_S = 0.01
rate_limit.FIRST_THROTTLE_S = 0.01
sys.exit(run.main())
""",
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real material, or a skip."""
    folder = Path(os.environ.get("OMOKAGE_REAL_DATA", REPOSITORY / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real material in {folder}; set OMOKAGE_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def sites() -> dict[str, Site]:
    return load_sites()


@pytest.fixture(scope="session")
def make_post() -> MakePost:
    def make(post_id: int = 1, **changes: Any) -> Post:
        moment = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
        fields: dict[str, Any] = {
            "board": "demo",
            "post_id": post_id,
            "md5": f"{post_id:032x}",
            "ext": "png",
            "width": 8,
            "height": 8,
            "rating": "general",
            "tags_general": ("1girl", "solo"),
            "tags_character": (),
            "tags_copyright": (),
            "tags_artist": ("someone",),
            "tags_meta": (),
            "source": None,
            "score": 1,
            "created_at": moment,
            "updated_at": moment,
            "fetched_at": moment,
            "file_url": f"http://127.0.0.1/media/{post_id}.png",
        }
        return Post(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def board(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBoard]:
    """The demo board with 70 drawn posts, among them every kind that must be refused."""
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    folder = cache.mkdir("demo_board") if cache else tmp_path_factory.mktemp("demo_board")
    with start_board(folder, count=70) as running:
        yield running


class Clock:
    """A clock of the ledger that stands until it is put forward."""

    def __init__(self) -> None:
        self.now = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite", clock=clock) as opened:
        opened.admit(load_sites()["demo"])
        yield opened


def take_back_to_2(ledger: Path) -> None:
    """Makes a closed ledger one of version 2."""
    with contextlib.closing(sqlite3.connect(ledger)) as db, db:
        for name in ("TRIGGER note_new", "TRIGGER note_change", "INDEX posts_by_change"):
            db.execute(f"DROP {name}")
        db.execute("DROP INDEX posts_by_cause")
        db.execute("DROP TABLE rechecks")
        for column in ("cause", "rechecked_at", "changed"):
            db.execute(f"ALTER TABLE posts DROP COLUMN {column}")
        db.execute("UPDATE schema_version SET version = 2")


def rows_of(home: Path, board: str = "demo") -> list[Row]:
    """All posts of a board in the ledger."""
    with Ledger.of(Store(home)) as ledger:
        return list(ledger.rows([board]))


def reasons_of(home: Path) -> dict[int, str | None]:
    return {row.post.post_id: row.reason for row in rows_of(home)}


def states_of(home: Path) -> Counter[str]:
    return Counter(row.state for row in rows_of(home))


class CrawlOf:
    """Starts crawls of a running board as the child processes that they are."""

    program: Sequence[str] = ("-m", "crawlers.run")

    def __init__(self, url: str, folder: Path) -> None:
        self.home = folder / "home"
        self._registry = folder / "sites.toml"
        # Small pages, so that there are several.
        self._registry.write_text("[demo]\npage_size = 20\n", encoding="utf-8")
        self._variables = {
            **{name: value for name, value in os.environ.items() if "OMOKAGE" not in name},
            "OMOKAGE_BOARD_URL": url,
            "OMOKAGE_PROGRESS": "off",
        }

    def registry(self, text: str) -> None:
        """Adds keys of the demo site to the registry."""
        self._registry.write_text(self._registry.read_text(encoding="utf-8") + text)

    def start(
        self, *options: str, site: str = "demo", cold: bool = False, **variables: str
    ) -> forkserver.Child:
        """Starts a crawl and returns at once; cold: as the very command that users give."""
        fixed = ["--site", site, "--home", str(self.home), "--sites", str(self._registry)]
        return forkserver.start(
            [*self.program, *fixed, *options], {**self._variables, **variables}, cold=cold
        )

    def __call__(self, *options: str, site: str = "demo") -> dict[str, Any]:
        """Crawls to the end and returns the summary."""
        child = self.start(*options, site=site)
        out, err = child.communicate(timeout=600)
        assert child.returncode == 0, err
        summary: dict[str, Any] = json.loads(out.splitlines()[-1])
        return summary

    def failing(
        self, *options: str, site: str = "demo", cold: bool = False, **variables: str
    ) -> tuple[int, str]:
        """Crawls to a failure and returns the exit code and what was said."""
        child = self.start(*options, site=site, cold=cold, **variables)
        _out, err = child.communicate(timeout=600)
        assert child.returncode != 0
        return child.returncode, err


@pytest.fixture
def crawl_of(tmp_path: Path) -> Callable[[str], CrawlOf]:
    def make(url: str) -> CrawlOf:
        return CrawlOf(url, tmp_path)

    return make
