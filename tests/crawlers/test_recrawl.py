"""Crawls over time: posts come, change and go, crawls are cut short; each post ends up once."""

import asyncio
import dataclasses
import datetime as dt
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from crawlers.export import export_posts
from crawlers.ledger import REVISIT_AFTER, Ledger
from dataset.schemas import POSTS, read_table
from dataset.store import Store, blob_path
from tests.board_fixture import serve_collection
from tests.crawlers.conftest import ONLY_NEW, CrawlOf
from tests.crawlers.tiny import tiny_collection

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# A whole new site of each family, as a user writes it.
OWN_SITE = """
[mine]
{board}
family = "{family}"
api = "{url}/{path}"
media_hosts = ["127.0.0.1", "localhost"]
page_size = 10
safe_ratings = ["{safe}"]
interval_s = 0.0
media_interval_s = 0.0
media_at_once = 4
robots_exempt = {exempt}
robots_why = "a board of one's own"
empty_answers = {empty_answers}
"""
FAMILIES = {
    "danbooru": {
        "path": "danbooru",
        "safe": "g",
        "exempt": ["/posts.json", "/counts/posts.json"],
        "empty_answers": 1,
    },
    "moebooru": {"path": "moebooru", "safe": "s", "exempt": ["/post.json"], "empty_answers": 1},
    # safebooru.org's answers still say both words, and may be empty by mistake.
    "gelbooru02": {
        "path": "gelbooru",
        "safe": 'general", "safe',
        "exempt": ["/index.php"],
        "empty_answers": 3,
    },
}


def crawl_of_own_site(folder: Path, url: str, family: str, *, board: str = "") -> CrawlOf:
    folder.mkdir(parents=True, exist_ok=True)
    crawl = CrawlOf(url, folder)
    text = OWN_SITE.format(family=family, url=url, board=board, **FAMILIES[family])
    (folder / "sites.toml").write_text(text)
    return crawl


def numbers_of(crawl: CrawlOf, board: str = "mine") -> list[int]:
    with Ledger.of(Store(crawl.home)) as ledger:
        return [row.post.post_id for row in ledger.rows([board]) if row.state == "kept"]


def posts_of(crawl: CrawlOf, *sites: str) -> list[dict[str, Any]]:
    store = Store(crawl.home)
    made = export_posts(store, sites or ["mine"])
    rows: list[dict[str, Any]] = read_table(store, made.path, declared=POSTS).to_pylist()
    return rows


@pytest.mark.parametrize("family", FAMILIES)
def test_refresh_and_backfill_resume_and_then_nothing_is_fetched(
    tmp_path: Path, family: str
) -> None:
    requested: Counter[str] = Counter()
    slow = False

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/media"):
            requested[request.path] += 1
            await asyncio.sleep(0.1 if slow else 0)
        return await handler(request)

    older, newer, newest = range(101, 160), range(160, 175), range(175, 180)
    with serve_collection(tiny_collection(older), middlewares=[watch]) as board:
        crawl = crawl_of_own_site(tmp_path, board.url, family)
        assert crawl("--limit", "15", site="mine")["kept"] == 15
        assert numbers_of(crawl) == list(range(145, 160))

        board.now_serves(tiny_collection([*older, *newer]))  # posted before the backfill is done
        slow = True
        child = crawl.start(site="mine")
        until = time.monotonic() + 600
        while min(numbers_of(crawl)) >= 140:  # it has gone up, and is on its way down
            assert time.monotonic() < until
            time.sleep(0.05)
        child.kill()
        child.communicate()
        assert set(range(145, 175)) <= set(numbers_of(crawl))
        assert 101 not in numbers_of(crawl)

        slow = False
        board.now_serves(tiny_collection([*older, *newer, *newest]))
        crawl(site="mine")
        assert numbers_of(crawl) == list(range(101, 180))
        assert len(requested) == 79
        assert sum(requested.values()) <= 79 + 4  # what was on its way when the crawl was killed

        again = crawl(site="mine")
        assert (again["seen"], again["media_requests"]) == (0, 0)
        assert again["api_requests"] - again["rechecked"]["requests"] <= 2
        assert [row["post_id"] for row in posts_of(crawl)] == list(range(101, 180))


def test_an_api_path_that_robots_txt_disallows_is_named_with_the_remedy(tmp_path: Path) -> None:
    with serve_collection(tiny_collection([1])) as board:
        crawl = crawl_of_own_site(tmp_path, board.url, "moebooru")
        registry = tmp_path / "sites.toml"
        registry.write_text(registry.read_text().replace("/post.json", "/other.json"))
        code, err = crawl.failing(site="mine")
    assert code == 6
    assert "the robots.txt of mine disallows http://127" in err
    assert "robots_exempt" in err


