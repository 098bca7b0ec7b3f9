"""Posts that were taken are read again: the set follows what boards change, add and remove."""

import dataclasses
import datetime as dt
import math
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from scrapy.utils.test import get_crawler

from crawlers import run
from crawlers.cursor import Cursor, Recheck
from crawlers.export import export_posts
from crawlers.ledger import Compared, Ledger, Recheckable
from crawlers.post import Post
from crawlers.sites import load_sites
from crawlers.spiders import DanbooruSpider
from dataset.errors import UsageError
from dataset.policy import EXCLUDED_TAGS
from dataset.schemas import POSTS, read_table
from dataset.store import Store
from demo.collection import Collection, by_kind
from tests.board_fixture import serve_collection
from tests.crawlers.conftest import (
    ONLY_NEW,
    QUICK,
    Clock,
    CrawlOf,
    MakePost,
    rows_of,
    take_back_to_2,
)
from tests.crawlers.little_board import serving
from tests.crawlers.test_crawl import OddBoard, spoil
from tests.crawlers.test_ledger_boards import MEDIA
from tests.crawlers.tiny import tiny_collection
from tests.hypothesis_profiles import examples

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
POSTS_OF_BOARD = 60
PAGE_SIZE = 20
SITES = {"demo": "rating:g", "demo_moebooru": "rating:s", "demo_gelbooru": "rating:general"}


def tagged_collection(count: int = POSTS_OF_BOARD) -> Collection:
    """A collection with tags worth editing; one post in ten has an excluded one."""
    changes = {
        number: {
            "tags": by_kind(
                general=("1girl", f"tag_{number % 5}", "comic" if number % 10 == 3 else "solo")
            ),
            "rating": "s" if number % 12 == 5 else "g",
        }
        for number in range(1, count + 1)
    }
    return tiny_collection(range(1, count + 1), changes)


def wanted(collection: Collection, words: str) -> dict[int, frozenset[str]]:
    """The posts, with their tags, that a crawl of the board as it is would keep."""
    return {
        entry.post_id: frozenset(entry.all_tags)
        for entry in collection
        if (entry.rating, entry.status, entry.banned) == ("g", "active", False)
        and EXCLUDED_TAGS.isdisjoint(entry.all_tags)
        and set(words.split()) <= set(entry.all_tags)
    }


def kept(crawl: CrawlOf, site: str) -> dict[int, frozenset[str]]:
    """The posts, with their tags, that the posts table has."""
    store = Store(crawl.home)
    made = export_posts(store, [site])
    rows = read_table(store, made.path, declared=POSTS).to_pylist()
    kinds = [name for name in POSTS.names if name.startswith("tags_")]
    return {
        row["post_id"]: frozenset(tag for kind in kinds for tag in row[kind])
        for row in rows
        if row["drop_reason"] is None
    }


@pytest.mark.parametrize(
    ("site", "words", "is_searched"),
    [("demo", "", False), *((site, "1girl", True) for site in SITES)],
)
@pytest.mark.ci
def test_a_board_that_edits_its_posts_has_them_as_they_are_after_two_crawls(
    tmp_path: Path, site: str, words: str, is_searched: bool
) -> None:
    collection = tagged_collection()
    with serve_collection(collection) as board:
        crawl = CrawlOf(board.url, tmp_path)
        search = f'search = "{SITES[site]}"\n' if is_searched else ""
        crawl.registry(f"[{site}]\npage_size = {PAGE_SIZE}\n{search}" if site != "demo" else search)
        first = crawl(f"--tags={words}", site=site)
        assert first["rechecked"] == {
            "posts": 0, "changed": 0, "late": 0, "requests": 0, "gone_on_board": 0
        }  # fmt: skip
        assert kept(crawl, site) == wanted(collection, words)
        for number in range(2):
            collection = collection.edited(0.25, seed=f"{site} {number}")
            board.now_serves(collection)
            made = [crawl(f"--tags={words}", site=site) for _ in range(2)]
            assert kept(crawl, site) == wanted(collection, words)
            pages = math.ceil(POSTS_OF_BOARD / PAGE_SIZE) + 1
            again, settled = (one["rechecked"] for one in made)
            assert again["changed"] + again["gone_on_board"] > 0
            # Every page may lack posts, which are looked for on a page of all posts.
            assert again["requests"] <= 2 * pages + again["gone_on_board"]
            assert (settled["changed"], settled["gone_on_board"], settled["late"]) == (0, 0, 0)
            assert made[1]["media_requests"] == 0


