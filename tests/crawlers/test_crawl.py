"""Whole crawls of a running demo board, as the child processes that they are."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from crawlers.export import export_posts
from crawlers.ledger import Ledger
from dataset.errors import EmptyStageError
from dataset.policy import EXCLUDED_TAGS
from dataset.schemas import POSTS, read_table
from dataset.store import Store, blob_path
from demo.collection import Entry
from tests.board_fixture import RunningBoard, serve_collection
from tests.crawlers.conftest import REPOSITORY, CrawlOf, reasons_of, states_of
from tests.crawlers.little_board import LittleBoard, on, serving
from tests.waiting import wait_for

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CrawlOfUrl = Callable[[str], CrawlOf]

# The reason that each kind of the board's refusals must get; the others are downloaded.
REASONS: dict[str | None, str | None] = {
    "rating_sensitive": "rating",
    "rating_questionable": "rating",
    "rating_explicit": "rating",
    "deleted": "deleted",
    "banned": "banned",
    "pending": "pending",
    "flagged": "flagged",
    "comic": "tag_comic",
    "4koma": "tag_4koma",
    "sketch": "tag_sketch",
    "lineart": "tag_lineart",
    "greyscale": "tag_greyscale",
    "photo": "tag_photo_(medium)",
    "ai_generated": "tag_ai-generated",
    "animated_gif": "tag_animated",
    "animated_webp": "tag_animated",
    "video_mp4": "tag_animated",
    "video_webm": "tag_animated",
    "ugoira": "tag_animated",
    "untagged_gif": "animated",
    "truncated_jpg": "corrupt",
    "truncated_png": "corrupt",
    "empty": "empty",
    "png_named_jpg": "mislabelled",
    "html_named_png": "not_a_picture",
    "wrong_md5": "wrong_md5",
    "no_face": None,
    "exact_duplicate": None,
    "reencoded_duplicate": None,
    None: None,
}


def wanted_reason(entry: Entry) -> str | None:
    """The reason of the post's kind; where several tags exclude a post, the first one's name."""
    reason = REASONS[entry.refusal]
    if reason is not None and reason.startswith("tag_"):
        return f"tag_{min(EXCLUDED_TAGS.intersection(entry.all_tags))}"
    return reason


def test_just_the_right_posts_are_kept_and_a_second_crawl_fetches_nothing(
    board: RunningBoard, crawl_of: CrawlOfUrl
) -> None:
    crawl = crawl_of(board.url)
    made = crawl("--tags", "status:any")
    found = reasons_of(crawl.home)
    wanted = {entry.post_id: wanted_reason(entry) for entry in board.collection}
    assert found == wanted
    assert set(REASONS) == {entry.refusal for entry in board.collection}
    refused = Counter(reason for reason in wanted.values() if reason)
    assert made["refused"] == dict(sorted(refused.items()))
    assert made["kept"] == sum(1 for reason in wanted.values() if reason is None)
    assert made["seen"] == len(wanted)

    store = Store(crawl.home)
    made_table = export_posts(store, ["demo"])
    table = read_table(store, made_table.path, declared=POSTS).to_pylist()
    assert [(row["post_id"], row["drop_reason"]) for row in table] == sorted(wanted.items())
    stored = {blob_path(row["sha256"], row["ext"]) for row in table if row["sha256"]}
    assert stored == set(store.files("blobs"))
    assert all((row["sha256"] is None) is (row["drop_reason"] is not None) for row in table)
    assert (made_table.kept, made_table.refused) == (made["kept"], made["refused"])

    second = crawl("--tags", "status:any")
    assert (second["seen"], second["media_requests"], second["bytes"]) == (0, 0, 0)
    assert second["api_requests"] == 1
    assert export_posts(store, ["demo"]).digest == made_table.digest


def test_sigint_stops_cleanly_and_the_next_crawl_resumes(
    board: RunningBoard, crawl_of: CrawlOfUrl
) -> None:
    @web.middleware
    async def slowly(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/media"):
            await asyncio.sleep(0.3)
        return await handler(request)

    with serve_collection(board.collection, middlewares=[slowly]) as slow:
        crawl = crawl_of(slow.url)
        child = crawl.start(cold=True)
        wait_for(lambda: (crawl.home / "ledger.sqlite").exists())
        wait_for(lambda: states_of(crawl.home)["kept"] >= 2)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=600)
    assert child.returncode == 130
    assert "stopped; run the same command again" in err
    assert "Traceback" not in err
    first = json.loads(out)
    second = crawl_of(board.url)()
    assert first["kept"] + second["kept"] == states_of(crawl.home)["kept"]
    assert states_of(crawl.home)["pending"] == 0


def test_a_limit_counts_new_posts_and_the_next_crawl_resumes(
    board: RunningBoard, crawl_of: CrawlOfUrl
) -> None:
    crawl = crawl_of(board.url)
    newest = sorted((e.post_id for e in board.collection if e.status != "deleted"), reverse=True)
    assert crawl("--limit", "25")["seen"] == 25
    assert sorted(reasons_of(crawl.home), reverse=True) == newest[:25]
    assert crawl("--limit", "10")["seen"] == 10
    assert sorted(reasons_of(crawl.home), reverse=True) == newest[:35]


def test_a_board_out_of_reach_is_named(crawl_of: CrawlOfUrl) -> None:
    crawl = crawl_of("http://127.0.0.1:9")
    code, err = crawl.failing(OMOKAGE_PROGRESS="off", cold=True)
    assert code == 6
    assert err.startswith(
        "crawl: demo cannot be reached at http://127.0.0.1:9/danbooru/counts/posts.json"
    )
    assert len(err.splitlines()) == 1


def test_a_403_from_the_media_host_stops_the_site_at_once(crawl_of: CrawlOfUrl) -> None:
    with serving(LittleBoard(count=30, answer=on("/media", status=403))) as strict:
        crawl = crawl_of(strict.url)
        code, err = crawl.failing()
    assert code == 6
    assert err.startswith("crawl: demo answers 403 to http://127.0.0.1")
    assert "a block is not worked around" in err
    assert len(err.splitlines()) == 1
    assert sum(path.startswith("/media") for path in strict.paths) <= 16  # what was on its way
    assert states_of(crawl.home)["kept"] == 0
    assert states_of(crawl.home)["pending"] > 0


def test_a_real_board_is_not_requested_without_a_contact(crawl_of: CrawlOfUrl) -> None:
    crawl = crawl_of("http://127.0.0.1:9")
    code, err = crawl.failing(site="konachan")
    assert code == 6
    assert err.splitlines() == [
        "crawl: konachan is a real board, and its keepers must be able to reach you: set "
        "OMOKAGE_CONTACT to an e-mail address or a page of yours"
    ]
    assert not crawl.home.exists()


def encoded(value: dict[str, Any]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


@pytest.mark.parametrize("reachable", [True, False])
def test_under_dagster_the_summary_or_the_error_is_reported(
    board: RunningBoard, crawl_of: CrawlOfUrl, tmp_path: Path, reachable: bool
) -> None:
    crawl = crawl_of(board.url if reachable else "http://127.0.0.1:9")
    context, messages = tmp_path / "context.json", tmp_path / "messages.jsonl"
    context.write_text(json.dumps({"asset_keys": ["crawl/demo"], "run_id": "r", "extras": {}}))
    messages.touch()
    child = crawl.start(
        "--limit",
        "3",
        "--die-with-parent",
        cold=True,  # its parent is to be this process
        DAGSTER_PIPES_CONTEXT=encoded({"path": str(context)}),
        DAGSTER_PIPES_MESSAGES=encoded({"path": str(messages)}),
    )
    _out, err = child.communicate(timeout=600)
    lines = [json.loads(line) for line in messages.read_text().splitlines()]
    custom = [m["params"]["payload"] for m in lines if m["method"] == "report_custom_message"]
    if reachable:
        assert child.returncode == 0, err
        assert custom[-1]["summary"]["seen"] == 3
    else:
        assert child.returncode == 6
        assert "cannot be reached" in custom[-1]["error"]


def test_scrapy_crawl_works_alone(board: RunningBoard, crawl_of: CrawlOfUrl) -> None:
    crawl = crawl_of(board.url)
    done = subprocess.run(
        f"{sys.executable} -m scrapy crawl danbooru -a site=demo -a limit=5 "
        f"-a home={crawl.home}".split(),
        cwd=REPOSITORY,
        env={**os.environ, "OMOKAGE_BOARD_URL": board.url, "OMOKAGE_PROGRESS": "off"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sum(states_of(crawl.home).values()) == 5


def test_a_lost_or_shortened_blob_is_fetched_again(
    board: RunningBoard, crawl_of: CrawlOfUrl
) -> None:
    crawl = crawl_of(board.url)
    crawl()
    store = Store(crawl.home)
    before = export_posts(store, ["demo"])
    blobs = store.files("blobs")
    store.remove(blobs[0])
    store.local(blobs[1]).write_bytes(b"cut")

    found = export_posts(store, ["demo"])
    assert found.requeued >= 2
    assert found.refused["not_fetched"] == found.requeued
    again = crawl()
    assert (again["media_requests"], again["kept"]) == (2, found.requeued)
    assert export_posts(store, ["demo"]).digest == before.digest


def test_an_empty_ledger_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(EmptyStageError, match="crawl a site first"):
        export_posts(store, ["demo"])
    Ledger.of(store).close()
    with pytest.raises(EmptyStageError, match="the ledger has no post of demo: crawl it first"):
        export_posts(store, ["demo"])


def test_a_crawl_whose_parent_has_gone_before_it_could_begin_ends_soon(tmp_path: Path) -> None:
    orphan = subprocess.Popen(
        # 1 is not its parent: as if that had died
        f"{sys.executable} -m crawlers.run --site demo --home {tmp_path} "
        "--die-with-parent 1".split(),
        env={**os.environ, "OMOKAGE_BOARD_URL": "http://127.0.0.1:9"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    assert orphan.wait(600) in (130, -signal.SIGTERM)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.lock("demo", timeout_s=0.0)
