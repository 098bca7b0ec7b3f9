"""Refusals know what they rest on: once that has changed, the post is judged again."""

import contextlib
import dataclasses
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from crawlers.cursor import Cursor
from crawlers.ledger import Ledger
from crawlers.post import NOT_ASKED_FOR, Post
from crawlers.refusals import cause_of, remedy, stands
from crawlers.sites import Site
from tests.crawlers.conftest import (
    ONLY_NEW,
    QUICK,
    CrawlOf,
    MakePost,
    reasons_of,
    rows_of,
    take_back_to_2,
)
from tests.crawlers.little_board import LittleBoard, picture, serving

REGISTRY = "[demo]\npage_size = 20\n"


class TaggedBoard(LittleBoard):
    """A board whose search knows tags, and one of them by another name, too."""

    def __init__(self, count: int, tags: dict[int, str] | None = None, **rest: Any) -> None:
        super().__init__(count=count, **rest)
        self.aliases = {"touhou_project": "touhou"}
        self.tags = tags or {}
        self.pages: list[str] = []  # the searches of the pages that were requested

    def _record(self, number: int) -> dict[str, Any]:
        tags = self.tags.get(number, "1girl solo touhou")
        return {**super()._record(number), "tag_string": tags}

    def _page(self, query: Any) -> list[dict[str, Any]]:
        self.pages.append(query.get("tags", ""))
        words = [self.aliases.get(word, word) for word in query.get("tags", "").split()]
        plain = [word for word in words if ":" not in word and word[0] != "-"]
        whole = super()._page({**query, "limit": "1000"})
        found = [row for row in whole if set(plain) <= set(row["tag_string"].split())]
        return found[: int(query["limit"])]


class OnlyNew(CrawlOf):
    """A crawl that reads nothing again, so that its requests are those of what it judges again."""

    def __call__(self, *options: str, **more: Any) -> dict[str, Any]:
        return super().__call__(*ONLY_NEW, *options, **more)


@contextlib.contextmanager
def crawled(tmp_path: Path, board: TaggedBoard) -> Iterator[CrawlOf]:
    with serving(board):
        crawl = OnlyNew(board.url, tmp_path)
        crawl.program = QUICK
        yield crawl


def registry(tmp_path: Path, text: str = "") -> None:
    (tmp_path / "sites.toml").write_text(REGISTRY + text)


@contextlib.contextmanager
def database(home: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(home / "ledger.sqlite")) as db, db:
        yield db


def test_what_an_alias_brought_is_taken_by_the_search_for_the_tag_itself(tmp_path: Path) -> None:
    board = TaggedBoard(30, {7: "1girl"})
    with crawled(tmp_path, board) as crawl:
        first = crawl("--tags", "touhou_project")
        assert first["refused"] == {"not_asked_for": 29}
        assert first["media_requests"] == 0
        again = crawl("--tags", "touhou_project")
        assert (again["seen"], again["api_requests"]) == (0, 1)
        made = crawl("--tags", "touhou")
    assert (made["kept"], made["refused"]) == (29, {})
    assert reasons_of(crawl.home) == dict.fromkeys(set(range(1, 31)) - {7})


@pytest.mark.parametrize("words", ["touhou", ""])
def test_a_search_that_passed_them_before_takes_what_an_earlier_release_refused(
    tmp_path: Path, words: str
) -> None:
    board = TaggedBoard(30, {7: "1girl", 9: "1girl solo touhou comic", 11: "1girl"})
    with crawled(tmp_path, board) as crawl:
        crawl("--tags", "touhou_project")
        with database(crawl.home) as db:  # as it was left: the search for the tag took nothing
            db.execute("UPDATE posts SET cause = NULL")
            db.execute("UPDATE windows SET query = ?", (words,))
        board.pages.clear()
        made = crawl("--tags", words)
        assert (made["kept"], made["refused"]) == (27, {})
        assert len(board.pages) == 3  # two of those that wait, one of what is new
        again = crawl("--tags", words)
    assert (again["seen"], again["api_requests"]) == (0, 1)
    reasons = reasons_of(crawl.home)
    assert reasons.pop(9) == "tag_comic"
    assert set(reasons.values()) == {None}


