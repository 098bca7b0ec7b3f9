"""Credentials never come to light: not in words, logs, summaries or files."""

import asyncio
import logging
from pathlib import Path

import pytest
from aiohttp import web

from crawlers.extensions import SecretsFilter
from crawlers.sites import Secrets, load_sites
from dataset.errors import bare
from tests.crawlers.little_board import Crawled, Crawler, LittleBoard, serving

LOGIN, KEY = "takeda the first", "k3y/with+signs=and%more"
REGISTRY = """
[demo]
page_size = 2
credentials = { login = "LITTLE_LOGIN", api_key = "LITTLE_KEY" }
"""


def crawler(folder: Path, url: str) -> Crawler:
    variables = {"LITTLE_LOGIN": LOGIN, "LITTLE_KEY": KEY, "WATCH_FIRST_WAIT_S": "0.05"}
    return Crawler(folder, url=url, registry=REGISTRY, variables=variables)


def assert_nothing_came_to_light(done: Crawled, home: Path) -> None:
    files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert any(b"SQLite" in content for content in files)
    said = [done.out.encode(), done.err.encode(), *files]
    for secret in (b"takeda", b"k3y"):
        assert not any(secret in text for text in said), done.err


def echo(request: web.Request, status: int) -> web.StreamResponse:
    return web.json_response({"message": f"{KEY} of {LOGIN}, {request.url}"}, status=status)


def at_posts(answer: object) -> object:
    def only_there(request: web.Request) -> web.StreamResponse | None:
        return answer(request) if request.path.endswith("/posts.json") else None  # type: ignore[operator]

    return only_there


def redirect_away(request: web.Request) -> web.StreamResponse:
    target = f"http://127.0.0.2:9/x?{request.query_string}"
    return web.Response(status=302, headers={"Location": target})


def redirect_in_circles(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": str(request.url)})


def long_wait(_request: web.Request) -> web.StreamResponse:
    return web.Response(status=429, headers={"Retry-After": "900"})


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: echo(request, 403),
        lambda request: echo(request, 422),
        lambda request: web.Response(text=f"<html>{request.url}</html>"),
        lambda request: web.json_response({"odd": str(request.url)}),
        lambda request: web.json_response([{"id": 1, "md5": KEY}]),
        redirect_away,
        redirect_in_circles,
        long_wait,
        lambda _request: None,
    ],
    ids=["403", "422", "html", "odd", "fault", "away", "circles", "wait", "fine"],
)
def test_no_end_of_a_crawl_tells_a_credential(tmp_path: Path, answer: object) -> None:
    seen: list[str] = []

    def note(request: web.Request) -> web.StreamResponse | None:
        seen.append(request.query.get("api_key", ""))
        return at_posts(answer)(request)  # type: ignore[operator, no-any-return]

    with serving(LittleBoard(answer=note)) as board:
        crawl = crawler(tmp_path, board.url)
        done = crawl.run("--verbose")  # the most detailed log
    assert KEY in seen  # they were really sent
    assert_nothing_came_to_light(done, crawl.home)


def test_a_timeout_and_an_absent_board_tell_no_credential(tmp_path: Path) -> None:
    board = LittleBoard()
    plain = board.handle

    async def slowly(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("counts/posts.json"):
            await asyncio.sleep(2)
        return await plain(request)

    board.handle = slowly  # type: ignore[method-assign]
    with serving(board):
        crawl = crawler(tmp_path, board.url)
        done = crawl.scrapy(DOWNLOAD_TIMEOUT=0.2, RETRY_TIMES=0, LOG_LEVEL="DEBUG")
    assert "took longer than" in done.err
    assert_nothing_came_to_light(done, crawl.home)
    crawl.url = "http://127.0.0.1:9"
    done = crawl.run("--verbose")
    assert "cannot be reached" in done.err
    assert_nothing_came_to_light(done, crawl.home)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/x?api_key=1#y", "https://a.example/x"),
        ("https://me:pw@a.example:444/x", "https://a.example:444/x"),
        ("http://[::1", "an address that cannot be read"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert bare(url) == shown


def test_short_values_are_hidden_behind_their_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GELBOORU_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("GELBOORU_USER_ID", "12")
    secrets = Secrets(load_sites()["gelbooru_com"])
    assert secrets.hidden("post 12 of ?user_id=12&api_key=xyz: 0123456789abcdef") == (
        "post 12 of ?user_id=***&api_key=***: ***"
    )
    assert Secrets(load_sites()["konachan"]).hidden("api_key=1") == "api_key=1"


def test_the_traceback_of_a_log_record_is_cleaned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GELBOORU_API_KEY", "0123456789abcdef")
    kept = SecretsFilter(Secrets(load_sites()["gelbooru_com"]))
    try:
        raise RuntimeError("at ?api_key=0123456789abcdef")
    except RuntimeError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "bad %s", ("0123456789abcdef",), info)
    assert kept.filter(record)
    text = logging.Formatter().format(record)
    assert "0123456789abcdef" not in text
    assert "bad ***" in text
    assert "RuntimeError: at ?api_key=***" in text
