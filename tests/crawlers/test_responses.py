"""Refusals in words, and how long a board wants us to wait."""

import datetime as dt

import pytest

from crawlers.rate_limit import backoff_s
from crawlers.responses import refusal, retry_after
from crawlers.sites import load_sites
from dataset.errors import BoardDownError

NOW = dt.datetime(2026, 11, 21, 10, 0, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("3", 3.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("Sat, 21 Nov 2026 10:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 09:00:00 GMT", 0.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(text: str | None, wait_s: float | None) -> None:
    assert retry_after(text, NOW) == wait_s


def test_waits_double_within_their_jitter() -> None:
    for times in range(1, 5):
        middle = 0.5 * 2 ** (times - 1)
        assert 0.75 * middle <= backoff_s(times, first_s=0.5) <= 1.25 * middle


def test_a_refusal_names_site_status_address_the_boards_words_and_the_remedy() -> None:
    site = load_sites()["gelbooru_com"]
    error = refusal(
        site, "https://gelbooru.com/index.php", status=401, body=b'{"message": "Key\\n missing"}'
    )
    assert str(error) == (
        'gelbooru_com answers 401 and says "Key missing" to https://gelbooru.com/index.php: it '
        "wants credentials: set GELBOORU_API_KEY and GELBOORU_USER_ID"
    )


def test_an_answer_in_html_is_not_quoted() -> None:
    error = refusal(load_sites()["konachan"], "https://konachan.net/", status=503, body=b"<html>")
    assert "html" not in str(error)
    assert "run again later" in str(error)


@pytest.mark.parametrize(
    ("statuses", "may_pass"),
    [((200, 401, 403, 404, 422, 451), False), ((408, 421, 429, 500, 503), True)],
)
def test_a_block_does_not_pass_by_itself_and_an_outage_may(
    statuses: tuple[int, ...], *, may_pass: bool
) -> None:
    site = load_sites()["konachan"]
    errors = [refusal(site, "https://konachan.net/", status=status) for status in statuses]
    assert [isinstance(error, BoardDownError) for error in errors] == [may_pass] * len(statuses)