def test_a_search_takes_nothing_that_it_did_not_ask_for(tmp_path: Path) -> None:
    """Neither posts without its words, nor those of which only the board can tell."""
    board = TaggedBoard(6, {3: "1girl touhou"})
    with crawled(tmp_path, board) as crawl:
        crawl("--tags", "touhou_project")
        with database(crawl.home) as db:
            db.execute("INSERT INTO windows SELECT board, 'touhou solo', 1, 6, 1, '' FROM windows")
            db.execute("INSERT INTO windows SELECT board, 'touhou score:>9', 1, 6, 1, '' "
                       "FROM windows WHERE query = 'touhou_project'")  # fmt: skip
        assert crawl("--tags", "touhou score:>9")["seen"] == 0
        assert crawl("--tags", "touhou solo")["kept"] == 5
    assert reasons_of(crawl.home)[3] == "not_asked_for"


def test_a_mended_list_of_hosts_frees_the_pictures_on_them(tmp_path: Path) -> None:
    board = TaggedBoard(6)
    with crawled(tmp_path, board) as crawl:
        on_localhost = board.url.replace("127.0.0.1", "localhost")
        board.file_urls = {n: f"{on_localhost}/media/{n}.png" for n in (2, 5)}
        board.file_urls[4] = "http://far.example/4.png"
        registry(tmp_path, 'media_hosts = ["files.example"]\n')
        assert crawl()["refused"] == {"host": 3}
        assert crawl()["api_requests"] == 1
        registry(tmp_path, 'media_hosts = ["localhost", "127.0.0.1"]\n')
        made = crawl()
        assert (made["kept"], made["media_requests"], made["refused"]) == (2, 2, {})
        assert made["api_requests"] <= 3
        assert crawl()["api_requests"] == 1
    assert reasons_of(crawl.home) == {**dict.fromkeys(range(1, 7)), 4: "host"}


def test_a_tag_that_is_not_excluded_any_more_frees_its_posts(tmp_path: Path) -> None:
    tags = {2: "1girl furry", 3: "1girl furry hat", 4: "1girl furry comic", 5: "1girl hat"}
    board = TaggedBoard(6, tags)
    with crawled(tmp_path, board) as crawl:
        registry(tmp_path, 'excluded_tags = ["furry", "hat"]\n')
        assert crawl()["refused"] == {"tag_comic": 1, "tag_furry": 2, "tag_hat": 1}
        assert crawl()["api_requests"] == 1
        registry(tmp_path, 'excluded_tags = ["hat"]\n')
        made = crawl()
        assert (made["kept"], made["media_requests"], made["refused"]) == (1, 1, {})
        assert crawl()["api_requests"] == 1
        reasons = reasons_of(crawl.home)
        assert reasons == {1: None, 2: None, 3: "tag_hat", 4: "tag_comic", 5: "tag_hat", 6: None}
        registry(tmp_path)
        assert crawl()["kept"] == 2
    assert reasons_of(crawl.home) == {**dict.fromkeys(range(1, 7)), 4: "tag_comic"}


def test_a_release_that_excludes_a_tag_no_longer_frees_its_posts(tmp_path: Path) -> None:
    board = TaggedBoard(4, {2: "1girl sketch"})
    with crawled(tmp_path, board) as crawl:
        assert crawl()["refused"] == {"tag_sketch": 1}
        without = "policy.EXCLUDED_TAGS = policy.EXCLUDED_TAGS - {'sketch'}"
        crawl.program = ("-c", f"from dataset import policy\n{without}\n{QUICK[1]}")
        made = crawl()
    assert (made["kept"], made["media_requests"]) == (1, 1)


