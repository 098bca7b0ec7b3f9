"""Whole crawls of a running demo board, as the child processes that they are."""

import asyncio
import base64
import dataclasses
import datetime as dt
import hashlib
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

from crawlers.cursor import Cursor, PageSizes
from crawlers.export import export_posts
from crawlers.ledger import Ledger
from crawlers.post import OLD_QUARANTINE, QUARANTINE, BadRecord, Quarantine
from crawlers.sites import load_sites
from dataset.errors import EmptyStageError
from dataset.media import check_media
from dataset.policy import EXCLUDED_TAGS
from dataset.schemas import POSTS, read_table
from dataset.store import Store, blob_path
from demo.collection import Entry
from tests.board_fixture import RunningBoard, serve_collection
from tests.crawlers.conftest import (
    ONLY_NEW,
    QUICK,
    REPOSITORY,
    CrawlOf,
    MakePost,
    reasons_of,
    states_of,
)
from tests.crawlers.little_board import LittleBoard, on, picture, serving
from tests.crawlers.tiny import tiny_collection
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
    assert second["api_requests"] == 1 + 4  # what is new, and the pages that are read again
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
@pytest.mark.ci
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
    store.state.local(blobs[1]).write_bytes(b"cut")

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
    with pytest.raises(EmptyStageError, match="the ledger has no post of demo: crawl a site first"):
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


class OddBoard(LittleBoard):
    """A board whose records or pages are not as they should be; it counts its pages by search."""

    def __init__(
        self,
        count: int,
        record: Callable[[dict[str, Any]], Any] = lambda record: record,
        page: Callable[[bytes, int], bytes] = lambda body, _limit: body,
    ) -> None:
        super().__init__(count=count, answer=self._odd)
        self.record, self.page = record, page
        self.limits: list[int] = []

    def _odd(self, request: web.Request) -> web.StreamResponse | None:
        if request.path != "/danbooru/posts.json":
            return None
        limit = int(request.query["limit"])
        self.limits.append(limit)
        rows = [self.record(row) for row in self._page(request.query)]
        body = json.dumps(rows, ensure_ascii=False).encode()
        return web.Response(body=self.page(body, limit), content_type="application/json")


