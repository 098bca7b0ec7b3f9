"""Fault injection: each fault as a client sees it, and the plan that selects them."""

from __future__ import annotations

import dataclasses
import gzip
import http.client
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from PIL import Image

from demo.collection import Collection, Entry, md5_of
from demo.fault_injection import KINDS, FaultPlan, FaultPlanError, Faults, read_rates
from tests.board_fixture import serve_collection
from tests.demo.tiny_posts import tiny_collection

ROOT = Path(__file__).parents[2]
PAGES = {
    "danbooru": "/danbooru/posts.json?limit=20",
    "moebooru": "/moebooru/post.json?limit=20",
    "gelbooru": "/gelbooru/index.php?page=dapi&s=post&q=index&json=1&limit=20",
    "gelbooru_com": "/gelbooru_com/index.php?page=dapi&s=post&q=index&json=1&api_key=k&user_id=1",
    "gelbooru_xml": "/gelbooru/index.php?page=dapi&s=post&q=index&limit=20",
}


@pytest.fixture(scope="module")
def posts() -> Collection:
    return tiny_collection(40, odd=False)


def path_of(entry: Entry) -> str:
    return f"/media/original/{entry.md5[:2]}/{entry.md5[2:4]}/{entry.md5}.{entry.ext}"


@dataclasses.dataclass(frozen=True)
class Answer:
    """The response: status, headers (not compared) and body, or the error in their place."""

    status: int
    headers: dict[str, str] = dataclasses.field(compare=False)
    body: bytes
    error: str = dataclasses.field(compare=False)


def _get(url: str, paths: list[str]) -> list[Answer]:
    return [_get_one(url.removeprefix("http://"), path) for path in paths]


def _get_one(host: str, path: str) -> Answer:
    line = http.client.HTTPConnection(host, timeout=600)  # does not retry by itself
    status, headers = 0, {}
    try:
        line.request("GET", path)
        answer = line.getresponse()
        status = answer.status
        headers = {name.title(): value for name, value in answer.getheaders()}
        return Answer(status, headers, answer.read(), "")
    except (http.client.HTTPException, ConnectionError) as broken:
        return Answer(status, headers, b"", type(broken).__name__)
    finally:
        line.close()


def responses(posts: Collection, faults: Faults, *paths: str, follow: bool = False) -> list[Answer]:
    """The answers of a board with these faults to these paths, one after the other."""
    with serve_collection(posts, middlewares=[faults.middleware]) as board:
        answers = _get(board.url, list(paths))
        if follow:
            moved = [answer.headers["Location"] for answer in answers]
            answers += _get(board.url, moved)
    return answers


def only(kind: str, **more: float) -> Faults:
    return Faults(FaultPlan({kind: 1.0}, in_a_row=100, **more))  # type: ignore[arg-type]


def on_media(posts: Collection, kind: str, **more: float) -> Iterator[tuple[Entry, Answer]]:
    """Yields each post of a collection and what comes for its picture when all goes wrong."""
    faults = only(kind, **more)
    answers = responses(posts, faults, *(path_of(entry) for entry in posts))
    assert faults.injected == {kind: len(posts)}
    yield from zip(posts, answers, strict=True)


def test_throttling_says_when_to_come_back_in_both_ways(posts: Collection) -> None:
    began = time.time()
    waits = [
        (answer.status, answer.headers["Retry-After"])
        for _, answer in on_media(posts, "throttle", retry_after_s=3)
    ]
    assert {status for status, _ in waits} == {421, 429}
    seconds = {wait for _, wait in waits if wait.isdecimal()}
    assert seconds == {"0", "1", "2", "3"}
    dates = [parsedate_to_datetime(wait) for _, wait in waits if not wait.isdecimal()]
    assert len(dates) > 5
    assert all(began - 2 <= date.timestamp() <= time.time() + 4 for date in dates)


def test_an_error_is_one_of_the_four(posts: Collection) -> None:
    statuses = {answer.status for _, answer in on_media(posts, "error")}
    assert statuses == {500, 502, 503, 504}


