"""Posts are read again after they were taken: the set follows what boards change, add and remove."""

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

from crawlers.cursor import PageRequest, Recheck
from crawlers.export import export_posts
from crawlers.ledger import Ledger
from dataset.policy import EXCLUDED_TAGS
from dataset.schemas import POSTS, read_table
from dataset.store import Store
from demo.collection import Collection, by_kind
from tests.board_fixture import serve_collection
from tests.crawlers.conftest import CrawlOf, rows_of
from tests.crawlers.tiny import tiny_collection
from tests.hypothesis_profiles import examples

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
POSTS_OF_BOARD = 120
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


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("words", "is_searched"), [("", False), ("1girl", True)])
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
        for number in range(3):
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
