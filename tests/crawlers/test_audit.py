"""The audit finds every kind of disagreement; the sweep removes only what nobody names."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.checks import ledger_and_files_agree, no_orphan_blobs, records_are_recent
from assets.resources import StoreResource
from crawlers.audit import Audit, audit, sweep
from crawlers.cursor import Cursor
from crawlers.ledger import Ledger
from crawlers.sites import load_sites
from dataset.errors import CrawlError
from dataset.media import Media, check_media
from dataset.store import Store, blob_path
from demo.collection import md5_of
from tests.crawlers.conftest import MakePost
from tests.crawlers.tiny import tiny_picture


class Kept:
    """A home with a few kept posts."""

    def __init__(self, folder: Path, make_post: MakePost) -> None:
        self.store = Store(folder)
        self.ledger = Ledger.of(self.store)
        self.ledger.admit(load_sites()["demo"])
        self.blobs = [self.keep(make_post, number) for number in range(1, 5)]

    def keep(self, make_post: MakePost, number: int) -> str:
        body = tiny_picture(number)
        media: Media = check_media(body, md5=md5_of(body), ext="png")
        post = make_post(number, md5=md5_of(body))
        self.ledger.note_page("demo", "q", posts=[post], cursor=Cursor(1, number))
        self.ledger.keep(post, media)
        path = blob_path(media.sha256, media.ext)
        self.store.write_bytes(path, body)
        return path


@pytest.fixture
def kept(tmp_path: Path, make_post: MakePost) -> Iterator[Kept]:
    home = Kept(tmp_path, make_post)
    yield home
    home.ledger.close()


def judged(check: dg.AssetChecksDefinition, store: Store) -> tuple[bool, str]:
    result = check(StoreResource(root=store.root))
    assert isinstance(result, dg.AssetCheckResult)
    return result.passed, result.description or ""


ORPHAN = "blobs/ab/cd/" + "ab" * 32 + ".png"


def test_a_whole_home_has_no_fault(kept: Kept) -> None:
    assert audit(kept.store) == Audit(blobs=4, named=4, hashed=4)
    assert audit(kept.store, hashed=2).hashed == 2


def test_a_home_without_a_ledger_or_blobs_is_empty(tmp_path: Path) -> None:
    assert audit(Store(tmp_path)) == Audit()


def test_every_fault_is_found_and_reported(kept: Kept) -> None:
    missing, short, other, whole = kept.blobs
    kept.store.remove(missing)
    kept.store.state.local(short).write_bytes(b"cut")
    body = kept.store.read_bytes(other)
    kept.store.state.local(other).write_bytes(bytes([body[0] ^ 1]) + body[1:])
    kept.store.write_bytes(ORPHAN, b"nobody's")
    kept.store.state.local("blobs/.tmp-left").write_bytes(b"half")
    found = audit(kept.store)
    assert (found.orphans, found.temporary) == ((ORPHAN,), ("blobs/.tmp-left",))
    assert (found.missing, found.wrong_size) == ((missing,), (short,))
    assert found.wrong_sha256 == tuple(sorted((short, other)))
    assert whole not in found.wrong_sha256
    assert (found.blobs, found.named) == (4, 4)

    passed, said = judged(no_orphan_blobs, kept.store)
    assert not passed
    assert said.startswith(f"2 of 5 files belong to no post: {ORPHAN}, blobs/.tmp-left. A killed")
    passed, said = judged(ledger_and_files_agree, kept.store)
    assert not passed
    assert f"1 missing: {missing}; 1 of another size: {short}; 2 of other" in said
    assert "crawl again" in said


def test_the_checks_of_a_whole_home_pass(kept: Kept) -> None:
    assert judged(no_orphan_blobs, kept.store) == (True, "0 of 4 files belong to no post.")
    said = "4 blobs are named, 4 were read; all is there."
    assert judged(ledger_and_files_agree, kept.store) == (True, said)


def test_the_sweep_removes_what_no_post_names_and_nothing_else(kept: Kept) -> None:
    kept.store.write_bytes(ORPHAN, b"nobody's")
    kept.store.state.local("blobs/ab/.tmp-left").write_bytes(b"half")
    assert sweep(kept.store, kept.ledger) == ["blobs/ab/.tmp-left", ORPHAN]
    assert audit(kept.store) == Audit(blobs=4, named=4, hashed=4)


def test_nothing_is_swept_while_a_crawl_of_any_board_is_at_work(kept: Kept) -> None:
    kept.store.write_bytes(ORPHAN, b"its post is about to be settled")
    with Ledger.of(kept.store) as crawl:
        crawl.lock("konachan")
        assert sweep(kept.store, kept.ledger) == []
        assert audit(kept.store).crawling
        assert judged(no_orphan_blobs, kept.store)[0]
    assert sweep(kept.store, kept.ledger) == [ORPHAN]


def test_a_crawl_waits_for_the_sweep(kept: Kept) -> None:
    with kept.ledger.no_crawl() as quiet, Ledger.of(kept.store) as crawl:
        assert quiet
        with pytest.raises(CrawlError, match="another crawl of demo"):
            crawl.lock("demo", timeout_s=0.2)


def test_records_that_no_board_has_shown_for_long_are_reported(
    kept: Kept, make_post: MakePost
) -> None:
    limit = "limit 1%) were not seen on their board for 60 days"
    said = f"0 of 4 kept posts of boards (0.0%, {limit}."
    assert judged(records_are_recent, kept.store) == (True, said)
    with sqlite3.connect(kept.ledger.path) as db:
        db.execute("UPDATE posts SET noted_at = '2020-01-01T00:00:00.000+00:00'")
    seen = make_post(1, md5=md5_of(tiny_picture(1)))
    assert kept.ledger.compare("demo", "q", posts=[seen], new=()).known == 1
    passed, said = judged(records_are_recent, kept.store)
    assert not passed
    assert said.startswith(f"3 of 4 kept posts of boards (75.0%, {limit}: demo 3. What their")


def test_of_many_blobs_a_part_is_looked_through_and_each_has_its_turn(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlers.audit.BLOBS_AT_ONCE", 1)  # of four: a quarter each time
    kept.store.remove(kept.blobs[2])
    kept.store.write_bytes(ORPHAN, b"no post's")
    found = [audit(kept.store) for _ in range(60)]
    assert {len(one.folders) for one in found} == {64}
    assert {path for one in found for path in one.missing} == {kept.blobs[2]}
    assert {path for one in found for path in one.orphans} == {ORPHAN}
    assert all(one.named <= 4 for one in found)
    assert sum(one.named for one in found) < 2 * 60
    assert "(64 of 256 folders)" in judged(no_orphan_blobs, kept.store)[1]
