"""The board as its visitors see it: answers over HTTP, media, pages, and the command line."""

from __future__ import annotations

import hashlib
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from demo.board import Board, start
from demo.collection import REFUSALS, Entry
from demo.fault_injection import KINDS
from tests.board_fixture import RunningBoard, served
from tests.demo.tiny_posts import tiny_collection

ROOT = Path(__file__).parents[2]
GetJson = Callable[[str], Any]


def fetch(url: str, method: str = "GET", **headers: str) -> tuple[int, Message, bytes]:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def of_kind(board: RunningBoard, name: str) -> Entry:
    return next(entry for entry in board.collection if entry.refusal == name)


def media_url(board: RunningBoard, entry: Entry) -> str:
    place = f"{entry.md5[:2]}/{entry.md5[2:4]}"
    return f"{board.url}/media/original/{place}/{entry.md5}.{entry.ext}"


def test_health_reports_that_the_board_is_ready(board: RunningBoard, get_json: GetJson) -> None:
    total = len(board.collection)
    assert get_json("/health") == {"drawn": total, "total": total, "ready": True}


def test_every_kind_to_refuse_is_on_the_board(board: RunningBoard) -> None:
    there = {entry.refusal for entry in board.collection}
    assert there == {None} | {refusal.name for refusal in REFUSALS}


@pytest.mark.slow
def test_every_url_of_a_danbooru_page_resolves(board: RunningBoard, get_json: GetJson) -> None:
    for record in get_json("/danbooru/posts.json?limit=200&tags=status:any"):
        if "file_url" not in record:
            assert record["is_banned"]
            continue
        status, headers, body = fetch(record["file_url"])
        assert status == 200
        assert len(body) == record["file_size"] == int(headers["Content-Length"])
        for variant in record["media_asset"]["variants"][:-1]:
            status, headers, body = fetch(variant["url"])
            assert status == 200
            if variant["file_ext"] == "webm":
                assert headers["Content-Type"] == "video/webm"
                continue
            with Image.open(io.BytesIO(body)) as picture:
                assert picture.size == (variant["width"], variant["height"])
            assert headers["Content-Type"] in ("image/jpeg", "image/webp")


@pytest.mark.parametrize(
    "path",
    ["/moebooru/post.json?limit=100&tags=deleted:all", "/moebooru/post.json?limit=3&tags=ext:png"],
)
def test_every_url_of_a_moebooru_page_resolves(get_json: GetJson, path: str) -> None:
    records = get_json(path)
    assert records
    for record in records:
        assert fetch(record["preview_url"])[0] == 200
        if record["status"] == "deleted":
            continue
        assert len(fetch(record["file_url"])[2]) == record["file_size"]
        assert fetch(record["sample_url"])[0] == 200
        if record["jpeg_file_size"]:
            assert len(fetch(record["jpeg_url"])[2]) == record["jpeg_file_size"]


@pytest.mark.parametrize("style", ["gelbooru", "gelbooru_com"])
def test_every_url_of_a_gelbooru_page_resolves(get_json: GetJson, style: str) -> None:
    query = "page=dapi&s=post&q=index&json=1&limit=100&api_key=key&user_id=1"
    answer = get_json(f"/{style}/index.php?{query}")
    records = answer["post"] if style == "gelbooru_com" else answer
    assert len(records) > 50
    for record in records:
        assert fetch(record["file_url"], "HEAD")[0] == 200
        assert fetch(record["preview_url"])[0] == 200
        if record["sample_url"]:
            assert fetch(record["sample_url"])[0] == 200


def test_the_dialects_serve_the_same_bytes(board: RunningBoard, get_json: GetJson) -> None:
    entry = next(entry for entry in board.collection if entry.refusal is None)
    tags = f"tags=id:{entry.post_id}"
    dapi = f"index.php?page=dapi&s=post&q=index&json=1&api_key=k&user_id=1&{tags}"
    urls = [
        get_json(f"/danbooru/posts.json?{tags}")[0]["file_url"],
        get_json(f"/danbooru/posts/{entry.post_id}.json")["file_url"],
        get_json(f"/moebooru/post.json?{tags}")[0]["file_url"],
        get_json(f"/gelbooru/{dapi}")[0]["file_url"],
        get_json(f"/gelbooru_com/{dapi}")["post"][0]["file_url"],
    ]
    for url in urls:
        assert hashlib.md5(fetch(url)[2]).hexdigest() == entry.md5


