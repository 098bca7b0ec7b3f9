"""What the responses of a host mean: pages, refusals, Retry-After, and responses of no use."""

import datetime as dt
import email.utils
import re
from collections.abc import Iterable

from scrapy.exceptions import DownloadCancelledError, IgnoreRequest
from scrapy.http import Response

from crawlers.boards import Board
from crawlers.boards.record import BrokenPage, board_words, spoiler_of
from crawlers.cursor import PageRequest, check_order, select
from crawlers.post import Page
from crawlers.sites import Site
from dataset.errors import BoardDownError, CrawlError

BLOCKED = frozenset({401, 403})  # the site has said no: never work around it
THROTTLED = frozenset({421, 429})  # we ask too much: the host works
TRANSIENT = THROTTLED | {408} | frozenset(range(500, 600))  # worth asking again after a wait
# A board of whose records so many in a row cannot be used has changed its API.
MAX_BAD_IN_A_ROW = 50
SAME_BROKEN_ANSWERS = 3  # of a post alone on its page: then it is passed over
MAX_RETRY_AFTER_S = 1e10  # 317 years: what does not fit a calendar is cut down to this

_MEANINGS = {
    200: "that is a refusal; if it is about the credentials, set {credentials}. The crawl of this "
    "site stops: a block is not worked around",
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
    """Returns the error of an answer that refuses, with the board's own words and what to do."""
    meaning = _MEANINGS.get(status, "the board is in trouble: run again later")
    names = " and ".join(site.credentials.values()) or "credentials in the site registry"
    said = board_words(body)
    words = f' and says "{said}"' if said else ""
    return (BoardDownError if status in TRANSIENT else CrawlError)(
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


class Unreadable(CrawlError):
    """An answer came, but it is not the requested page: that of a retry may be.

    is_spoilt: it began as one; a page with fewer posts may be whole.
    """

    def __init__(self, text: str, *, is_spoilt: bool = False) -> None:
        super().__init__(text)
        self.is_spoilt = is_spoilt


class PageReader:
    """Reads the pages of a site."""

    def __init__(self, site: Site, board: Board) -> None:
        self._site = site
        self._board = board
        self.spoilers: set[int] = set()  # posts that cannot be requested without breaking a page
        self._bad_in_a_row = 0
        self._broken: list[bytes] = []  # answers to requests for a single post

    def read(self, response: Response, page: PageRequest, limit: int) -> Page:
        """Returns the requested posts of an answer in the order to visit, and its bad records.

        Raises Unreadable for an answer of status 200 that is no page, CrawlError for all else.
        """
        shown, body = str(response.meta["shown_url"]), response.body
        if response.status != 200:
            raise refusal(self._site, shown, status=response.status, body=body)
        try:
            found = self._parse(body, page, limit)
        except CrawlError as error:
            if board_words(body):
                raise refusal(self._site, shown, status=200, body=body) from error
            start = " ".join(body[:60].decode("utf-8", "replace").split())
            raise Unreadable(
                f'{self._site.name} answers 200 to {shown}, but what comes (it begins "{start}") '
                f"is no page of posts: {error}",
                is_spoilt=isinstance(error, BrokenPage),
            ) from error
        in_a_row = 0 if found.posts else self._bad_in_a_row + len(found.bad)
        if in_a_row > MAX_BAD_IN_A_ROW:
            raise CrawlError(
                f"{self._site.name} answers to {shown} with records that cannot be used, the last "
                f"{in_a_row} without exception: {found.bad[0].reason}. Perhaps its API has "
                "changed; no record of this page is passed over"
            )
        self._bad_in_a_row = in_a_row
        if self._board.ORDERED_PAGES and found.size >= limit > 1:
            check_order(page, found.posts)
        bad = [one for one in found.bad if one.post_id is None or page.includes(one.post_id)]
        return Page(select(page, found.posts), bad)

    def _parse(self, body: bytes, page: PageRequest, limit: int) -> Page:
        """Reads a page; a post that is broken each time, and alone on its page, is a bad record.

        Where nothing at all comes each time, there is no post.
        """
        try:
            found = self._board.parse(body, self._site)
        except BrokenPage as error:
            self._broken += [body] if limit == 1 else []
            if self._broken.count(body) < SAME_BROKEN_ANSWERS:
                raise
            found = Page([], [])
            if body.strip():
                spoiler = spoiler_of(body, error)
                if spoiler is None or not page.includes(spoiler.post_id or 0):
                    raise
                found.bad.append(spoiler)
                self.spoilers |= found.ids
        self._broken.clear()
        return found


class UnusableResponse(IgnoreRequest):
    """An answer came, but nothing can be made of it."""


class RedirectLoop(UnusableResponse):
    """The host sends us on and on."""


class TooLarge(UnusableResponse):
    """Undone from its encoding, the answer is larger than anything we take."""


class UnreadableEncoding(UnusableResponse):
    """The answer is not encoded as it says."""
