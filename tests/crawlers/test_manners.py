"""A crawl's manners towards a running board: waits, breaker, statuses, robots.txt."""

import datetime as dt
import itertools
import time
from collections import Counter
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web

from crawlers.ledger import Ledger
from crawlers.rate_limit import Wait, check_waits
from crawlers.responses import TRANSIENT, refusal
from crawlers.settings import user_agent
from crawlers.sites import load_sites
from dataset.errors import CrawlError
from dataset.store import Store
from tests.crawlers.conftest import reasons_of, rows_of, states_of
from tests.crawlers.little_board import Crawler, LittleBoard, on, serving

MEDIA_AT_ONCE = 4
IN_FLIGHT = MEDIA_AT_ONCE + 2  # requests that may be on their way when the board sends Retry-After


@pytest.mark.ci
def test_retry_after_delays_api_and_media_requests_alike(tmp_path: Path) -> None:
    waits: list[tuple[str, float, float]] = []  # whose answer it was, when, until when
    turns = itertools.count()
    agents: set[str] = set()

    def throttle(request: web.Request) -> web.StreamResponse | None:
        turn = next(turns)
        agents.add(request.headers["User-Agent"])
        if request.path == "/robots.txt" or turn % 20 != 4:
            return None
        moment = time.monotonic()  # before the clock is read: no wait seems longer than it was
        now = dt.datetime.now(dt.UTC)
        if turn % 2:
            waits.append((request.path, moment, moment + 1.0))
            return web.Response(status=429, headers={"Retry-After": "1"})
        until = (now + dt.timedelta(seconds=1.5)).replace(microsecond=0)
        waits.append((request.path, moment, moment + (until - now).total_seconds()))
        header = {"Retry-After": format_datetime(until, usegmt=True)}
        return web.Response(status=503, headers=header)

    site = f"[demo]\npage_size = 10\nmedia_at_once = {MEDIA_AT_ONCE}\n"
    with serving(LittleBoard(count=60, answer=throttle)) as board:
        crawl = Crawler(tmp_path, url=board.url, registry=site)
        done = crawl.run()
    assert done.code == 0, done.err
    assert states_of(crawl.home) == {"kept": 60}
    assert len(waits) >= 3
    (agent,) = agents
    assert agent.startswith("Omokage/")
    for delayed, since, until in waits:
        early = [path for moment, path in board.requests if since < moment < until]
        assert delayed not in early, f"{delayed} was requested again before the wait was over"
        assert len(early) <= IN_FLIGHT, f"not only what was on its way: {early}"


@pytest.mark.parametrize("where", ["/danbooru/posts.json", "/media/2.png"])
def test_a_long_retry_after_ends_the_crawl_and_the_next_one_sends_nothing(
    tmp_path: Path, where: str
) -> None:
    throttle = on(where, status=429, headers={"Retry-After": "900"})
    with serving(LittleBoard(answer=throttle)) as board:
        crawl = Crawler(tmp_path, url=board.url)
        first = crawl.run()
        requested = len(board.requests)
        second = crawl.run()
        assert len(board.requests) == requested
        assert second.connects == []
        by_itself = crawl.scrapy()
        assert len(board.requests) == requested
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=900)
    assert first.code == second.code == 6
    assert first.err == second.err
    assert "asks us to wait until" in by_itself.err
    (line,) = first.err.splitlines()
    assert line.startswith("crawl: demo asks us to wait until ")
    assert line.endswith(" UTC (Retry-After 900 s): run again then")
    assert f"{until:%H}:" in line or f"{until + dt.timedelta(minutes=1):%H}:" in line
    if where.startswith("/media"):
        rows = {row.post.post_id: row[1:3] for row in rows_of(crawl.home)}
        assert rows[2] == ("pending", None)


@pytest.mark.ci
def test_a_short_retry_after_survives_the_crawl(tmp_path: Path) -> None:
    with serving(LittleBoard()) as board:
        crawl = Crawler(tmp_path, url=board.url)
        host = board.url.removeprefix("http://")
        with Ledger.of(Store(crawl.home)) as ledger:
            until = time.monotonic() + 3.0
            ledger.note_wait(Wait.until(host, 3.0, dt.datetime.now(dt.UTC)))
        done = crawl.run()
    assert done.code == 0, done.err
    assert min(moment for moment, _path in board.requests) >= until