def test_head_and_etag_save_a_download(board: RunningBoard) -> None:
    url = media_url(board, of_kind(board, "no_face"))
    status, headers, body = fetch(url)
    assert status == 200
    head_status, head_headers, nothing = fetch(url, "HEAD")
    assert (head_status, nothing) == (200, b"")
    assert head_headers["Content-Length"] == str(len(body))
    assert fetch(url, **{"If-None-Match": headers["ETag"]})[0] == 304


def test_mislabelled_files_have_the_type_of_their_name(board: RunningBoard) -> None:
    _, headers, body = fetch(media_url(board, of_kind(board, "png_named_jpg")))
    assert headers["Content-Type"] == "image/jpeg"
    assert body.startswith(b"\x89PNG")
    _, headers, body = fetch(media_url(board, of_kind(board, "html_named_png")))
    assert headers["Content-Type"] == "image/png"
    assert body.startswith(b"<!DOCTYPE html>")


def test_spoiled_files_are_spoiled_as_their_kind_says(board: RunningBoard) -> None:
    for kind in ("truncated_jpg", "truncated_png"):
        with (
            Image.open(io.BytesIO(board.collection.read(of_kind(board, kind)))) as picture,
            pytest.raises((OSError, SyntaxError)),
        ):
            picture.load()
    assert board.collection.read(of_kind(board, "empty")) == b""
    wrong = of_kind(board, "wrong_md5")
    assert hashlib.md5(fetch(media_url(board, wrong))[2]).hexdigest() != wrong.md5


def test_duplicates_copy_an_ordinary_post(board: RunningBoard) -> None:
    exact = of_kind(board, "exact_duplicate")
    twins = [entry for entry in board.collection if entry.md5 == exact.md5]
    assert len(twins) == 2
    reencoded = of_kind(board, "reencoded_duplicate")
    model_seed = reencoded.body.split("-")[1]
    (model,) = [
        entry
        for entry in board.collection
        if entry.refusal is None and entry.body.split("-")[1] == model_seed
    ]
    assert model.md5 != reencoded.md5
    assert (model.width, model.height) == (reencoded.width, reencoded.height)


def test_a_banned_posts_file_is_out_of_reach(board: RunningBoard) -> None:
    assert fetch(media_url(board, of_kind(board, "banned")))[0] == 404


def test_gelbooru_com_requires_a_key(board: RunningBoard) -> None:
    url = f"{board.url}/gelbooru_com/index.php?page=dapi&s=post&q=index&json=1"
    assert fetch(url)[0] == 401
    assert fetch(f"{url}&api_key=key&user_id=7")[0] == 200


def test_the_deleted_feed_names_deleted_posts_only(board: RunningBoard) -> None:
    url = f"{board.url}/gelbooru/index.php?page=dapi&s=post&q=index&deleted=show"
    feed = ElementTree.fromstring(fetch(url)[2])
    gone = {e.md5 for e in board.collection if e.refusal in ("deleted", "banned")}
    assert {post.get("md5") for post in feed} == gone


def test_errors_have_danboorus_status_and_body(board: RunningBoard) -> None:
    for path, status, error in [
        ("posts.json?tags=a+b+c", 422, "PostQuery::TagLimitError"),
        ("posts.json?page=1001", 410, "PaginationExtension::PaginationError"),
        ("posts/1.json", 404, "ActiveRecord::RecordNotFound"),
    ]:
        answered, _, body = fetch(f"{board.url}/danbooru/{path}")
        assert answered == status
        assert json.loads(body)["success"] is False
        assert json.loads(body)["error"] == error


def test_tags_are_counted_by_kind(board: RunningBoard, get_json: GetJson) -> None:
    (tag,) = get_json("/danbooru/tags.json?search%5Bname%5D=original")
    assert tag["category"] == 3
    posts = [e for e in board.collection if "original" in e.tags["copyright"]]
    assert tag["post_count"] == len(posts)
    assert get_json("/danbooru/counts/posts.json?tags=original+status:any") == {
        "counts": {"posts": len(posts)}
    }
    artists = get_json("/moebooru/tag.json?type=1&limit=0")
    assert {artist["name"].rstrip("0123456789") for artist in artists} == {"omokage_painter_"}


