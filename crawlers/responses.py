"""What the responses of a host mean: status codes, Retry-After, and responses of no use."""

import datetime as dt
import email.utils
import json
import re
from collections.abc import Iterable

from scrapy.exceptions import DownloadCancelledError, IgnoreRequest

from crawlers.sites import Site
from dataset.errors import CrawlError

BLOCKED = frozenset({401, 403})  # the site has said no: never work around it
THROTTLED = frozenset({421, 429})  # we ask too much: the host works
TRANSIENT = THROTTLED | {408} | frozenset(range(500, 600))  # worth asking again after a wait
MAX_RETRY_AFTER_S = 1e10  # 317 years: what does not fit a calendar is cut down to this

_MEANINGS = {
    401: "it wants credentials: set {credentials}",
    403: "it refuses us; if that is about the credentials, look at {credentials}. The crawl of "
    "this site stops: a block is not worked around",
    404: "there is no API at this address: is `api` right in the site registry?",
    410: "the page is too deep",
    421: "we are throttled, and still were after several waits: run again later",
    422: "it does not take this search; are there too many words for an account of this level?",
    429: "we are throttled, and still were after several waits: run again later",
    451: "the search is withheld for legal reasons",
}


def is_too_large(error: BaseException | None) -> bool:
    """Tells whether a download was broken off because its body outgrew its limit."""
    return isinstance(error, (DownloadCancelledError, TooLarge))


def refusal(site: Site, url: str, *, status: int, body: bytes = b"") -> CrawlError:
    """Returns the error of an answer that is not 200, with the board's own words and what to do."""
    meaning = _MEANINGS.get(status, "the board is in trouble: run again later")
    names = " and ".join(site.credentials.values()) or "credentials in the site registry"
    said = _said(body)
    words = f' and says "{said}"' if said else ""
    return CrawlError(
        f"{site.name} answers {status}{words} to {url}: {meaning.format(credentials=names)}"
    )


def is_server_failure(status: int) -> bool:
    """Tells whether an answer says that the host itself is in trouble."""
    return status >= 500 or status == 408


def longest_retry_after(
    values: Iterable[str], *, date: str | None = None, now: dt.datetime
) -> float | None:
    """Returns the longest wait in seconds that an answer's Retry-After headers ask for.

    A date is compared with the board's own clock, its `date` header, where it shows one: ours may
    be wrong. None if no header can be read.
    """
    shown = _http_date(date or "")
    waits = [retry_after(value, shown or now) for value in values]
    return max((wait for wait in waits if wait is not None), default=None)


def retry_after(value: str | None, now: dt.datetime) -> float | None:
    """Returns the seconds that a Retry-After header asks for (seconds or a date), None if none."""
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]+(\s*,\s*[0-9]+)*", text):  # several headers, joined on the way
        return max(min(float(number), MAX_RETRY_AFTER_S) for number in text.split(","))
    moment = _http_date(text)
    if moment is None:
        return None
    return min(max(0.0, (moment - now).total_seconds()), MAX_RETRY_AFTER_S)


def _http_date(text: str) -> dt.datetime | None:
    """Reads a date of a header, UTC where it names no zone; None if it is none."""
    try:
        moment = email.utils.parsedate_to_datetime(text.strip())
    except (TypeError, ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment


def _said(body: bytes) -> str:
    """Returns the message of a JSON error body, at most 160 characters on one line."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(answer, dict):
        return ""
    text = answer.get("message") or answer.get("reason") or answer.get("error") or ""
    return " ".join(str(text).split())[:160]


class UnusableResponse(IgnoreRequest):
    """An answer came, but nothing can be made of it."""


class RedirectLoop(UnusableResponse):
    """The host sends us on and on."""


class TooLarge(UnusableResponse):
    """Undone from its encoding, the answer is larger than anything we take."""


class UnreadableEncoding(UnusableResponse):
    """The answer is not encoded as it says."""
