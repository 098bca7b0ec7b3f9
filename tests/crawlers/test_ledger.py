"""The ledger: pages and cursors together or not at all, states that last, blobs found again."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from crawlers.cursor import Cursor
from crawlers.ledger import MAX_ATTEMPTS, Ledger
from crawlers.sites import load_sites
from dataset.errors import CrawlError, StoreError
from dataset.media import Media
from tests.crawlers.conftest import MakePost

MEDIA = Media("ab" * 32, "png", 8, 9, 100)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        opened.admit(load_sites()["demo"])
        yield opened


def test_a_noted_page_is_pending_until_each_post_is_settled(
    ledger: Ledger, make_post: MakePost
) -> None:
    posts = [make_post(n) for n in (3, 2, 1)]
    cursor = Cursor(1, 3)
    assert ledger.note_page("demo", "q", posts=posts, cursor=cursor) == posts
    assert ledger.cursor("demo", "q") == cursor
    assert ledger.cursor("demo", "another") == Cursor()
    assert [post.post_id for post in ledger.pending("demo", "q")] == [1, 2, 3]
    assert [post.post_id for post in ledger.pending("demo", "q", first=2, below=3)] == [2]
    assert ledger.pending_queries("demo") == ["q"]
    assert ledger.highest_pending("demo", "q", below=3) == 2
    assert ledger.highest_pending("demo", "another") is None
    ledger.keep(posts[0], MEDIA)
    ledger.refuse(posts[1], "rating")
    assert ledger.pending("demo", "q") == [posts[2]]
    rows = {row.post.post_id: (row.state, row.reason, row.media) for row in ledger.rows(["demo"])}
    assert rows == {
        1: ("pending", None, None),
        2: ("refused", "rating", None),
        3: ("kept", None, MEDIA),
    }


def test_a_page_that_cannot_be_written_leaves_the_cursor_where_it_was(
    ledger: Ledger, make_post: MakePost, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.note_page("demo", "q", posts=[make_post(1)], cursor=Cursor(1, 1))
    broken = make_post(3, source="\udcff")  # cannot be written as UTF-8
    with pytest.raises((StoreError, UnicodeError)):
        ledger.note_page("demo", "q", posts=[make_post(2), broken], cursor=Cursor(1, 3))
    assert ledger.cursor("demo", "q") == Cursor(1, 1)
    assert [row.post.post_id for row in ledger.rows(["demo"])] == [1]


def test_a_post_seen_again_is_settled_again_only_if_it_changed(
    ledger: Ledger, make_post: MakePost
) -> None:
    cursor = Cursor(1, 2)
    ledger.note_page("demo", "q", posts=[make_post(1), make_post(2)], cursor=cursor)
    ledger.keep(make_post(1), MEDIA)
    ledger.keep(make_post(2), MEDIA)
    again = [make_post(1, score=99), make_post(2, deleted=True)]
    assert ledger.note_page("demo", "other", posts=again, cursor=cursor) == [again[1]]
    assert [post.post_id for post in ledger.pending("demo", "other")] == [2]


def test_a_picture_that_cannot_be_fetched_is_tried_some_times_then_given_up(
    ledger: Ledger, make_post: MakePost
) -> None:
    post = make_post(1)
    ledger.note_page("demo", "q", posts=[post], cursor=Cursor(1, 1))
    tries = [ledger.postpone(post, "status 503") for _ in range(MAX_ATTEMPTS)]
    assert tries == [True] * (MAX_ATTEMPTS - 1) + [False]
    assert [(row.state, row.reason) for row in ledger.rows(["demo"])] == [
        ("refused", "unavailable")
    ]


def test_a_blob_is_found_by_the_md5_of_any_board(ledger: Ledger, make_post: MakePost) -> None:
    post = make_post(1)
    ledger.note_page("demo", "q", posts=[post], cursor=Cursor(1, 1))
    assert ledger.blob_of(post.md5 or "") is None
    ledger.keep(post, MEDIA)
    assert ledger.blob_of(post.md5 or "") == MEDIA


def test_more_posts_than_a_batch_come_in_order(ledger: Ledger, make_post: MakePost) -> None:
    posts = [make_post(n) for n in range(1, 1203)]
    ledger.note_page("demo", "q", posts=posts, cursor=Cursor(1, 1202))
    seen = []
    for row in ledger.rows(["demo"]):
        ledger.refuse(row.post, "rating")  # settled while they are read
        seen.append(row.post.post_id)
    assert seen == list(range(1, 1203))
    assert ledger.count("demo") == {"pending": 0, "kept": 0, "refused": 1202}


def test_a_name_stands_for_one_board_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = tmp_path / "sites.toml"
    registry.write_text('[konachan]\napi = "https://konachan.com"\n')
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.admit(load_sites()["konachan"])
        with pytest.raises(CrawlError, match=r"holds posts of moebooru@konachan\.net under"):
            ledger.admit(load_sites(registry)["konachan"])
        ledger.admit(load_sites()["demo"])
        monkeypatch.setenv("OMOKAGE_BOARD_URL", "http://127.0.0.1:5123")
        ledger.admit(load_sites()["demo"])  # the demo board may move to another port


def test_a_file_that_is_no_ledger_of_this_version_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(StoreError, match=r"ledger.sqlite is a ledger of version 99, 4 wanted"):
        Ledger(path)
    path.unlink()
    path.write_bytes(b"not a database at all, but long enough to be looked at as one")
    with pytest.raises(StoreError, match="cannot be used as the ledger"):
        Ledger(path)


def test_a_late_failure_does_not_touch_a_post_that_another_crawl_has_settled(
    ledger: Ledger, make_post: MakePost
) -> None:
    post = make_post(1)
    ledger.note_page("demo", "q", posts=[post], cursor=Cursor(1, 1))
    ledger.refuse(post, "animated")
    for _ in range(MAX_ATTEMPTS):
        ledger.postpone(post, "Connection was refused")
    (row,) = ledger.rows(["demo"])
    assert (row.state, row.reason) == ("refused", "animated")


def test_one_crawl_of_a_site_is_at_work_at_a_time(ledger: Ledger) -> None:
    ledger.lock("demo")
    with Ledger(ledger.path) as second:
        second.lock("konachan")
        with pytest.raises(CrawlError, match="another crawl of demo is at work"):
            second.lock("demo", timeout_s=0.2)
        ledger.close()
        second.lock("demo", timeout_s=0.2)