def test_a_robots_exemption_frees_the_pictures_it_names(tmp_path: Path) -> None:
    def answer(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/robots.txt":
            return web.Response(text="User-agent: *\nDisallow: /danbooru/files\n")
        if request.path.startswith("/danbooru/files"):
            return web.Response(body=picture(int(request.path[-5])))
        return None

    board = TaggedBoard(4, answer=answer)
    exempt = 'robots_exempt = ["/posts.json", "/counts/posts.json"{}]\n'
    with crawled(tmp_path, board) as crawl:
        board.file_urls = {n: f"{board.url}/danbooru/files/{n}.png" for n in (2, 3)}
        registry(tmp_path, exempt.format(""))
        assert crawl()["refused"] == {"robots": 2}
        registry(tmp_path, exempt.format(', "/files/3.png"'))
        made = crawl()
        assert (made["kept"], made["media_requests"]) == (1, 1)
        assert crawl()["api_requests"] == 1
    assert {n for n, reason in reasons_of(crawl.home).items() if reason} == {2}


@pytest.mark.parametrize(
    ("limit", "reason"),
    [("MAX_BYTES = 100", "too_large"), ("MAX_PIXELS = 4_000", "too_many_pixels")],
)
def test_a_raised_limit_frees_what_was_beyond_it(tmp_path: Path, limit: str, reason: str) -> None:
    board = TaggedBoard(3)
    with crawled(tmp_path, board) as crawl:
        crawl.program = ("-c", f"from dataset import media\nmedia.{limit}\n{QUICK[1]}")
        assert crawl()["refused"] == {reason: 3}
        assert crawl()["media_requests"] == 0
        crawl.program = QUICK
        made = crawl()
        assert (made["kept"], made["media_requests"]) == (3, 3)
        assert crawl()["api_requests"] == 1


def test_what_was_unavailable_is_tried_again_after_a_month(tmp_path: Path) -> None:
    down = True

    def answer(request: web.Request) -> web.StreamResponse | None:
        if down and request.path in ("/media/2.png", "/media/3.png"):
            # one fails as hosts in trouble do, one as those that are set up wrongly do
            return web.Response(status=503 if request.path == "/media/2.png" else 418)
        return None

    board = TaggedBoard(4, answer=answer)
    with crawled(tmp_path, board) as crawl:
        assert crawl()["refused"] == {"status_418": 1}
        with database(crawl.home) as db:
            db.execute("UPDATE posts SET attempts = 4")
        assert crawl()["refused"] == {"unavailable": 1}
        assert crawl()["media_requests"] == 0
        aged(crawl.home, days=31)
        assert crawl()["put_off"] == 1  # five crawls once more
        down = False
        aged(crawl.home, days=31)
        made = crawl()
    assert (made["kept"], made["refused"]) == (2, {})


def aged(home: Path, *, days: int) -> None:
    """Makes all refusals so much older."""
    with database(home) as db:
        db.execute("UPDATE posts SET settled_at = strftime('%Y-%m-%dT%H:%M:%S', settled_at, ?)",
                   (f"-{days} days",))  # fmt: skip


def test_a_rating_that_the_registry_now_calls_safe_is_read_again(tmp_path: Path) -> None:
    """The record in the ledger has our word for a rating, not the board's."""
    site = (
        '[mine]\nfamily = "gelbooru02"\napi = "{url}/gelbooru"\nmedia_hosts = ["127.0.0.1"]\n'
        'page_size = 20\nsafe_ratings = [{words}]\ninterval_s = 0.0\nmedia_interval_s = 0.0\n'
        'robots_exempt = ["/index.php"]\n'
    )  # fmt: skip

    def answer(request: web.Request) -> web.StreamResponse | None:
        if request.path != "/gelbooru/index.php":
            return None
        words = re.findall(r"id:(<|>)(\d+)", request.query["tags"])
        numbers = [n for n in (3, 2, 1) if all(n < int(edge) if sign == "<" else n > int(edge)
                                               for sign, edge in words)]  # fmt: skip
        rows = [{**board._record(n), "hash": board._record(n)["md5"], "tags": "1girl solo",
                 "image": f"{n}.png", "rating": ["general", "safe", "sensitive"][n - 1]}
                for n in numbers]  # fmt: skip
        return web.json_response(rows)

    board = TaggedBoard(3, answer=answer)
    with crawled(tmp_path, board) as crawl:
        sites = tmp_path / "sites.toml"
        sites.write_text(site.format(url=board.url, words='"general"'))
        first = crawl(site="mine")
        assert first["refused"] == {"rating": 2}, first
        sites.write_text(site.format(url=board.url, words='"general", "safe"'))
        made = crawl(site="mine")
        assert (made["kept"], made["refused"]) == (1, {"rating": 1})
        assert crawl(site="mine")["media_requests"] == 0
    assert [(row.post.post_id, row.reason) for row in rows_of(crawl.home, "mine")] == [
        (1, None),
        (2, None),
        (3, "rating"),
    ]


def test_what_was_taken_down_stays_so_whatever_changes(tmp_path: Path) -> None:
    board = TaggedBoard(3, {2: "1girl furry", 3: "1girl furry"})
    with crawled(tmp_path, board) as crawl:
        registry(tmp_path, 'excluded_tags = ["furry"]\n')
        assert crawl()["refused"] == {"tag_furry": 2}
        (crawl.home / "takedown.txt").write_text("post demo/2\n")
        registry(tmp_path)
        assert crawl()["kept"] == 1
    assert reasons_of(crawl.home) == {1: None, 2: "takedown", 3: None}


def test_an_alias_is_named_with_what_to_search_for(tmp_path: Path) -> None:
    board = TaggedBoard(4, {1: "1girl solo touhou", 2: "1girl hat touhou"})
    with crawled(tmp_path, board) as crawl:
        child = crawl.start("--tags", "touhou_project")
        out, err = child.communicate(timeout=600)
    assert json.loads(out)["refused"] == {"not_asked_for": 4}
    assert 'no post that the board listed has all words of "touhou_project"' in err
    assert "search for the tag it stands for; tags that all have: 1girl, touhou\n" in err


@pytest.mark.parametrize(
    ("reason", "cause", "still"),
    [
        ("tag_comic", None, True),
        ("tag_furry", None, True),  # the site excludes it
        ("tag_hat", None, False),
        ("takedown", "search solo", True),
        ("deleted", None, True),
        ("gone", None, True),
        ("unavailable", None, True),
        (NOT_ASKED_FOR, "search touhou", True),
        (NOT_ASKED_FOR, "search solo", False),
        (NOT_ASKED_FOR, None, False),
        ("host", "media_hosts of demo: 127.0.0.1 localhost ::1", True),
        ("host", "media_hosts of demo: localhost", False),
        ("host", "media_hosts of demo2: localhost", True),
        ("host", None, False),  # the record tells
        ("robots", "robots_exempt of demo: ", False),
        ("format", None, False),
        ("rating", "safe_ratings of demo: g", True),
        ("rating", "safe_ratings of demo: ", False),
        ("rating", None, True),  # only the board could tell
        ("too_large", None, True),
        ("too_large", "limit of 30,000,000 bytes", True),
        ("too_large", "limit of 20,000,000 bytes", False),
        ("corrupt", "media gate 1", True),
        ("corrupt", "media gate 0", False),
        ("animated", None, True),
    ],
)
def test_a_refusal_stands_as_long_as_what_it_rests_on(
    sites: dict[str, Site], reason: str, cause: str | None, still: bool
) -> None:
    site = dataclasses.replace(sites["demo"], excluded_tags=("furry",))
    assert stands(reason, cause, query="touhou", site=site) is still


def test_each_cause_is_a_refusal_that_stands(sites: dict[str, Site]) -> None:
    for site in (*sites.values(), None):
        for reason in ("host", "robots", "rating", "format", "too_large", "mislabelled", "banned"):
            cause = cause_of(reason, query="q", site=site)
            assert stands(reason, cause, query="q", site=site)
            assert remedy(reason)


def test_a_judgement_that_is_cut_short_is_done_by_the_next_crawl(
    tmp_path: Path, make_post: MakePost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlers.ledger.BATCH", 4)
    judged: list[int] = []

    def judge(post: Post, _query: str) -> tuple[str | None, str | None]:
        if len(judged) == 6:
            raise KeyboardInterrupt
        judged.append(post.post_id)
        return (None, None) if post.post_id % 2 else ("host", "new")

    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        posts = [make_post(number) for number in range(1, 11)]
        ledger.note_page("demo", "q", posts=posts, cursor=Cursor(1, 10))
        for post in posts:
            ledger.refuse(post, "host", cause="old")
        with pytest.raises(KeyboardInterrupt):
            ledger.judge_again("demo", "host", "old", judge)
        assert ledger.refusals("demo") == [("host", "new", 2), ("host", "old", 6)]
        judged.clear()
        assert ledger.judge_again("demo", "host", "old", judge) == 3
        assert judged == list(range(5, 11))
        assert ledger.refusals("demo") == [("host", "new", 5)]
        assert ledger.count("demo")["pending"] == 5


def test_a_ledger_of_version_2_is_brought_up_in_place(tmp_path: Path, make_post: MakePost) -> None:
    path, fresh = tmp_path / "ledger.sqlite", tmp_path / "fresh.sqlite"
    Ledger(fresh).close()
    with Ledger(path) as ledger:
        ledger.note_page("demo", "q", posts=[make_post(1), make_post(2)], cursor=Cursor(1, 2))
        ledger.refuse(make_post(1), "host")
    take_back_to_2(path)
    for _ in range(2):  # the second time, nothing is left to do
        with Ledger(path) as ledger:
            assert ledger.refusals("demo") == [("host", None, 1)]
            assert ledger.pending("demo", "q") == [make_post(2)]
    names = []
    for one in (path, fresh):
        with contextlib.closing(sqlite3.connect(one)) as db:
            names.append(db.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall())
    assert names[0] == names[1]
