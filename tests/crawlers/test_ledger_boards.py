"""Boards in the ledger: several sites as one, version 1 brought up, revisits, takedowns."""

import datetime as dt
import json
import sqlite3
from pathlib import Path

import pytest

from crawlers.cursor import Cursor
from crawlers.ledger import MAX_REVISITS, REVISIT_AFTER, Ledger
from crawlers.sites import board_takedowns, load_sites
from dataset.errors import ConfigError, CrawlError
from dataset.media import Media
from dataset.store import Store
from tests.crawlers.conftest import Clock, MakePost

MEDIA = Media("ab" * 32, "png", 8, 9, 100)

# The tables as version 1 made them.
VERSION_1 = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
INSERT INTO schema_version VALUES (1);
CREATE TABLE sites (site TEXT PRIMARY KEY, identity TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE windows (
    site TEXT NOT NULL, query TEXT NOT NULL, low INTEGER, high INTEGER, bottomed INTEGER NOT NULL,
    moved_at TEXT NOT NULL, PRIMARY KEY (site, query)
) WITHOUT ROWID;
CREATE TABLE posts (
    site TEXT NOT NULL, post_id INTEGER NOT NULL, query TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'kept', 'refused')), reason TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, md5 TEXT, sha256 TEXT, ext TEXT, width INTEGER,
    height INTEGER, size_bytes INTEGER, record TEXT NOT NULL, noted_at TEXT NOT NULL,
    settled_at TEXT, PRIMARY KEY (site, post_id)
);
CREATE INDEX posts_by_state ON posts (site, state, query, post_id);
CREATE INDEX posts_by_md5 ON posts (md5);
CREATE INDEX posts_by_sha256 ON posts (sha256) WHERE sha256 IS NOT NULL;
"""


def note(ledger: Ledger, *posts: object) -> None:
    ledger.note_page("demo", "q", posts=list(posts), cursor=Cursor(1, 9))  # type: ignore[arg-type]


def test_both_addresses_of_danbooru_are_one_board(tmp_path: Path) -> None:
    sites = load_sites()
    one, two = sites["safebooru_donmai"], sites["danbooru_donmai"]
    assert (one.board, two.board) == ("danbooru", "danbooru")
    assert sites["konachan"].board == "konachan"
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.admit(one)
        ledger.admit(two)
        assert ledger.boards() == ["danbooru"]
        ledger.lock(one.board)
        with (
            Ledger(ledger.path) as second,
            pytest.raises(CrawlError, match="another crawl of danbooru is at work"),
        ):
            second.lock(two.board, timeout_s=0.1)


def test_a_users_address_of_a_known_board_is_admitted_to_it(tmp_path: Path) -> None:
    registry = tmp_path / "sites.toml"
    registry.write_text(
        '[mirror]\nboard = "konachan"\nfamily = "moebooru"\napi = "https://konachan.com"\n'
        'media_hosts = ["konachan.com"]\npage_size = 100\nsafe_ratings = ["s"]\n'
    )
    for first, second in (("mirror", "konachan"), ("konachan", "mirror")):
        sites = load_sites(registry)
        with Ledger(tmp_path / f"{first}.sqlite") as ledger:
            ledger.admit(sites[first])
            ledger.admit(sites[second])
            assert ledger.boards() == ["konachan"]


def version_1(path: Path, rows: list[tuple[str, int, str, str | None, str | None, str]]) -> None:
    """Writes a ledger of version 1: site, number, state, reason, sha256 and time of the record."""
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1)
        db.executemany(
            "INSERT INTO sites VALUES (?, ?)",
            [
                ("safebooru_donmai", "danbooru@safebooru.donmai.us"),
                ("danbooru_donmai", "danbooru@danbooru.donmai.us"),
                ("konachan", "moebooru@konachan.net"),
            ],
        )
        db.executemany(
            "INSERT INTO windows VALUES (?, 'rating:g', ?, ?, ?, '2026-11-01')",
            [("safebooru_donmai", 1, 5, 1), ("danbooru_donmai", 4, 9, 0), ("konachan", 2, 3, 0)],
        )
        for site, number, state, reason, sha256, fetched_at in rows:
            record = {"board": site, "post_id": number, "fetched_at": fetched_at}
            db.execute(
                "INSERT INTO posts (site, post_id, query, state, reason, sha256, record, noted_at) "
                "VALUES (?, ?, 'rating:g', ?, ?, ?, ?, '2026-11-01')",
                (site, number, state, reason, sha256, json.dumps(record)),
            )
    db.close()


def test_a_ledger_of_version_1_is_brought_up_in_place(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    version_1(
        path,
        [
            ("safebooru_donmai", 1, "kept", None, "aa", "2026-10-01"),
            ("safebooru_donmai", 4, "kept", None, "bb", "2026-10-01"),
            ("danbooru_donmai", 4, "refused", "deleted", None, "2026-10-02"),
            ("safebooru_donmai", 5, "refused", "takedown", None, "2026-10-01"),
            ("danbooru_donmai", 5, "kept", None, "cc", "2026-10-02"),
            ("danbooru_donmai", 9, "pending", None, None, "2026-10-02"),
            ("konachan", 4, "kept", None, "dd", "2026-10-01"),
        ],
    )
    for _ in range(2):  # the second time, nothing is left to do
        with Ledger(path) as ledger:
            assert ledger.boards() == ["danbooru", "konachan"]
            assert ledger.cursor("danbooru", "rating:g") == Cursor(1, 9, True)
            assert ledger.cursor("konachan", "rating:g") == Cursor(2, 3)
            assert ledger.count("danbooru") == {"kept": 1, "refused": 2, "pending": 1}
            assert ledger.taken_down(["danbooru"]) == 1
            ledger.admit(load_sites()["danbooru_donmai"])
            ledger.admit(load_sites()["konachan"])
    with sqlite3.connect(path) as db:
        found = db.execute("SELECT board, post_id, reason, record FROM posts ORDER BY 1, 2")
        rows = [(board, number, reason, json.loads(text)) for board, number, reason, text in found]
        schema = db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    assert [row[:3] for row in rows] == [
        ("danbooru", 1, None),
        ("danbooru", 4, "deleted"),
        ("danbooru", 5, "takedown"),
        ("danbooru", 9, None),
        ("konachan", 4, None),
    ]
    assert all(record["board"] == board for board, _, _, record in rows)
    fresh = tmp_path / "fresh.sqlite"
    Ledger(fresh).close()
    with sqlite3.connect(fresh) as db:
        made = db.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    assert [name for name, _ in schema] == [name for (name,) in made]


@pytest.mark.parametrize(
    ("one", "other", "joined"),
    [
        (Cursor(1, 5, True), Cursor(4, 9), Cursor(1, 9, True)),
        (Cursor(4, 9), Cursor(1, 5), Cursor(1, 9)),
        (Cursor(1, 3, True), Cursor(5, 9), Cursor(5, 9)),
        (Cursor(2, 9), Cursor(3, 5), Cursor(2, 9)),
        (Cursor(), Cursor(3, 5, True), Cursor(3, 5, True)),
        (Cursor(), Cursor(), Cursor()),
    ],
)
def test_cursors_that_meet_are_merged(one: Cursor, other: Cursor, joined: Cursor) -> None:
    assert one.merged(other) == joined
    assert other.merged(one) == joined


@pytest.mark.parametrize("reason", ["pending", "flagged"])
def test_what_a_board_had_not_finished_with_is_revisited_when_due_some_times(
    ledger: Ledger, make_post: MakePost, clock: Clock, reason: str
) -> None:
    post = make_post(1, **{reason: True})
    note(ledger, post, make_post(2))
    ledger.refuse(post, reason)
    ledger.refuse(make_post(2), "rating")
    for _ in range(MAX_REVISITS):
        clock.now += REVISIT_AFTER - dt.timedelta(seconds=1)
        assert ledger.revisit("demo") == 0
        clock.now += dt.timedelta(seconds=1)
        assert ledger.revisit("demo") == 1
        assert ledger.pending("demo", "q") == [post]
        assert ledger.revisit("demo") == 0
        ledger.refuse(post, reason)
    clock.now += 9 * REVISIT_AFTER
    assert ledger.revisit("demo") == 0


def test_a_post_whose_words_changed_keeps_its_blob_until_it_is_settled(
    ledger: Ledger, make_post: MakePost
) -> None:
    note(ledger, make_post(1))
    ledger.keep(make_post(1), MEDIA)
    note(ledger, make_post(1, tags_general=("1girl",)))
    assert ledger.count("demo")["pending"] == 1
    assert ledger.blob_of(make_post(1).md5 or "") == MEDIA
    note(ledger, make_post(1, md5="f" * 32))
    assert ledger.blob_of("f" * 32) is None
    assert list(ledger.blobs()) == []


def test_no_later_record_brings_back_what_was_taken_down(
    ledger: Ledger, make_post: MakePost
) -> None:
    post = make_post(1)
    note(ledger, post)
    ledger.refuse(post, "takedown")
    changed = make_post(1, tags_general=("1girl", "smile"))
    assert ledger.note_page("demo", "other", posts=[changed], cursor=Cursor(1, 1)) == []
    ledger.keep(post, MEDIA)  # a crawl that began before the takedown
    ledger.requeue([MEDIA.sha256], "blob_missing")
    assert [(row.state, row.reason) for row in ledger.rows(["demo"])] == [("refused", "takedown")]
    assert ledger.is_taken_down(post.md5)


def test_a_takedown_entry_may_name_a_site_or_its_board_but_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = {"safebooru_donmai": "danbooru", "danbooru": "danbooru"}
    store.write_bytes("takedown.txt", b"post safebooru_donmai/5\npost danbooru/6\npost old/7\n")
    found = board_takedowns(store, names, crawled=["old"])
    assert found.posts == {("danbooru", 5), ("danbooru", 6), ("old", 7)}
    store.write_bytes("takedown.txt", b"post danboru/5\n")
    with pytest.raises(ConfigError, match=r'post danboru/5: "danboru" is no .*mean "danbooru"'):
        board_takedowns(store, names)
