"""Backups of the ledger: written by crawls and imports, the newest kept, put back with a check."""

import datetime as dt
import sqlite3
from pathlib import Path

import pytest

from crawlers.export import export_posts
from crawlers.ledger import Ledger
from crawlers.ledger_file import BACKUPS, FILE, KEPT_BACKUPS, restore
from dataset.errors import StoreError, UsageError
from dataset.store import Store
from tests.board_fixture import serve_collection
from tests.crawlers.conftest import Clock, CrawlOf, states_of
from tests.crawlers.tiny import tiny_collection


def test_a_ledger_that_was_lost_comes_back_and_the_next_crawl_takes_up_the_rest(
    tmp_path: Path,
) -> None:
    with serve_collection(tiny_collection(range(1, 31))) as board:
        crawl = CrawlOf(board.url, tmp_path)
        crawl("--limit", "20")
        store = Store(crawl.home)
        (first,) = store.names(BACKUPS)
        crawl()
        whole = export_posts(store, ["demo"])
        assert len(store.names(BACKUPS)) == 2
        Path(crawl.home, FILE).write_bytes(b"cut")
        chosen, former = restore(store, first)
        assert chosen == f"{BACKUPS}/{first}"
        assert store.read_bytes(former) == b"cut"
        assert states_of(crawl.home) == {"kept": 20}
        crawl()
        assert export_posts(store, ["demo"]).digest == whole.digest


def test_no_log_of_a_lost_ledger_is_played_over_the_restored_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with Ledger(tmp_path / FILE) as ledger:
        ledger.back_up(store)
        ((own,),) = sqlite3.connect(tmp_path / FILE).execute("SELECT id FROM home")
        with sqlite3.connect(tmp_path / FILE) as other:
            other.execute("UPDATE home SET id = 'later'")
        log = (tmp_path / f"{FILE}-wal").read_bytes()
    (tmp_path / FILE).unlink()
    (tmp_path / f"{FILE}-wal").write_bytes(log)  # as a killed process leaves it
    formers = [restore(store)[1] for _ in range(3)]
    assert len(set(formers)) == 3
    assert (tmp_path / f"{formers[0]}-wal").read_bytes() == log
    with Ledger(tmp_path / FILE) as ledger:
        assert ledger.identity() == own


def test_after_a_restore_the_table_of_posts_is_built_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with Ledger(tmp_path / FILE) as ledger:
        ledger.back_up(store)
    store.write_bytes("posts.lance/data/some.lance", b"of rows that the backup does not know")
    restore(store)
    assert not store.exists("posts.lance")


def test_the_newest_seven_are_kept_and_files_of_others_left_alone(tmp_path: Path) -> None:
    store, clock = Store(tmp_path), Clock()
    for name in ("2020-mine.sqlite.gz", "notes.txt"):
        store.write_bytes(f"{BACKUPS}/{name}", b"mine")
    with Ledger(tmp_path / FILE, clock=clock) as ledger:
        made = []
        for _ in range(KEPT_BACKUPS + 3):
            clock.now += dt.timedelta(hours=1)
            made.append(ledger.back_up(store).rpartition("/")[2])
    mine = ["2020-mine.sqlite.gz", "notes.txt"]
    assert store.names(BACKUPS) == sorted([*mine, *made[-KEPT_BACKUPS:]])
    assert restore(store)[0] == f"{BACKUPS}/{made[-1]}"
    assert not list(tmp_path.glob(".tmp-*"))


def test_what_cannot_be_put_back_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UsageError, match="ledger-backups has no backup: crawls and imports write"):
        restore(store)
    with Ledger(tmp_path / FILE) as ledger:
        name = ledger.back_up(store).rpartition("/")[2]
        with pytest.raises(UsageError, match=f'no backup "other"; there are: {name}'):
            restore(store, "other")
        ledger.lock("demo")
        with pytest.raises(UsageError, match="a crawl or an import is at work"):
            restore(store)
    content = store.read_bytes(f"{BACKUPS}/{name}")
    before = Path(tmp_path, FILE).read_bytes()
    for damaged in (content[: len(content) // 2], b"no gzip", content[:200] + content[300:]):
        store.write_bytes(f"{BACKUPS}/{name}", damaged)
        with pytest.raises(StoreError, match=rf"{name} is damaged: .* Choose an older one"):
            restore(store)
    assert Path(tmp_path, FILE).read_bytes() == before
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_copy_is_whole_while_others_write(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with Ledger(tmp_path / FILE) as ledger, sqlite3.connect(tmp_path / FILE) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO home VALUES ('not committed')")
        name = ledger.back_up(store)
        other.rollback()
    restore(store)
    assert name.startswith(f"{BACKUPS}/")
    with sqlite3.connect(tmp_path / FILE) as db:
        assert db.execute("SELECT COUNT(*) FROM home").fetchone() == (1,)
