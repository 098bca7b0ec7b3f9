"""Crawls of a board that fails all the time: nothing is lost, doubled, or stored wrongly."""

import gzip
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from crawlers.cursor import Cursor
from crawlers.export import export_posts
from crawlers.ledger import Ledger
from crawlers.ledger_file import MARKER
from dataset.schemas import POSTS, read_table
from dataset.store import Store, blob_path
from demo.collection import Collection, md5_of
from demo.fault_injection import KINDS, FaultPlan, Faults
from tests.board_fixture import serve_collection
from tests.crawlers.conftest import ONLY_NEW, QUICK, CrawlOf
from tests.demo.tiny_posts import REASONS, tiny_collection

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

POSTS_COUNT = 500
RATES = {
    "throttle": 0.015,
    "error": 0.03,
    "reset": 0.03,
    "cut": 0.03,
    "html": 0.025,
    "empty": 0.3,  # of few requests: the pages of the API
    "redirect": 0.025,
    "slow": 0.02,
    "wrong_md5": 0.025,
    "bomb": 0.02,
}
DIALECTS = ("demo", "demo_moebooru", "demo_gelbooru")


class QuickCrawlOf(CrawlOf):
    """Crawls with short waits and pages of 50 posts."""

    program = QUICK

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder)
        self._registry.write_text(
            "".join(f"[{site}]\npage_size = 50\n" for site in DIALECTS), encoding="utf-8"
        )


@pytest.fixture(scope="module")
def posts() -> Collection:
    return tiny_collection(POSTS_COUNT)


def crawl_to_the_end(crawl: CrawlOf, site: str, *, most: int = 5) -> list[dict[str, Any]]:
    """Crawls until nothing waits any more; returns the summaries."""
    made = []
    for _ in range(most):
        made.append(crawl(site=site))
        with Ledger.of(Store(crawl.home)) as ledger:
            if not ledger.count(site)["pending"]:
                return made
    raise AssertionError(f"posts still wait after {most} crawls: {made}")


@pytest.mark.slow
@pytest.mark.parametrize("site", DIALECTS)
def test_five_hundred_posts_and_a_hundred_faults_leave_no_trace(
    posts: Collection, tmp_path: Path, site: str
) -> None:
    faults = Faults(FaultPlan(RATES, seed=7, retry_after_s=0, slow_s=0.05))
    with serve_collection(posts, middlewares=[faults.middleware]) as failing:
        crawl = QuickCrawlOf(failing.url, tmp_path)
        made = crawl_to_the_end(crawl, site)
    assert faults.injected.total() >= 100
    assert set(faults.injected) == set(KINDS)

    wanted = {entry.post_id: REASONS[entry.refusal] for entry in posts}
    store = Store(crawl.home)
    with Ledger.of(store) as ledger:
        rows = list(ledger.rows([site]))
    assert [(row.post.post_id, row.reason) for row in rows] == sorted(wanted.items())
    assert {entry.refusal for entry in posts} == set(REASONS)
    settled = sum(one["kept"] + sum(one["refused"].values()) for one in made)
    assert settled == POSTS_COUNT  # none of them twice

    table = read_table(store, export_posts(store, [site]).path, declared=POSTS).to_pylist()
    assert [(row["post_id"], row["drop_reason"]) for row in table] == sorted(wanted.items())
    assert_blobs_are(posts, crawl.home, table)

    with serve_collection(posts) as healthy:
        crawl = QuickCrawlOf(healthy.url, tmp_path)
        again = crawl(*ONLY_NEW, site=site)
    assert (again["seen"], again["media_requests"]) == (0, 0)
    assert again["api_requests"] <= 2

    # Of the posts that are read again, those go that have gone, and no other.
    left = Collection([entry for entry in posts if entry.post_id % 25 > 2], posts._bodies)
    with serve_collection(left, middlewares=[faults.middleware]) as failing:
        refreshed = QuickCrawlOf(failing.url, tmp_path)(site=site)
    kept = {number for number, reason in wanted.items() if reason is None}
    gone = kept - {entry.post_id for entry in left}
    assert refreshed["rechecked"]["gone_on_board"] == len(gone) > 0
    with Ledger.of(store) as ledger:
        now = {row.post.post_id: row.reason for row in ledger.rows([site])}
    assert {number for number, reason in now.items() if reason == "gone_on_board"} == gone


def assert_blobs_are(posts: Collection, home: Path, table: list[dict[str, Any]]) -> None:
    """Every file is a blob of a kept post, bit for bit what the board has, and each is there."""
    kept = {row["post_id"]: row for row in table if row["drop_reason"] is None}
    files = {path for path in (home / "blobs").rglob("*") if path.is_file()} - {home / MARKER}
    assert files == {home / blob_path(row["sha256"], row["ext"]) for row in kept.values()}
    assert not list(home.rglob(".tmp-*"))
    bodies = {md5_of(path.read_bytes()): path for path in files}
    for path in files:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    for post_id, row in kept.items():
        entry = posts.by_id(post_id)
        assert entry is not None
        assert row["md5"] == entry.md5
        assert bodies[entry.md5].stem == row["sha256"]
    assert len(files) == len({row["md5"] for row in kept.values()})