def reasons(crawl: CrawlOf) -> dict[int, str | None]:
    """The posts that are refused or wait, and why."""
    rows = {row.post.post_id: row for row in rows_of(crawl.home)}
    return {number: row.reason for number, row in rows.items() if row.state != "kept"}


@pytest.mark.parametrize("is_refused", [False, True])
@pytest.mark.ci
def test_the_posts_of_a_search_that_is_not_crawled_any_more_are_looked_after(
    tmp_path: Path, is_refused: bool
) -> None:
    refuses = False

    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        if refuses and "1girl" in request.query.get("tags", ""):
            return web.json_response({"success": False, "message": "too many tags"}, status=422)
        return await handler(request)

    other: dict[str, Any] = {"tags": by_kind(general=("other",))}
    with serve_collection(tiny_collection(range(1, 31), {9: other}), middlewares=[refuse]) as board:
        crawl = CrawlOf(board.url, tmp_path)
        crawl.registry('search = "rating:g"\n')
        assert crawl("--tags", "1girl")["kept"] == 29
        changes: dict[int, dict[str, Any]] = {
            5: {"rating": "e"},
            7: other,
            8: {"status": "deleted"},
            30: {"banned": True},
        }  # and 9 is found by that search now, but it is not crawled any more
        numbers = [number for number in range(1, 31) if number not in (1, 12)]
        board.now_serves(tiny_collection(numbers, changes))
        refuses = is_refused
        made = crawl("--tags", "another")
    assert (made["kept"], made["media_requests"]) == (0, 0)
    assert reasons(crawl) == {
        1: "gone_on_board",
        5: "rating",
        7: "not_asked_for",
        8: "deleted",
        12: "gone_on_board",
        30: "banned",
    }
    assert 9 not in {row.post.post_id for row in rows_of(crawl.home)}