def test_the_ledger_keeps_the_longest_retry_after_of_a_host_until_it_is_over(
    tmp_path: Path,
) -> None:
    now = dt.datetime(2026, 11, 21, 10, tzinfo=dt.UTC)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for host, retry_after_s in [("a", 60.0), ("a", 900.0), ("a", 5.0), ("b", 30.0)]:
            ledger.note_wait(Wait.until(host, retry_after_s, now))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        later = now + dt.timedelta(seconds=30)
        (wait,) = ledger.waits(later)
        assert wait == Wait("a", now + dt.timedelta(seconds=900), 900.0)
        assert wait.left_s(later) == 870.0
        assert wait.left_s(now - dt.timedelta(days=1)) == 900.0  # a clock that was set back
        assert ledger.waits(now + dt.timedelta(seconds=900)) == []


def test_the_retry_after_of_another_sites_host_does_not_delay_a_site() -> None:
    now = dt.datetime(2026, 11, 21, 10, 0, 20, tzinfo=dt.UTC)
    sites = load_sites()
    wait = Wait.until("cdn.donmai.us", 100_000.0, now)
    check_waits(sites["konachan"], [wait], now)
    for name in ("safebooru_donmai", "danbooru_donmai"):
        with pytest.raises(CrawlError) as caught:
            check_waits(sites[name], [wait], now)
        assert str(caught.value) == (
            f"{name} (its host cdn.donmai.us) asks us to wait until 2026-11-22 13:47 UTC "
            "(Retry-After 100000 s): run again then"
        )


def test_a_host_that_stays_down_ends_the_crawl_and_posts_stay_pending(tmp_path: Path) -> None:
    with serving(LittleBoard(count=30, answer=on("/media", status=500))) as board:
        crawl = Crawler(tmp_path, url=board.url)
        settings = {"BREAKER_OPEN_S": 0.2, "BREAKER_OPENINGS": 2, "BREAKER_FAILURES": 5}
        done = crawl.scrapy(**settings)
    host = board.url.removeprefix("http://")
    assert f"demo: {host} is down, and still was after several waits: run again later" in done.err
    assert states_of(crawl.home) == {"pending": 30}
    media = [place for place, path in enumerate(board.paths) if path.startswith("/media")]
    amid = sum(not path.startswith("/media") for path in board.paths[media[0] : media[-1]])
    # 16 at once until it opens, then a probe after each of two waits. Where an API page comes amid
    # the failures (the same host, and well), the breaker begins anew.
    assert amid <= 4  # so often is an empty page requested
    assert len(media) <= 16 * (1 + amid) + 2


def test_a_host_that_recovers_is_crawled_to_the_end(tmp_path: Path) -> None:
    requested: Counter[str] = Counter()

    def shaky(request: web.Request) -> web.StreamResponse | None:
        requested[request.path] += 1
        if request.path.startswith("/media") and requested.total() < 25:
            return web.Response(status=502)
        return None

    with serving(LittleBoard(count=30, answer=shaky)) as board:
        crawl = Crawler(tmp_path, url=board.url)
        done = crawl.scrapy(BREAKER_OPEN_S=0.1, BREAKER_OPENINGS=9)
    assert done.code == 0, done.err
    assert states_of(crawl.home) == {"kept": 30}


@pytest.mark.parametrize(
    ("status", "retried", "said"),
    [
        (401, False, "it wants credentials"),
        (403, False, "a block is not worked around"),
        (404, False, "there is no API at this address"),
        (410, False, "the page is too deep"),
        (421, True, "we are throttled"),
        (422, False, "it does not take this search"),
        (429, True, "we are throttled"),
        (451, False, "withheld for legal reasons"),
        (500, True, "the board is in trouble"),
        (501, True, "the board is in trouble"),
        (503, True, "the board is in trouble"),
        (599, True, "the board is in trouble"),
    ],
)
def test_each_status_has_its_words_and_is_retried_or_not(
    status: int, retried: bool, said: str
) -> None:
    error = refusal(load_sites()["konachan"], "https://konachan.net/post.json", status=status)
    assert str(error).startswith(f"konachan answers {status} to https://konachan.net/post.json: ")
    assert said in str(error)
    assert (status in TRANSIENT) is retried


@pytest.mark.parametrize(("status", "attempts"), [(410, 1), (451, 1), (429, 2), (501, 2)])
def test_the_api_is_retried_after_what_passes_only(
    tmp_path: Path, status: int, attempts: int
) -> None:
    answer = on("/danbooru/posts.json", text='{"message": "No, really."}', status=status)
    with serving(LittleBoard(answer=answer)) as board:
        done = Crawler(tmp_path, url=board.url).scrapy(RETRY_TIMES=1)
    assert board.paths.count("/danbooru/posts.json") == attempts
    assert f'demo answers {status} and says "No, really."' in done.err