def serving(posts: Collection, fault: Callable[[web.Request], web.StreamResponse | None]) -> Any:
    """Serves a collection; `fault` may answer a request in the board's place."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        return fault(request) or await handler(request)

    return serve_collection(posts, middlewares=[middleware])


def cursor_of(crawl: CrawlOf, site: str = "demo") -> Cursor:
    with Ledger.of(Store(crawl.home)) as ledger:
        return ledger.cursor(site, "")


@pytest.fixture(scope="module")
def few() -> Collection:
    """Sixty posts without any to refuse: two pages of the API."""
    return tiny_collection(60, odd=False)


@pytest.mark.parametrize("site", DIALECTS)
def test_three_empty_pages_in_a_row_are_not_taken_for_the_end(
    few: Collection, tmp_path: Path, site: str
) -> None:
    left = Counter(empty=3)

    def empty(request: web.Request) -> web.StreamResponse | None:
        older = "id:<" in request.query.get("tags", "") or (
            request.query.get("page", "").startswith("b") and request.query["page"] < "b2"
        )
        if older and left["empty"] > 0:
            left["empty"] -= 1
            return web.json_response([])
        return None

    with serving(few, empty) as board:
        crawl = QuickCrawlOf(board.url, tmp_path)
        made = crawl(site=site)
    assert left["empty"] == 0
    assert made["kept"] == 60
    assert cursor_of(crawl, site) == Cursor(1, 60, bottomed=True)


def test_a_board_that_shows_nothing_at_first_is_retried(few: Collection, tmp_path: Path) -> None:
    requested: Counter[str] = Counter()

    def empty(request: web.Request) -> web.StreamResponse | None:
        requested[request.path] += 1
        first = request.path.endswith("post.json") and requested[request.path] <= 2
        return web.json_response([]) if first else None

    with serving(few, empty) as board:
        assert QuickCrawlOf(board.url, tmp_path)(site="demo_moebooru")["kept"] == 60


def test_the_end_is_found_although_the_lowest_post_has_gone(
    few: Collection, tmp_path: Path
) -> None:
    gone = Collection([entry for entry in few if entry.post_id > 10], few._bodies)
    with serve_collection(gone) as board:
        crawl = QuickCrawlOf(board.url, tmp_path)
        crawl("--limit", "50")
        assert cursor_of(crawl) == Cursor(11, 60)
    left = Collection([entry for entry in gone if entry.post_id > 11], few._bodies)
    with serve_collection(left) as board:
        crawl = QuickCrawlOf(board.url, tmp_path)
        crawl()
        assert cursor_of(crawl) == Cursor(11, 60, bottomed=True)
        again = crawl(*ONLY_NEW)
    assert again["api_requests"] <= 2


def test_an_api_that_answers_in_html_is_named_with_what_it_said(
    few: Collection, tmp_path: Path
) -> None:
    requested: Counter[str] = Counter()

    def page(request: web.Request) -> web.StreamResponse | None:
        requested[request.path] += 1
        if not request.path.endswith("/posts.json") or "counts" in request.path:
            return None
        return web.Response(text="<!DOCTYPE html><title>Back soon</title>")

    with serving(few, page) as board:
        crawl = QuickCrawlOf(board.url, tmp_path)
        code, err = crawl.failing()
    assert code == 6
    assert err.startswith(f"crawl: demo answers 200 to {board.url}/danbooru/posts.json?")
    assert 'it begins "<!DOCTYPE html><title>Back soon</title>"' in err
    assert err.endswith("It was requested 5 times; run again later\n")
    assert len(err.splitlines()) == 1
    assert requested["/danbooru/posts.json"] == 5


def test_half_a_picture_is_never_believed_and_another_picture_when_it_comes_thrice(
    few: Collection, tmp_path: Path
) -> None:
    twice, thrice, halved, other = (few.entries[place] for place in (0, 3, 6, 9))
    requested: Counter[str] = Counter()

    def wrong(request: web.Request) -> web.StreamResponse | None:
        md5 = request.path.rpartition("/")[2].partition(".")[0]
        requested[md5] += 1
        if (md5 == twice.md5 and requested[md5] <= 2) or (
            md5 == thrice.md5 and requested[md5] <= 3
        ):
            return web.Response(body=few.read(other))
        if md5 == halved.md5 and requested[md5] <= 4:
            return web.Response(body=few.read(halved)[: halved.size_bytes // 2])
        return None

    with serving(few, wrong) as board:
        made = QuickCrawlOf(board.url, tmp_path)()
    assert (made["kept"], made["refused"], made["put_off"]) == (59, {"wrong_md5": 1}, 0)
    assert [requested[entry.md5] for entry in (twice, thrice, halved)] == [3, 3, 5]


def test_what_is_no_answer_is_put_off_and_what_is_always_too_large_is_refused(
    few: Collection, tmp_path: Path
) -> None:
    bomb = gzip.compress(bytes(40_000_000))
    answers: list[Callable[[str], web.StreamResponse]] = [
        lambda _: web.Response(text="<!DOCTYPE html>", content_type="image/png"),
        web.HTTPFound,
        lambda _: web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"}),
        lambda _: web.Response(body=b"brotli", headers={"Content-Encoding": "br"}),
        lambda _: web.Response(body=bomb, headers={"Content-Encoding": "gzip"}),
    ]
    broken = {entry.md5: answer for entry, answer in zip(few, answers, strict=False)}

    def fault(request: web.Request) -> web.StreamResponse | None:
        answer = broken.get(request.path.rpartition("/")[2].partition(".")[0])
        made = answer(request.path) if answer else None
        if isinstance(made, web.HTTPException):
            raise made
        return made

    with serving(few, fault) as board:
        first = QuickCrawlOf(board.url, tmp_path)()
    assert (first["kept"], first["refused"], first["put_off"]) == (55, {"too_large": 1}, 4)
    with serve_collection(few) as board:
        second = QuickCrawlOf(board.url, tmp_path)(*ONLY_NEW)
    assert (second["kept"], second["media_requests"]) == (4, 4)