def changed(row: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A record with other values; `...` takes a field out."""
    return {key: value for key, value in (row | changes).items() if value is not ...}


def only(number: int, **changes: Any) -> Callable[[dict[str, Any]], Any]:
    """Changes one record."""
    return lambda row: changed(row, changes) if row["id"] == number else row


def quick(crawl: CrawlOf) -> CrawlOf:
    crawl.program = QUICK
    return crawl


def quarantine_of(home: Path) -> list[dict[str, Any]]:
    path = home / QUARANTINE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cursor_of(home: Path, query: str = "") -> Cursor:
    with Ledger.of(Store(home)) as ledger:
        return ledger.cursor("demo", query)


def test_odd_records_are_quarantined_and_the_rest_of_their_page_goes_in(
    crawl_of: CrawlOfUrl,
) -> None:
    odd: dict[int, dict[str, Any]] = {
        29: {"id": None},
        28: {"id": ...},
        27: {"md5": 5},
        26: {"tag_string": ["1girl", None]},
        25: {"is_deleted": "?"},
        24: {"file_url": "ftp://x/y"},
        3: {"rating": []},
    }
    with serving(OddBoard(30, lambda row: changed(row, odd.get(row["id"], {})))) as board:
        crawl = crawl_of(board.url)
        made = crawl()
        again = crawl()
    assert (made["kept"], made["quarantined"], made["refused"]) == (23, 7, {})
    assert set(reasons_of(crawl.home)) == set(range(1, 31)) - set(odd)
    assert cursor_of(crawl.home) == Cursor(1, 30, bottomed=True)
    lines = quarantine_of(crawl.home)  # each once
    assert [(line["board"], line["post_id"], line["reason"]) for line in lines] == [
        ("demo", None, "the id of a post is None, a number wanted"),
        ("demo", None, "the id of a post is None, a number wanted"),
        ("demo", 27, "md5 is 5, text wanted"),
        ("demo", 26, "tag_string is ['1girl', None], text wanted"),
        ("demo", 25, "is_deleted is '?', true or false wanted"),
        ("demo", 24, "file_url is 'ftp://x/y', an address wanted"),
        ("demo", 3, "rating is [], text wanted"),
    ]
    assert all(json.loads(line["raw"])["image_width"] == 64 for line in lines)
    assert (again["seen"], again["api_requests"], again["quarantined"]) == (0, 1 + 2, 0)


@pytest.mark.parametrize("number", [30, 1])
@pytest.mark.parametrize("options", [("--tags", "solo", *ONLY_NEW), ()])
def test_an_odd_record_at_either_end_stops_nothing_and_is_taken_once_it_is_mended(
    crawl_of: CrawlOfUrl, number: int, options: tuple[str, ...]
) -> None:
    with serving(OddBoard(30, only(number, image_width="wide"))) as board:
        crawl = quick(crawl_of(board.url))
        assert crawl()["kept"] == 29
        board.record = lambda row: row
        assert crawl(*ONLY_NEW)["seen"] == 0  # its search has passed it
        made = crawl(*options)
    assert (made["kept"], made["media_requests"]) == (1, 1)
    assert set(reasons_of(crawl.home)) == set(range(1, 31))


def test_a_field_that_decides_nothing_and_a_relative_address_cost_no_picture(
    crawl_of: CrawlOfUrl,
) -> None:
    changes: dict[int, dict[str, Any]] = {
        1: {"source": 12345},
        2: {"source": ["a", "b"], "score": 3.0},
        3: {"created_at": {"json_class": "Time", "s": 1}, "source": "\tb"},
        4: {"file_url": "/media/4.png"},
        5: {"file_url": "//evil.example/5.png"},
    }
    with serving(OddBoard(6, lambda row: row | changes.get(row["id"], {}))) as board:
        crawl = crawl_of(board.url)
        made = crawl()
    assert (made["kept"], made["refused"], made["quarantined"]) == (5, {"host": 1}, 0)
    assert reasons_of(crawl.home)[5] == "host"


@pytest.mark.parametrize("number", [50, 37, 1])
def test_a_post_that_breaks_its_page_is_found_by_smaller_pages_and_passed(
    crawl_of: CrawlOfUrl, number: int
) -> None:
    with serving(OddBoard(50, only(number, source='a "b'), spoil)) as board:
        crawl = quick(crawl_of(board.url))
        made = crawl()
        requested = list(board.limits)
        again = crawl(*ONLY_NEW)
    assert (made["kept"], made["quarantined"]) == (49, 1)
    assert cursor_of(crawl.home) == Cursor(1, 50, bottomed=True)
    (line,) = quarantine_of(crawl.home)
    assert line["post_id"] == number
    assert line["reason"].startswith("demo: the answer is not JSON")
    assert 'a "b' in line["raw"]
    assert 1 in requested
    assert len(requested) <= 22  # without the broken post: 7
    assert (again["seen"], again["api_requests"]) == (0, 1)


def spoil(body: bytes, _limit: int) -> bytes:
    """As a board that forgets to escape a quotation mark."""
    return body.replace(rb"a \"b", b'a "b')


def test_a_page_that_is_unreadable_at_one_size_only_costs_no_post(crawl_of: CrawlOfUrl) -> None:
    with serving(OddBoard(50, page=lambda body, limit: body[: 90 if limit == 20 else None])) as odd:
        crawl = quick(crawl_of(odd.url))
        made = crawl()
    assert (made["kept"], made["quarantined"]) == (50, 0)


def test_pages_that_are_cut_off_for_a_while_cost_no_post(crawl_of: CrawlOfUrl) -> None:
    left = Counter(cut=9)

    def cut(body: bytes, _limit: int) -> bytes:
        left["cut"] -= 1
        return body[: -3 - left["cut"]] if left["cut"] >= 0 else body

    with serving(OddBoard(50, page=cut)) as board:
        crawl = quick(crawl_of(board.url))
        made = crawl()
    assert (made["kept"], made["quarantined"]) == (50, 0)


def test_a_broken_post_without_an_id_ends_the_crawl_and_loses_nothing(
    crawl_of: CrawlOfUrl,
) -> None:
    def hide(body: bytes, limit: int) -> bytes:
        return b"[" if b'a \\"b' in body else body

    with serving(OddBoard(50, only(44, source='a "b'), hide)) as board:
        crawl = quick(crawl_of(board.url))
        code, err = crawl.failing()
        assert code == 6
        assert "the answer is not JSON" in err
        assert len(board.limits) <= 20
        assert cursor_of(crawl.home).low == 45
        board.record = lambda row: row
        crawl()
    assert set(reasons_of(crawl.home)) == set(range(1, 51))


def test_an_empty_page_while_a_broken_post_is_looked_for_is_not_the_end(
    crawl_of: CrawlOfUrl,
) -> None:
    left = Counter(empty=1)

    def empty_once(body: bytes, limit: int) -> bytes:
        left["empty"] -= limit == 2
        return b"[]" if limit == 2 and left["empty"] == 0 else spoil(body, limit)

    with serving(OddBoard(50, only(44, source='a "b'), empty_once)) as board:
        crawl = quick(crawl_of(board.url))
        made = crawl()
    assert left["empty"] < 1
    assert (made["kept"], made["quarantined"]) == (49, 1)


def test_a_board_that_is_mute_at_one_post_is_not_taken_for_its_end(crawl_of: CrawlOfUrl) -> None:
    def mute(request: web.Request) -> web.StreamResponse | None:
        tags, limit = request.query.get("tags", ""), int(request.query.get("limit", 0))
        below = int(tags.partition("id:<")[2] or 200)
        is_mute = below - limit <= 133 < below  # as XML, too
        return web.Response(text="") if limit and is_mute else None

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        return mute(request) or await handler(request)

    with serve_collection(tiny_collection(range(101, 161)), middlewares=[middleware]) as board:
        crawl = quick(crawl_of(board.url))
        crawl.registry("[demo_gelbooru]\npage_size = 20\n")
        code, err = crawl.failing(site="demo_gelbooru")
    assert code == 6
    assert "no new post has an id: nobody knows what is below it" in err
    with Ledger.of(Store(crawl.home)) as ledger:
        assert ledger.cursor("demo_gelbooru", "") == Cursor(134, 160)


@pytest.mark.slow  # 250 requests with waits between
def test_a_board_of_broken_posts_is_left_after_a_while(crawl_of: CrawlOfUrl) -> None:
    with serving(OddBoard(60, lambda row: row | {"source": 'a "b'}, spoil)) as board:
        crawl = quick(crawl_of(board.url))
        code, err = crawl.failing()
    assert code == 6
    assert err.endswith("20 pages before it were like that\n")
    assert len(board.limits) <= 21 * 13


def test_a_board_whose_records_have_all_changed_stops_before_they_are_passed(
    crawl_of: CrawlOfUrl,
) -> None:
    with serving(OddBoard(90, lambda row: row | {"tag_string": ["1girl"]})) as board:
        crawl = quick(crawl_of(board.url))
        code, err = crawl.failing()
    assert code == 6
    assert "records that cannot be used, the last 60 without exception: tag_string is ['1g" in err
    assert cursor_of(crawl.home) == Cursor(51, 90)


def test_a_page_full_of_records_without_ids_is_not_taken_for_the_end(crawl_of: CrawlOfUrl) -> None:
    with serving(
        OddBoard(50, lambda row: row | {"id": row["id"] if row["id"] > 30 else None})
    ) as b:
        crawl = quick(crawl_of(b.url))
        code, err = crawl.failing()
    assert code == 6
    assert "a full page on which no new post has an id: nobody knows what is below it" in err
    assert cursor_of(crawl.home) == Cursor(31, 50)


def test_a_waiting_post_whose_record_is_bad_now_waits_on(crawl_of: CrawlOfUrl) -> None:
    with serving(OddBoard(30, lambda row: row)) as board:
        crawl = quick(crawl_of(board.url))
        plain = board.answer
        board.answer = lambda request: (
            web.Response(status=503) if request.path == "/media/9.png" else plain(request)
        )
        assert crawl()["put_off"] == 1
        board.answer, board.record = plain, only(9, md5="?")
        made = crawl()
        assert (made["put_off"], made["quarantined"], made["kept"]) == (1, 1, 0)
        board.record = lambda row: row
        assert crawl()["kept"] == 1


@pytest.mark.parametrize(
    "body",
    [
        '"Missing authentication. Go to the options page"',
        "Missing authentication. Go to the options page",
        '{"success": false, "reason": "Missing authentication. Go to the options page"}',
        "<error>Missing authentication. Go to the options page</error>",
        '<?xml version="1.0"?><response success="false" reason="Missing authentication. Go to the '
        'options page"/>',
        "<!DOCTYPE html><title>Missing authentication. Go to the options page</title>captcha",
    ],
)
def test_a_refusal_that_comes_as_200_stops_at_once_and_says_what_to_set(
    crawl_of: CrawlOfUrl, body: str
) -> None:
    with serving(LittleBoard(answer=on("/danbooru/posts.json", text=body))) as board:
        crawl = crawl_of(board.url)
        crawl.registry('credentials = { api_key = "LITTLE_KEY" }\n')
        code, err = crawl.failing()
    assert code == 6
    assert board.paths.count("/danbooru/posts.json") == 1
    assert 'demo answers 200 and says "Missing authentication. Go to the options page" to' in err
    assert "set LITTLE_KEY. The crawl of this site stops: a block is not worked around" in err
    assert len(err.splitlines()) == 1


def test_a_count_that_is_a_refusal_stops_before_any_page(crawl_of: CrawlOfUrl) -> None:
    refused = on("/danbooru", text='{"success": false, "message": "No key"}')
    with serving(LittleBoard(answer=refused)) as board:
        code, err = crawl_of(board.url).failing()
    assert code == 6
    assert 'demo answers 200 and says "No key" to' in err
    assert board.paths == ["/robots.txt", "/danbooru/counts/posts.json"]


def test_the_excluded_tags_of_a_site_hold_at_every_build(
    tmp_path: Path, make_post: MakePost
) -> None:
    store = Store(tmp_path)
    media = check_media(picture(1), md5=hashlib.md5(picture(1)).hexdigest(), ext="png")
    posts = [make_post(1, tags_general=("furry",)), make_post(2), make_post(3, board="konachan")]
    with Ledger.of(store) as ledger:
        store.write_bytes(blob_path(media.sha256, media.ext), picture(1))
        for post in posts:
            ledger.note_page(post.board, "", posts=[post], cursor=Cursor(1, 3))
            ledger.keep(post, media)
    sites = load_sites()
    assert export_posts(store, ["demo", "konachan"], registry=sites).refused == {}
    # The list of another address of the same board holds for its posts, too.
    mirror = dataclasses.replace(sites["demo"], name="mirror", excluded_tags=("furry",))
    stricter = {**sites, "mirror": mirror}
    assert export_posts(store, ["demo", "konachan"], registry=stricter).refused == {"tag_furry": 1}
    assert export_posts(store, ["demo", "konachan"], registry=sites).kept == 3


def test_a_gelbooru_that_cannot_write_a_post_as_json_is_read_as_xml(crawl_of: CrawlOfUrl) -> None:
    blank: list[str] = []

    @web.middleware
    async def php(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        body = getattr(answer, "body", b"")
        if '"id": 133,' in body.decode("latin-1") and "json" in request.query:
            blank.append(request.path_qs)
            return web.Response(text="", content_type="application/json")
        return answer

    with serve_collection(tiny_collection(range(101, 161)), middlewares=[php]) as board:
        crawl = quick(crawl_of(board.url))
        crawl.registry("[demo_gelbooru]\npage_size = 20\n")
        made = crawl(site="demo_gelbooru")
    assert len(blank) == 1
    assert (made["kept"], made["quarantined"]) == (60, 0)


def test_a_gelbooru_that_answers_nothing_where_it_has_nothing_is_crawled_to_its_end(
    crawl_of: CrawlOfUrl,
) -> None:
    @web.middleware
    async def mute(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        body = getattr(answer, "body", b"")
        is_empty = body == b"[]" or b"<post " not in body + request.path.encode()
        is_api = request.path.endswith("index.php")
        return web.Response(text="") if is_api and is_empty and b"{" not in body else answer

    with serve_collection(tiny_collection(range(101, 104)), middlewares=[mute]) as board:
        crawl = quick(crawl_of(board.url))
        crawl.registry("[demo_gelbooru]\npage_size = 4\n")
        made = crawl(site="demo_gelbooru")
        again = crawl(site="demo_gelbooru")
    assert (made["kept"], made["quarantined"]) == (3, 0)
    with Ledger.of(Store(crawl.home)) as ledger:
        assert ledger.cursor("demo_gelbooru", "").bottomed
    assert (again["seen"], again["quarantined"]) == (0, 0)


MOMENT = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)


def test_the_quarantine_has_each_record_once_cut_short_and_without_credentials(
    tmp_path: Path,
) -> None:
    def hidden(text: str) -> str:
        return text.replace("secret", "***")

    def opened(board: str = "demo") -> Quarantine:
        return Quarantine(Store(tmp_path), board, hidden)

    bad = [
        BadRecord(1, "md5 is 'secret'", "secret " * 5_000),
        BadRecord(1, "md5 is 'secret'", "other text, same reason"),
        BadRecord(None, "no id", "first"),
        BadRecord(None, "no id", "second \ud800"),
    ]
    assert opened().add(bad, moment=MOMENT) == 3
    assert opened().add(bad, moment=MOMENT) == 0
    assert opened("other").add(bad[:1], moment=MOMENT) == 1
    assert opened().add([BadRecord(1, "rating is 5", "x")], moment=MOMENT) == 1
    lines = quarantine_of(tmp_path)
    assert [line["post_id"] for line in lines] == [1, None, None, 1, 1]
    assert "secret" not in (tmp_path / QUARANTINE).read_text()
    assert max(len(line["raw"]) for line in lines) == 4_000
    with (tmp_path / QUARANTINE).open("a") as file:
        file.write('[]\n{"board": "demo", "post_')
    assert opened().add(bad, moment=MOMENT) == 0
    assert opened().add([BadRecord(9, "odd", "x")], moment=MOMENT) == 1
    assert json.loads((tmp_path / QUARANTINE).read_text().splitlines()[-1])["post_id"] == 9


def test_the_quarantine_never_grows_beyond_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlers.post.MAX_QUARANTINE_BYTES", 20_000)
    quarantine = Quarantine(Store(tmp_path), "demo", str)
    for number in range(200):
        assert quarantine.add([BadRecord(number, "odd", "x" * 900)], moment=MOMENT) == 1
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {QUARANTINE, OLD_QUARANTINE}
    assert all(size <= 20_000 for size in sizes.values())
    assert quarantine_of(tmp_path)[-1]["post_id"] == 199


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100, 200])
def test_halved_pages_end_at_the_one_post_that_spoils_theirs(size: int) -> None:
    for culprit in range(size):
        sizes, at, requested = PageSizes(200), 0, 0
        sizes.halve(size)
        while True:
            limit = sizes.take()
            requested += 1
            if limit == 200:
                raise AssertionError(f"{culprit} of {size} was not found")
            if culprit >= at + limit:
                at += limit  # readable: its posts are taken
            elif limit == 1:
                break
        assert at == culprit
        assert requested <= 10
        while sizes.are_halved:
            sizes.take()
        assert sizes.take() == 200