def test_a_reset_comes_before_the_answer_or_amid_its_body(posts: Collection) -> None:
    answers = [answer for _, answer in on_media(posts, "reset")]
    assert all(answer.error for answer in answers)
    assert {answer.status for answer in answers} == {0, 200}
    assert {a.error for a in answers} <= {
        "ConnectionResetError",
        "RemoteDisconnected",
        "IncompleteRead",
    }


def test_a_cut_body_has_the_length_of_the_whole_or_its_own(posts: Collection) -> None:
    own = 0
    for entry, answer in on_media(posts, "cut"):
        whole = posts.read(entry)
        if answer.error:
            assert answer.headers["Content-Length"] == str(len(whole))
        else:
            own += 1
            assert len(answer.body) == int(answer.headers["Content-Length"]) < len(whole)
            assert whole.startswith(answer.body)
    assert 0 < own < len(posts)


def test_html_comes_with_status_200_on_media_and_api(posts: Collection) -> None:
    for answer in responses(posts, only("html"), path_of(posts.entries[0]), *PAGES.values()):
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html"
        assert answer.body.startswith(b"<!DOCTYPE html>")


def test_an_empty_page_has_no_posts_in_any_dialect(posts: Collection) -> None:
    faults = only("empty")
    answers = dict(
        zip(
            PAGES,
            responses(posts, faults, *PAGES.values(), path_of(posts.entries[0])),
            strict=False,
        )
    )
    assert faults.injected == {"empty": 5}
    for dialect in ("danbooru", "moebooru", "gelbooru"):
        assert json.loads(answers[dialect].body) == []
    assert set(json.loads(answers["gelbooru_com"].body)) == {"@attributes"}
    assert b"<post " not in answers["gelbooru_xml"].body


def test_a_page_that_is_empty_anyway_is_no_fault(posts: Collection) -> None:
    faults = only("empty")
    responses(posts, faults, "/danbooru/posts.json?page=b1", "/moebooru/post.json?tags=id:%3E40")
    assert not faults.injected


def test_a_redirect_leads_to_the_same_file_elsewhere_or_into_a_circle(posts: Collection) -> None:
    faults = only("redirect")
    paths = [path_of(entry) for entry in posts]
    answers = responses(posts, faults, *paths, follow=True)
    first, then = answers[: len(paths)], answers[len(paths) :]
    assert {answer.status for answer in first} == {302}
    assert {answer.status for answer in then} == {200, 302}
    for entry, answer, following in zip(posts, first, then, strict=True):
        if following.status == 200:
            assert following.body == posts.read(entry)
            assert not answer.headers["Location"].startswith(path_of(entry))
        else:
            assert following.headers["Location"].partition("?")[0] == path_of(entry)


def test_a_slow_body_is_whole_but_takes_its_time(posts: Collection) -> None:
    entry = posts.entries[0]
    started = time.monotonic()
    (answer,) = responses(posts, only("slow", slow_s=0.4), path_of(entry))
    assert time.monotonic() - started > 0.3
    assert answer.body == posts.read(entry)


def test_wrong_bytes_are_another_picture_or_one_bit_away(posts: Collection) -> None:
    flipped = 0
    for entry, answer in on_media(posts, "wrong_md5"):
        whole = posts.read(entry)
        assert md5_of(answer.body) != entry.md5
        if len(answer.body) == len(whole):
            differing = [a ^ b for a, b in zip(whole, answer.body, strict=True) if a != b]
            if len(differing) == 1 and differing[0].bit_count() == 1:
                flipped += 1
                continue
        with Image.open(io.BytesIO(answer.body)) as picture:
            picture.load()
    assert 0 < flipped < len(posts)


