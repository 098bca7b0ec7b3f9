"""What a board's refusals mean, in words for the user; reads Retry-After."""

import datetime as dt
import email.utils
import json
import re

from scrapy.exceptions import DownloadCancelledError, IgnoreRequest

from crawlers.sites import Site
from dataset.errors import CrawlError

BLOCKED = frozenset({401, 403})  # the site has said no: never work around it
PASSING = frozenset({421, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

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
    """Tells whether a download was broken off because its body outgrew its limit.

    Scrapy says so by one error on the line and by another once the body is being decompressed.
    """
    grown = isinstance(error, IgnoreRequest) and isinstance(error.__cause__, ValueError)
    return grown or isinstance(error, DownloadCancelledError)


def refusal(site: Site, url: str, *, status: int, body: bytes = b"") -> CrawlError:
    """Returns the error of an answer that is not 200, with the board's own words and what to do."""
    meaning = _MEANINGS.get(status, "the board is in trouble: run again later")
    names = " and ".join(site.credentials.values()) or "credentials in the site registry"
    said = _said(body)
    words = f' and says "{said}"' if said else ""
    return CrawlError(
        f"{site.name} answers {status}{words} to {url}: {meaning.format(credentials=names)}"
    )


def retry_after(value: str | None, now: dt.datetime) -> float | None:
    """Returns the seconds that a Retry-After header asks for (seconds or a date), None if none."""
    text = (value or "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, (moment - now).total_seconds())


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