def test_people_see_thumbnails_and_a_page_per_post(board: RunningBoard) -> None:
    status, headers, body = fetch(board.url)
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    newest = board.collection.entries[-1]
    assert f'href="/posts/{newest.post_id}"'.encode() in body
    assert newest.md5.encode() in fetch(f"{board.url}/posts/{newest.post_id}")[2]
    assert newest.md5.encode() in fetch(f"{board.url}/danbooru/posts/{newest.post_id}")[2]
    searched = fetch(f"{board.url}/?tags=%3Cscript%3E")[2]
    assert b"<script>" not in searched


def test_robots_txt_closes_the_api_paths_as_danbooru_does(board: RunningBoard) -> None:
    assert b"Disallow: /*.json" in fetch(f"{board.url}/robots.txt")[2]


@pytest.mark.parametrize("path", ["/media/original/../../x", "/media/original/ab/cd/none.jpg"])
def test_paths_that_name_no_picture_are_not_found(board: RunningBoard, path: str) -> None:
    assert fetch(board.url + path)[0] == 404


def test_a_board_edits_its_posts_on_request_and_the_same_ones_for_a_seed() -> None:
    collection = tiny_collection(400, odd=False)
    plain, *edited = boards = [Board(), *(Board(edit_rate=0.25, seed=7) for _ in range(2))]
    for board in boards:
        board.open(collection)
        with served(start(board, "127.0.0.1", 0)) as url:
            status, _, body = fetch(f"{url}/edits", "POST")
            if board is plain:
                assert (status, plain.edits) == (404, 0)
            else:
                assert json.loads(body) == {"edits": 1, "posts": len(board.collection)}
    one, other = (board.collection.entries for board in edited)
    assert one == other
    before = {entry.post_id: entry for entry in collection}
    kinds = Counter(
        "tags" if entry.tags != before[entry.post_id].tags else
        next((name for name in ("rating", "status", "banned")
              if getattr(entry, name) != getattr(before[entry.post_id], name)), "same")
        for entry in one
    ) + Counter(removed=len(collection) - len(one))  # fmt: skip
    assert kinds.keys() == {"tags", "rating", "status", "banned", "removed", "same"}
    assert 60 <= kinds.total() - kinds["same"] <= 140
    edited[0].edit()
    assert edited[0].collection.entries != one


def run_board(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo.board", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_taken_port_is_named_with_the_option_that_changes_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run_board("--folder", str(tmp_path), "--port", str(port), "--count", "2")
    assert ended.returncode == 2
    assert ended.stderr == (
        f"board: port {port} is taken; give another with --port (0: any free one)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--host 0.0.0.0", "--host 0.0.0.0 is not a loopback address; the board serves only them"),
        ("--pictures none", "none is not there; --pictures wants a folder or a zip"),
        ("--faults rest=0.1", '--faults: "rest" is no kind of fault; did you mean "reset"?'),
    ],
)
def test_wrong_options_are_refused_by_name(tmp_path: Path, arguments: str, message: str) -> None:
    ended = run_board("--folder", str(tmp_path), "--port", "0", *arguments.split())
    assert ended.returncode == 2
    assert ended.stderr == f"board: {message}\n"


def test_the_help_names_every_kind_of_fault() -> None:
    help_text = run_board("--help").stdout
    for kind, meaning in KINDS.items():
        assert re.search(rf"^  {kind} +{re.escape(meaning)}$", help_text, re.MULTILINE), kind


def test_the_board_answers_while_it_draws_and_ends_on_a_signal(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "demo.board", "--folder", str(tmp_path), "--port", str(port)]
    # More than can be drawn before it is stopped; by one process, so that nothing is left over.
    running = subprocess.Popen(
        [*command, "--count", "5000", "--workers", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        health = wait_for_drawing(url)
        assert health["ready"] is False
        assert health["total"] > 4000
        status, headers, _ = fetch(f"{url}/danbooru/posts.json")
        assert status == 503
        assert int(headers["Retry-After"]) > 0
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=600)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 0
    assert out == ""
    assert "Traceback" not in err


def wait_for_drawing(url: str) -> dict[str, Any]:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        try:
            health: dict[str, Any] = json.loads(fetch(f"{url}/health")[2])
        except urllib.error.URLError:
            health = {"drawn": 0}
        if health["drawn"]:
            return health
        time.sleep(0.1)
    raise AssertionError("the board drew nothing within 600 s")