def test_a_bomb_is_small_and_grows(posts: Collection) -> None:
    kinds, grown = set(), set()
    for _, answer in on_media(posts, "bomb"):
        assert len(answer.body) < 100_000
        if "Content-Encoding" in answer.headers:
            kinds.add("gzip")
            grown.add(answer.body)
        else:
            width, height = (int.from_bytes(answer.body[at : at + 4], "big") for at in (16, 20))
            kinds.add(f"{width}x{height}")
    assert kinds == {"gzip", "8000x8000", "100000x100000"}
    assert [len(gzip.decompress(body)) for body in grown] == [64_000_000]
    (page,) = responses(posts, only("bomb"), PAGES["danbooru"])
    assert page.headers["Content-Encoding"] == "gzip"


def test_the_same_seed_hits_the_same_requests_and_another_seed_others(posts: Collection) -> None:
    paths = [path_of(entry) for entry in posts] * 3
    rates = {kind: 0.08 for kind in KINDS if kind != "throttle"}

    def hits(seed: int, order: list[str]) -> dict[str, list[Answer]]:
        found: dict[str, list[Answer]] = {}
        faults = Faults(FaultPlan(rates, seed=seed, slow_s=0.0))
        for path, answer in zip(order, responses(posts, faults, *order), strict=True):
            found.setdefault(path, []).append(answer)
        return found

    first = hits(1, paths)
    assert hits(1, paths[::-1]) == first  # whatever else is requested
    assert hits(2, paths) != first


def test_faults_pass_after_two_in_a_row(posts: Collection) -> None:
    faults = Faults(FaultPlan({"error": 1.0}))
    answers = responses(posts, faults, *[path_of(posts.entries[0])] * 6)
    assert [answer.status == 200 for answer in answers] == [False, False, True] * 2


def test_without_rates_nothing_goes_wrong_and_pages_for_people_are_spared(
    posts: Collection,
) -> None:
    faults = Faults(FaultPlan(dict.fromkeys(KINDS, 0.0)))
    assert {a.status for a in responses(posts, faults, *map(path_of, posts))} == {200}
    always = only("error")
    assert {a.status for a in responses(posts, always, "/", "/health", "/robots.txt")} == {200}
    assert not faults.injected + always.injected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("throttle=0.05, reset=.02", {"throttle": 0.05, "reset": 0.02}),
        ("all=0.2", dict.fromkeys(KINDS, 0.02)),
        ("all=0,bomb=1", {**dict.fromkeys(KINDS, 0.0), "bomb": 1.0}),
    ],
)
def test_rates_are_read(text: str, expected: dict[str, float]) -> None:
    assert read_rates(text) == pytest.approx(expected)
    FaultPlan(read_rates(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("thottle=0.1", '"thottle" is no kind of fault; did you mean "throttle"?'),
        ("x=0.1", '"x" is no kind of fault; there are throttle, error, '),
        ("reset", '"reset" is no rate of a fault; expected kind=0.05'),
        ("reset=much", '"reset=much" is no rate'),
        ("reset=1.5", "the rate of reset is 1.5; expected 0 to 1"),
        ("reset=nan", "the rate of reset is nan; expected 0 to 1"),
        ("all=-1", "the rate of all is -1; expected 0 to 1"),
        ("reset=.1,reset=.2", "reset is named twice"),
        ("reset=.8,error=.8", "the rates make 1.6 together; expected at most 1"),
    ],
)
def test_a_wrong_rate_is_named(text: str, said: str) -> None:
    with pytest.raises(FaultPlanError, match=re.escape(said)):
        FaultPlan(read_rates(text))


def test_the_command_line_injects_faults_and_counts_them_at_health(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo.board", "--folder", str(tmp_path), "--count", "3"]
    child = subprocess.Popen(
        [*command, "--workers", "1", "--port", "0", "--faults", "error=1", "--fault-seed", "3"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        url = child.stdout.readline().split()[3]
        answers = _get(url, [*[PAGES["danbooru"]] * 3, "/health"])
    finally:
        child.terminate()
        child.communicate(timeout=600)
    assert [answer.status >= 500 for answer in answers] == [True, True, False, False]
    counted = json.loads(answers[-1].body)["faults"]
    assert counted == {kind: 2 if kind == "error" else 0 for kind in KINDS}