def test_each_status_of_a_picture_settles_or_postpones_its_post(tmp_path: Path) -> None:
    wanted = {
        404: ("refused", "gone"),
        410: ("refused", "gone"),
        451: ("refused", "gone"),
        422: ("refused", "status_422"),
        418: ("refused", "status_418"),
        408: ("pending", "status 408"),
        421: ("pending", "status 421"),
        429: ("pending", "status 429"),
        503: ("pending", "status 503"),
    }
    statuses = dict(enumerate(wanted, start=1))

    def answer(request: web.Request) -> web.StreamResponse | None:
        if not request.path.startswith("/media"):
            return None
        return web.Response(status=statuses[int(request.path[len("/media/") : -len(".png")])])

    with serving(LittleBoard(count=len(wanted), answer=answer)) as board:
        crawl = Crawler(tmp_path, url=board.url)
        crawl.scrapy(RETRY_TIMES=0)
    found = {statuses[row.post.post_id]: row[1:3] for row in rows_of(crawl.home)}
    assert found == wanted


def test_every_real_board_of_the_registry_wants_a_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    real = [site for site in load_sites().values() if not site.is_loopback]
    assert len(real) == 6
    for site in real:
        for contact in ("", "   "):
            monkeypatch.setenv("OMOKAGE_CONTACT", contact)
            with pytest.raises(CrawlError, match=f"{site.name} is a real board.*OMOKAGE_CONTACT"):
                user_agent(site)
        monkeypatch.setenv("OMOKAGE_CONTACT", "me@example.org")
        assert user_agent(site).startswith("Omokage/")
        assert user_agent(site).endswith(" (+me@example.org)")


def test_a_picture_that_robots_txt_disallows_is_refused_and_not_requested(tmp_path: Path) -> None:
    text = "User-agent: *\nAllow: /\nUser-agent: omokage\nDisallow: /media/2\n"
    with serving(LittleBoard(answer=on("/robots.txt", text=text))) as board:
        crawl = Crawler(tmp_path, url=board.url)
        done = crawl.run()
    assert done.code == 0, done.err
    assert "/media/2.png" not in board.paths
    assert board.paths.count("/robots.txt") == 1
    assert reasons_of(crawl.home) == {1: None, 2: "robots", 3: None}


def test_a_crawl_delay_beyond_our_own_interval_is_heeded(tmp_path: Path) -> None:
    robots = on("/robots.txt", text="User-agent: *\nCrawl-delay: 0.6\n")
    with serving(LittleBoard(count=3, answer=robots)) as board:
        done = Crawler(tmp_path, url=board.url).run()
    assert done.code == 0, done.err
    for start in ("/danbooru", "/media"):
        moments = [moment for moment, path in board.requests if path.startswith(start)]
        assert len(moments) >= 3
        assert all(two - one > 0.55 for one, two in itertools.pairwise(moments))


def test_a_crawl_delay_of_an_hour_ends_the_crawl_with_its_reason(tmp_path: Path) -> None:
    robots = on("/robots.txt", text="User-agent: *\nCrawl-delay: 3600\n")
    with serving(LittleBoard(answer=robots)) as board:
        done = Crawler(tmp_path, url=board.url).run()
    assert done.code == 6
    assert "asks for 3600 s between two requests" in done.err
    assert board.paths == ["/robots.txt"]


@pytest.mark.parametrize("lasting", [True, False])
def test_a_robots_txt_in_trouble_allows_nothing_until_it_can_be_read(
    tmp_path: Path, lasting: bool
) -> None:
    requested = itertools.count()

    def trouble(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/robots.txt" and (next(requested) < 2 or lasting):
            return web.Response(status=502)
        return None

    with serving(LittleBoard(answer=trouble)) as board:
        crawl = Crawler(tmp_path, url=board.url)
        crawl.scrapy(RETRY_TIMES=1)
    media = [path for path in board.paths if path.startswith("/media")]
    rows = rows_of(crawl.home)
    if lasting:
        assert media == []
        host = board.url.removeprefix("http://")
        found = {(row.state, row.reason) for row in rows}
        assert found == {("pending", f"robots.txt of {host} answers 502")}
    else:
        assert len(media) == 3
        assert {row.state for row in rows} == {"kept"}