@pytest.mark.parametrize("site", SITES)
def test_a_board_that_shows_nothing_for_a_while_loses_no_post(tmp_path: Path, site: str) -> None:
    is_mute = False

    @web.middleware
    async def mute(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_page = is_mute and request.path.startswith(("/danbooru", "/moebooru", "/gelbooru"))
        return web.json_response([]) if is_page else await handler(request)

    with serve_collection(tiny_collection(range(1, 31)), middlewares=[mute]) as board:
        crawl = CrawlOf(board.url, tmp_path)
        crawl.program = QUICK
        crawl.registry(f"[{site}]\npage_size = 20\n" if site != "demo" else "")
        crawl(site=site)
        is_mute = True
        muted = crawl(site=site)
        assert (muted["seen"], muted["rechecked"]["gone_on_board"]) == (0, 0)
        assert len(kept(crawl, site)) == 30
        is_mute = False
        board.now_serves(tiny_collection(range(3, 28)))  # the ends have gone: none is beyond
        made = crawl(site=site)
        assert made["refused"] == {"gone_on_board": 5}
        assert sorted(kept(crawl, site)) == list(range(3, 28))
        board.now_serves(tiny_collection(range(1, 31)))
        assert crawl(site=site)["kept"] == 5  # an operator had erred


def test_recent_posts_are_read_again_by_each_crawl_and_the_others_by_their_share(
    tmp_path: Path,
) -> None:
    today = dt.datetime.now(dt.UTC)
    ages = {number: 100 - number for number in range(1, 101)}  # 70 to 100 are of these 30 days
    changes = {
        n: {"created_at": (today - dt.timedelta(days=a)).timestamp()} for n, a in ages.items()
    }
    with serve_collection(tiny_collection(ages, changes)) as board:
        crawl = CrawlOf(board.url, tmp_path)
        assert crawl("--limit", "95")["rechecked"]["requests"] == 0  # nothing was there yet
        board.now_serves(tiny_collection(ages, {n: {**changes[n], "rating": "e"} for n in ages}))
        made = crawl("--recheck-frac", "0", "--limit", "2")
        assert (made["rechecked"]["requests"], made["rechecked"]["changed"]) == (2, 40)
        assert made["refused"] == {"rating": 40 + 2}
        made = crawl("--recheck-frac", "0", "--recheck-days", "10")
        assert (made["rechecked"]["requests"], made["rechecked"]["changed"]) == (1, 0)
        assert crawl()["refused"] == {"rating": 95 - 40}


@pytest.mark.slow  # 500 requests with waits between
def test_posts_that_break_their_pages_do_not_keep_what_is_new_away(tmp_path: Path) -> None:
    def odd(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"source": 'a "b'} if row["id"] % 4 == 0 and row["id"] < 101 else row

    with serving(OddBoard(100, odd, spoil)) as board:
        crawl = CrawlOf(board.url, tmp_path)
        crawl.program = QUICK
        code, _ = crawl.failing()  # 25 are too many for one crawl
        assert code == 6
        made = crawl(*ONLY_NEW)
        board.count = 110
        again = crawl()
    assert made["quarantined"] + again["quarantined"] < 25
    assert (again["kept"], again["rechecked"]["posts"]) == (10, 75)


def keep(ledger: Ledger, *posts: Post) -> None:
    ids = [post.post_id for post in posts]
    ledger.note_page("demo", "q", posts=posts, cursor=Cursor(min(ids), max(ids)))
    for post in posts:
        ledger.keep(post, MEDIA)


def test_recent_are_the_posts_above_the_newest_that_is_old(
    ledger: Ledger, make_post: MakePost, clock: Clock
) -> None:
    assert ledger.recheckable("demo", "q", recheck_days=30) is None
    ages = {1: 400, 2: 31, 3: 29, 4: None, 5: 2}
    days = {number: age and clock.now - dt.timedelta(days=age) for number, age in ages.items()}
    keep(ledger, *(make_post(n, created_at=day, updated_at=day) for n, day in days.items()))
    found = ledger.recheckable("demo", "q", recheck_days=30)
    assert found == Recheckable(newest=5, last=1, recent=2, posts=5, mark=None, days=1.0)
    assert ledger.recheckable("demo", "other", recheck_days=30) is None
    ledger.move_mark("demo", "q", 3, is_share=True)
    clock.now += dt.timedelta(days=3)
    ledger.move_mark("demo", "q", 2, is_share=False)  # and then it was killed
    found = ledger.recheckable("demo", "q", recheck_days=30)
    assert found == Recheckable(newest=5, last=1, recent=3, posts=5, mark=2, days=3.0)
    # safebooru.org says only when a post was last changed: it was there by then.
    keep(ledger, make_post(9, created_at=None, updated_at=clock.now - dt.timedelta(days=31)))
    found = ledger.recheckable("demo", "q", recheck_days=30)
    assert found is not None
    assert (found.newest, found.recent) == (9, 9)


@pytest.mark.parametrize(
    ("reason", "is_judged"),
    [("tag_comic", False), ("corrupt", False), ("host", True), ("status_404", True)],
)
def test_a_refused_post_whose_picture_lies_elsewhere_now_is_judged_again_only_if_that_may_matter(
    ledger: Ledger, make_post: MakePost, reason: str, is_judged: bool
) -> None:
    ledger.note_page("demo", "q", posts=[make_post(1)], cursor=Cursor(1, 1))
    ledger.refuse(make_post(1), reason)
    moved = make_post(1, file_url="http://127.0.0.1:7000/media/1.png")
    made = ledger.compare("demo", "q", posts=[moved], new=())
    assert (made.known, bool(made.to_settle)) == (1, is_judged)


def test_what_is_read_again_is_compared_and_what_has_gone_may_come_back(
    ledger: Ledger, make_post: MakePost, clock: Clock
) -> None:
    posts = [make_post(number) for number in range(1, 6)]
    keep(ledger, *posts)
    ledger.keep(posts[4], dataclasses.replace(MEDIA, sha256="cd" * 32))
    ledger.requeue(["cd" * 32], "blob_missing")
    began = clock.now
    clock.now += dt.timedelta(days=61)
    assert ledger.ages(older_than=dt.timedelta(days=60)) == {"demo": (4, 4)}
    moved = make_post(1, file_url="http://127.0.0.1/elsewhere/1.png", score=9)
    seen = [moved, make_post(2, rating="explicit"), make_post(5, rating="explicit"), make_post(7)]
    made = ledger.compare("demo", "q", posts=[*seen, make_post(8)], new=range(1, 8))
    assert made == Compared([seen[1], seen[3]], known=2, changed=1, new=1)  # 5 waits already
    assert ledger.mark_gone("demo", [3, 2, 99]) == 1  # 2 waits to be judged
    rows = {row.post.post_id: (row.state, row.reason) for row in ledger.rows(["demo"])}
    assert rows == {
        1: ("kept", None),
        2: ("pending", None),
        3: ("refused", "gone_on_board"),
        4: ("kept", None),
        5: ("pending", "blob_missing"),
        7: ("pending", None),
    }
    assert ledger.ages(older_than=dt.timedelta(days=60)) == {"demo": (1, 2)}  # 4 was not seen
    with sqlite3.connect(ledger.path) as db:
        dates = dict(db.execute("SELECT post_id, rechecked_at FROM posts"))
    now = clock.now.isoformat(timespec="milliseconds")
    assert dates == {1: now, 2: now, 3: now, 4: None, 5: None, 7: None}
    assert clock.now > began
    assert ledger.compare("demo", "q", posts=[posts[2]], new=()).to_settle == [posts[2]]


def test_a_ledger_of_version_2_is_brought_up_and_read_again(
    tmp_path: Path, make_post: MakePost
) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.admit(load_sites()["demo"])
        keep(ledger, make_post(1))
    take_back_to_2(path)
    with Ledger(path) as ledger:
        assert ledger.compare("demo", "q", posts=[make_post(1)], new=()).known == 1
        ledger.move_mark("demo", "q", 1, is_share=False)
        found = ledger.recheckable("demo", "q", recheck_days=30)
        assert found is not None
        assert (found.mark, round(found.days)) == (1, 1)
        assert [row.changed for row in ledger.changes(0)] == [1]


def reread(
    board: list[int], size: int, *, recent: int, mark: int | None, pages: int
) -> tuple[Recheck, Counter[int]]:
    """Goes one crawl's way over the ids of a board; returns its end and how often each was read."""
    way = Recheck.begin(newest=board[-1], last=board[0], recent=recent, mark=mark, pages=pages)
    seen: Counter[int] = Counter()
    requests = 0
    while (request := way.next_request()) is not None:
        page = [one for one in board if request.includes(one)][-size:]
        assert page, f"{request} is a page below the lowest id"
        seen.update(page)
        way, requests = way.after(page[0]), requests + 1
    # One more shows that no recent id is left.
    assert requests <= math.ceil(sum(one > recent for one in board) / size) + 1 + pages
    # Only where the round closes, the last page may reach over posts that were read before.
    assert sum(count - 1 for count in seen.values()) <= size
    return way, seen


@settings(deadline=None, max_examples=examples(500))
@given(
    board=st.lists(st.integers(1, 400), min_size=1, unique=True).map(sorted),
    size=st.integers(1, 9),
    recent=st.integers(0, 400),
    mark=st.none() | st.integers(-1, 500),
    pages=st.integers(0, 12),
)
def test_each_crawl_reads_all_recent_ids_and_rounds_read_all_the_others(
    board: list[int], size: int, recent: int, mark: int | None, pages: int
) -> None:
    old = [one for one in board if one <= recent]
    crawls = math.ceil((math.ceil(len(old) / size) + 1) / pages) if pages else 1
    read: set[int] = set()
    for _ in range(crawls):
        way, seen = reread(board, size, recent=recent, mark=mark, pages=pages)
        assert {one for one in board if one > recent} <= seen.keys()
        read |= seen.keys()
        mark = way.edge if way.is_walking else mark
    assert {one for one in board if one > recent or pages} <= read


@pytest.mark.parametrize("options", [{"recheck_days": "-1"}, {"recheck_frac": "a third"}])
def test_settings_that_make_no_sense_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: dict[str, str]
) -> None:
    ((name, value),) = options.items()
    with pytest.raises(UsageError, match=f"{name} is {value}"):
        DanbooruSpider.from_crawler(get_crawler(), site="demo", home=str(tmp_path), **options)
    with pytest.raises(SystemExit):
        run.main(["--site", "demo", f"--{name.replace('_', '-')}={value}"])
    assert f'"{value}" is not a' in capsys.readouterr().err