def test_two_addresses_of_one_board_fetch_and_list_each_post_once(tmp_path: Path) -> None:
    with serve_collection(tiny_collection(range(1, 31))) as board:
        one = crawl_of_own_site(tmp_path / "one", board.url, "danbooru", board='board = "twin"')
        two = crawl_of_own_site(
            tmp_path / "two",
            board.url.replace("127.0.0.1", "localhost"),
            "danbooru",
            board='board = "twin"',
        )
        two.home = one.home
        assert one("--limit", "20", site="mine")["kept"] == 20
        made = two(site="mine")  # it goes on where the other has stopped
        assert (made["seen"], made["media_requests"]) == (10, 10)
        again = one(site="mine")
        assert (again["seen"], again["api_requests"], again["media_requests"]) == (0, 1 + 3, 0)
    assert [(row["board"], row["post_id"]) for row in posts_of(one, "twin")] == [
        ("twin", number) for number in range(1, 31)
    ]


def test_a_picture_on_three_boards_is_one_blob_and_three_rows_and_is_taken_down_on_all(
    tmp_path: Path,
) -> None:
    sites = ("demo", "demo_moebooru", "demo_gelbooru")
    with serve_collection(tiny_collection([1, 2])) as board:
        crawl = CrawlOf(board.url, tmp_path)
        requests = [crawl(site=site)["media_requests"] for site in sites]
        assert requests == [2, 0, 0]
        rows = posts_of(crawl, *sites)
        assert [(row["board"], row["post_id"]) for row in rows] == [
            (site, number) for site in sorted(sites) for number in (1, 2)
        ]
        first = {row["post_id"]: row for row in rows}[1]
        assert {row["sha256"] for row in rows if row["post_id"] == 1} == {first["sha256"]}
        store = Store(crawl.home)
        assert len(store.files("blobs")) == 2

        # The post that the owner names is one that this home has never seen kept.
        store.write_bytes("takedown.txt", b"post demo_gelbooru/1  # requested by mail\n")
        left = posts_of(crawl, *sites)
        assert {row["post_id"] for row in left} == {2}
        assert not store.exists(blob_path(first["sha256"], first["ext"]))
        store.write_bytes("takedown.txt", b"# the entry was lost\n")
        changed = {1: {"tags": {**board.collection.entries[0].tags, "general": ("smile",)}}}
        board.now_serves(tiny_collection([1, 2], changed))
        for site in sites:
            made = crawl("--tags=-status:deleted", site=site)  # lists all posts anew
            assert made["media_requests"] == 0
        assert posts_of(crawl, *sites) == left


def test_a_board_that_brings_what_another_must_take_down_loses_both(
    tmp_path: Path,
) -> None:
    with serve_collection(tiny_collection([1, 2])) as board:
        crawl = CrawlOf(board.url, tmp_path)
        crawl(site="demo")
        store = Store(crawl.home)
        store.write_bytes("takedown.txt", b"post demo_moebooru/2\n")  # not crawled yet
        made = crawl(site="demo_moebooru")
        assert (made["refused"], made["media_requests"]) == ({"takedown": 1}, 0)
        rows = posts_of(crawl, "demo", "demo_moebooru")
    assert [(row["board"], row["post_id"]) for row in rows] == [("demo", 1), ("demo_moebooru", 1)]
    assert len(store.files("blobs")) == 1


def test_a_pending_post_is_taken_once_its_board_has_approved_it(tmp_path: Path) -> None:
    pending = {number: {"status": "pending"} for number in (2, 3, 4)}
    with serve_collection(tiny_collection(range(1, 6), pending)) as board:
        crawl = CrawlOf(board.url, tmp_path)
        assert crawl()["refused"] == {"pending": 3}
        # 2 is approved, 3 is deleted, 4 still waits.
        later = {3: {"status": "deleted"}, 4: {"status": "pending"}}
        board.now_serves(tiny_collection(range(1, 6), later))
        assert crawl(*ONLY_NEW)["seen"] == 0  # not due yet
        with sqlite3.connect(crawl.home / "ledger.sqlite") as db:
            due = dt.datetime.now(dt.UTC) - REVISIT_AFTER
            db.execute("UPDATE posts SET settled_at = ?", (due.isoformat(),))
        made = crawl(*ONLY_NEW)
        assert (made["kept"], made["media_requests"], made["put_off"]) == (1, 1, 0)
        assert made["refused"] == {"pending": 2}  # the deleted one is not listed any more
        assert crawl()["seen"] == 0
    reasons = {row["post_id"]: row["drop_reason"] for row in posts_of(crawl, "demo")}
    assert reasons == {1: None, 2: None, 3: "pending", 4: "pending", 5: None}


@pytest.mark.parametrize("change", [{"status": "deleted"}, {"banned": True}])
def test_a_post_that_its_board_took_back_loses_its_blob(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    collection = tiny_collection(range(1, 4))
    with serve_collection(collection) as board:
        crawl = CrawlOf(board.url, tmp_path)
        assert crawl()["kept"] == 3
        board.now_serves(tiny_collection(range(1, 4), {2: change}))
        made = crawl("--tags", "status:any")
    assert (made["kept"], made["media_requests"]) == (0, 0)
    assert sum(made["refused"].values()) == 1
    rows = posts_of(crawl, "demo")
    dropped = {row["post_id"]: row["drop_reason"] for row in rows if row["drop_reason"]}
    assert dropped == {2: next(iter(made["refused"]))}
    assert dropped[2] in ("deleted", "banned")
    assert len(Store(crawl.home).files("blobs")) == 2
    assert dataclasses.replace(collection.entries[1], **change) != collection.entries[1]
