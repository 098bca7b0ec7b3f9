"""The spiders: arguments, the way through the pages of a search, and the stop."""

import asyncio
import functools
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self
from urllib.parse import urlencode

import scrapy
from scrapy.crawler import Crawler
from scrapy.exceptions import DownloadCancelledError, IgnoreRequest
from scrapy.http import Request, Response
from twisted.python.failure import Failure

from crawlers.boards import BOARDS, Board
from crawlers.boards.record import board_words, now
from crawlers.cursor import (
    MIN_RECHECKED_POSTS,
    RECHECK_DAYS,
    RECHECK_FRAC,
    Cursor,
    PageRequest,
    PageSizes,
    Recheck,
    in_order,
)
from crawlers.ledger import GONE, Ledger
from crawlers.post import Outcome, Page, Post, Quarantine
from crawlers.rate_limit import backoff_s
from crawlers.refusals import Judge
from crawlers.responses import PageReader, Unreadable, UnusableResponse, is_too_large, refusal
from crawlers.settings import site_settings
from crawlers.sites import Secrets, Site, board_names, board_takedowns, load_sites, site_named
from dataset.errors import BoardDownError, CrawlError, OmokageError, UsageError
from dataset.media import has_blob
from dataset.policy import Takedowns
from dataset.store import Store, open_home

logger = logging.getLogger(__name__)

# A page of 200 posts has 0.6 MB. As JSON values an answer can take 24 times its size.
MAX_RESPONSE_BYTES = 8_000_000
MAX_RECHECK_DAYS = 36_500  # of more, no date could be made
TICK_S = 0.25  # how long a stop may go unheard by a callback that waits
# So many empty answers in a row, at least, mean that a search has no posts at all,
FIRST_EMPTY_ANSWERS = 3
# and so many that it has none below: to conclude that wrongly would lose them for good. Each answer
# but the first had to have a post that was there before; that it has gone is rarer than a fault.
LAST_EMPTY_ANSWERS = 4
# So many posts that spoil their pages, with some 12 requests each, before the crawl ends.
MAX_SPOILT_PAGES = 20


class BoardSpider(scrapy.Spider):
    """Walks the pages of one search on one site and yields an Outcome for every post.

    Arguments: site; tags (search words); limit (posts to take, 0: all); home (default:
    OMOKAGE_HOME, ./var); sites (a registry file of one's own); recheck_days (posts of so many days
    are read again each time); recheck_frac (share of the others that is read again per day);
    refetch_missing (yes: the blobs that are missing are lost, and are to be fetched again).
    """

    family: ClassVar[str]

    def __init__(
        self,
        *,
        site: Site,
        store: Store,
        words: str,
        limit: int,
        names: Mapping[str, str],
        refetch_missing: bool = False,
    ) -> None:
        super().__init__(name=self.name)
        self.site = site
        self.store = store
        self.words = " ".join(words.split())
        self.query = " ".join(f"{site.search} {self.words}".split())
        self.limit = limit
        self.board: Board = BOARDS[self.family]
        self.ledger = Ledger.of(store, refetch_missing=refetch_missing)
        self.ledger.lock(site.board)
        self.ledger.admit(site)
        if refetch_missing:
            self.ledger.requeue_missing(site.board, functools.partial(has_blob, store))
        self.takedowns: Takedowns = board_takedowns(store, names, crawled=self.ledger.boards())
        self.judge = Judge(self.ledger, site, self.takedowns)
        self.expected = limit  # posts that this crawl will see, as far as is known; 0: unknown
        self._reader = PageReader(site, self.board)
        self._quarantine = Quarantine(store, site.board, Secrets(site).hidden)
        self.failure: OmokageError | None = None
        self.stopping = False
        self._cursor = Cursor()
        self._sizes = PageSizes(site.page_size)
        self._spoilt_pages = 0
        self._caught_up = False
        self._taken = 0
        self._empty_answers = 0  # in a row
        self._is_empty = False  # the board itself counts no post of this search
        self._unsettled: list[str] = []  # searches with posts that wait from earlier crawls
        self.recheck_days, self.recheck_frac = RECHECK_DAYS, RECHECK_FRAC
        self._to_recheck: list[str] = []  # searches; the first one is being read again
        self._recheck: Recheck | None = None
        self._missing: list[int] = []  # kept posts that the last page read again does not have
        self._bottom = 0  # of that page

    @classmethod
    def from_crawler(
        cls,
        crawler: Crawler,
        *_args: Any,
        site: str = "",
        tags: str = "",
        limit: str | int = 0,
        home: str = "",
        sites: str = "",
        recheck_days: str | int = RECHECK_DAYS,
        recheck_frac: str | float = RECHECK_FRAC,
        refetch_missing: str | bool = "",
        **_kwargs: Any,
    ) -> Self:
        """Makes the spider from its arguments and sets the crawl's settings for its site."""
        if not site:
            raise UsageError("which site? Give -a site=demo, or another of the registry")
        chosen = site_named(site, sites or None)
        if chosen.family != cls.family:
            raise UsageError(f"{site} is a {chosen.family} board: scrapy crawl {chosen.family}")
        if not str(limit).isdecimal():
            raise UsageError(f"limit is {limit}; a whole number, 0 for no limit, wanted")
        try:
            days, frac = int(recheck_days), float(recheck_frac)
        except ValueError:
            days, frac = -1, -1.0
        if days < 0 or not 0.0 <= frac <= 1.0:
            raise UsageError(
                f"recheck_days is {recheck_days}, recheck_frac is {recheck_frac}; a whole number, "
                "0 or more, and a number from 0 to 1 wanted"
            )
        crawler.settings.setdict(site_settings(chosen), priority="spider")
        store = open_home(home)
        names = board_names(load_sites(sites or None))
        spider = cls(
            site=chosen,
            store=store,
            words=tags,
            limit=int(limit),
            names=names,
            refetch_missing=refetch_missing in (True, "yes"),
        )
        spider.recheck_days, spider.recheck_frac = min(days, MAX_RECHECK_DAYS), frac
        spider._set_crawler(crawler)
        return spider

    async def start(self) -> AsyncIterator[Request]:
        """Asks for what an earlier crawl left pending, for what was taken, then for what is new."""
        self._cursor = self.ledger.cursor(self.site.board, self.query)
        again = self.judge.judge_again(self.query) + self.ledger.revisit(self.site.board)
        assert self.crawler.stats is not None
        self.crawler.stats.set_value("omokage/judged_again", again)
        self._unsettled = self.ledger.pending_queries(self.site.board)
        others = [one for one in self.ledger.searches(self.site.board) if one != self.query]
        self._to_recheck = [self.query, *others]
        for request in self._next_unsettled():
            yield request

    def parse_count(self, response: Response) -> Iterator[Request]:
        """Learns how many posts there are, for the progress bar, and asks for the first page."""
        count = self.board.parse_count(response.body) if response.status == 200 else None
        if count is None and response.status == 200 and board_words(response.body):
            shown = str(response.meta["shown_url"])
            self.stop(refusal(self.site, shown, status=200, body=response.body))
            return
        self._is_empty = count == 0
        self.expected = min(count or 0, self.limit) if self.limit else count or 0
        yield from self._next_page()

    async def parse_page(
        self, response: Response, query: str, page: PageRequest, limit: int
    ) -> AsyncIterator[Any]:
        """Writes a page into the ledger, yields its posts, then asks for the next page."""
        try:
            outcomes = self._record_page(response, query, page, limit=limit)
        except OmokageError as error:
            if again := await self._retry(response.request, error):
                yield again
            return
        for outcome in outcomes:
            yield outcome
        await self._backoff_if_empty()
        # Last, so that the next page is requested only when most of this one's posts are settled.
        for request in self._next_page():
            yield request

    async def parse_unsettled(
        self, response: Response, query: str, page: PageRequest, limit: int
    ) -> AsyncIterator[Any]:
        """Yields the pending posts of a page by their present records, then asks for the next."""
        try:
            found = self._read(response, page, limit)
            self._set_apart(found)
            if not found.ids and self._is_not_the_end(page):
                await self._backoff_if_empty()
                yield self._unsettled_request(query, page.edge)
                return
            bottom = min(found.ids, default=0)
            waiting = self.ledger.pending(self.site.board, query, first=bottom, below=page.edge)
            present = {post.post_id: post for post in found.posts}
            self.ledger.renew(present[p.post_id] for p in waiting if p.post_id in present)
            following = self.ledger.highest_pending(self.site.board, query, below=bottom)
        except OmokageError as error:
            if again := await self._retry(response.request, error):
                yield again
            return
        for post in waiting:
            if post.post_id in present:
                yield Outcome(present[post.post_id], query)
            elif self.judge.reason(post, query) is None:
                is_listed = post.post_id in found.ids
                why = "its record cannot be used" if is_listed else "the board does not list it"
                yield Outcome(post, query, deferred=why)
            else:  # it was to be refused when it was last seen: no need to see it again
                yield Outcome(post, query)
        if following is None:
            self._unsettled = self._unsettled[1:]
            for request in self._next_unsettled():
                yield request
        else:
            yield self._unsettled_request(query, following + 1)

    async def parse_recheck(
        self, response: Response, query: str, page: PageRequest, limit: int
    ) -> AsyncIterator[Any]:
        """Compares a page that is read again with the ledger, then asks for what it should have."""
        # A search that is refused by now, which would stop the crawl for ever, lists nothing.
        is_refused = response.status in (410, 422) and query != self.query
        try:
            found = Page([], []) if is_refused else self._read(response, page, limit)
            self._set_apart(found)
            if not found.ids and not is_refused and self._is_not_the_end(page):
                await self._backoff_if_empty()
                yield self._recheck_request(self.parse_recheck, query, page, limit)
                return
            bottom, most = min(found.ids, default=0), 2 * limit
            kept = self.ledger.highest_kept(
                self.site.board, query, first=bottom, below=page.edge, most=most
            )
            # A page that lacks this many is faulty: its lower part is read again by the next one.
            self._bottom = kept[-1] if len(kept) == most else bottom
            self._missing = [post_id for post_id in kept if post_id not in found.ids]
            outcomes = self._compare(found.posts, query)
            self._move_on()
        except OmokageError as error:
            if again := await self._retry(response.request, error):
                yield again
            return
        for outcome in outcomes:
            yield outcome
        for request in self._next_recheck():
            yield request

    async def parse_missing(
        self, response: Response, query: str, page: PageRequest, limit: int
    ) -> AsyncIterator[Any]:
        """Takes the present records of posts that a page lacked; those not there are gone.

        A page of all posts beside them: that others are on it shows that the answer is not faulty.
        """
        try:
            found = self._read(response, page, limit)
            if not found.ids and self._is_not_the_end(page):
                await self._backoff_if_empty()
                yield self._recheck_request(self.parse_missing, query, page, limit)
                return
            if found.ids and page.side == "below":
                shown = range(min(found.ids), page.edge)
            else:
                shown = range(page.edge + 1, max(found.ids, default=page.edge) + 1)
            seen = [post_id for post_id in self._missing if post_id in shown]
            self._set_apart(found.among(seen))
            gone = self.ledger.mark_gone(self.site.board, set(seen) - found.ids)
            outcomes = self._compare(found.among(seen).posts, self._to_recheck[0])
            self._missing = [post_id for post_id in self._missing if post_id not in shown]
            if not found.ids and page.side == "above":
                self._missing = []  # a board that shows nothing at all says nothing of them
            self._move_on()
        except OmokageError as error:
            if again := await self._retry(response.request, error):
                yield again
            return
        if gone:
            self._count(f"drop/{GONE}", gone)
        for outcome in outcomes:
            yield outcome
        for request in self._next_recheck(below_is_empty=not found.ids):
            yield request

    async def page_failed(self, failure: Failure) -> AsyncIterator[Request]:
        """Asks again if nothing can be made of an answer; stops the crawl if none came at all."""
        error = failure.value
        if self.stopping and isinstance(error, IgnoreRequest):
            return
        request: Request = failure.request  # type: ignore[attr-defined]  # Scrapy sets it
        url = str(request.meta["shown_url"])
        why = str(error).strip().rstrip(".") or type(error).__name__
        if is_too_large(error):
            why = (
                f"it has more than {MAX_RESPONSE_BYTES / 1e6:.0f} MB, which no page of posts takes"
            )
        if isinstance(error, (UnusableResponse, DownloadCancelledError)):
            unusable = f"{self.site.name} gives no answer that can be used to {url}: {why}"
            # One that is too large may have been a slip; it costs too much to hope for five times.
            most = 1 if is_too_large(error) else None
            if again := await self._retry(request, Unreadable(unusable), most=most):
                yield again
            return
        if isinstance(error, IgnoreRequest) and why.startswith("Forbidden by robots.txt"):
            text = (
                f"the robots.txt of {self.site.name} disallows {url}: if the board's terms "
                "allow the use of this API path, name it in robots_exempt of the site registry"
            )
        else:
            text = (
                f"{self.site.name} cannot be reached at {url}: {why}. Is the board running, and is "
                "the network there?"
            )
        # What we do not request ourselves, we do not request later.
        self.stop((CrawlError if isinstance(error, IgnoreRequest) else BoardDownError)(text))

    def stop(self, failure: OmokageError | None = None) -> None:
        """Ends the crawl now: what is on its way stays pending; `failure` is why, None: by request.

        Only the first failure counts.
        """
        if self.failure is None and failure is not None:
            failure.args = (Secrets(self.site).hidden(str(failure)),)
            self.failure = failure
        if not self.stopping:
            self.stopping = True
            engine = self.crawler.engine
            if engine is not None:
                self._closing = asyncio.ensure_future(
                    engine.close_spider_async(reason="failed" if failure else "stopped")
                )

    async def pause(self, seconds: float) -> None:
        """Waits, but no longer than until the crawl is stopped."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.stopping:
            await asyncio.sleep(min(left, TICK_S))

    def closed(self, _reason: str) -> None:
        """Closes the ledger, and says why the crawl failed; Scrapy calls it at the very end."""
        if self.failure is not None:
            logger.error("%s", self.failure)
        self.ledger.close()

    def _record_page(
        self, response: Response, query: str, page: PageRequest, *, limit: int
    ) -> list[Outcome]:
        """Writes a page into the ledger; returns the posts that are to be settled."""
        remaining = self.limit - self._taken if self.limit else None
        found = self._read(response, page, limit)
        # Without the lowest post seen, which is requested again where nothing was below it.
        known = self._cursor.low if page.side == "below" else None
        ids = in_order(page, found.ids - {known})[:remaining]
        tells_nothing = not ids and found.size >= limit  # of what is beyond
        if tells_nothing and known not in self._reader.spoilers:
            raise CrawlError(
                f"{self.site.name} answers to {response.meta['shown_url']} with a full page on "
                f"which no new post has an id: nobody knows what is {page.side} it. A larger limit "
                "may lead further"
            )
        taken = found.among(ids)
        # Before the cursor moves, so that no record is passed over without a trace.
        self._set_apart(taken)
        if (tells_nothing or not found.ids) and self._is_not_the_end(page):
            return []
        self._taken += len(ids)
        self._cursor = self._cursor.after(page, ids)
        self._caught_up |= page.side == "newest" or (page.side == "above" and not ids)
        to_settle = self.ledger.note_page(
            self.site.board, query, posts=taken.posts, cursor=self._cursor
        )
        return [Outcome(post, query) for post in to_settle]

    def _read(self, response: Response, page: PageRequest, limit: int) -> Page:
        found = self._reader.read(response, page, limit)
        if found.ids:
            self._empty_answers = 0
        return found

    def _set_apart(self, page: Page) -> None:
        """Writes the bad records of a page into the quarantine."""
        self._count("quarantined", self._quarantine.add(page.bad, moment=now()))

    def _count(self, name: str, more: int = 1) -> None:
        assert self.crawler.stats is not None
        self.crawler.stats.inc_value(f"omokage/{name}", more)

    async def _retry(
        self, request: Request | None, error: OmokageError, *, most: int | None = None
    ) -> Request | None:
        """Returns the same request after a wait, RETRY_TIMES or `most` times at most.

        A page that one of its posts spoils is requested again, then with fewer and fewer posts.
        After all that, and at once if it is not `Unreadable`, the error stops the crawl.
        """
        assert request is not None  # Scrapy gives every answer its request
        if not isinstance(error, Unreadable):
            self.stop(error)
            return None
        times = int(request.meta.get("retries", 0)) + 1
        arguments, url = request.cb_kwargs, str(request.meta["shown_url"])  # no redirect's target
        is_new = not self._sizes.are_halved
        if error.is_spoilt and arguments["limit"] > 1 and is_new and times == 1:
            url = self.board.second_url(url)
        elif error.is_spoilt and arguments["limit"] > 1:
            if is_new:
                self._sizes.halve(arguments["limit"])
                # A page that is read again is not counted: earlier crawls have passed its spoiler.
                self._spoilt_pages += self._recheck is None
            arguments = {**arguments, "limit": self._sizes.take()}
            url, times = self._page_url(**arguments), 0
        retry_times = self.settings.getint("RETRY_TIMES")
        if times > (retry_times if most is None else min(most, retry_times)):
            words = f"{error}. It was requested {times} times; run again later"
            self.stop(BoardDownError(words))
            return None
        if self._spoilt_pages > MAX_SPOILT_PAGES:
            self.stop(CrawlError(f"{error}. {MAX_SPOILT_PAGES} pages before it were like that"))
            return None
        self._count("asked_again")
        await self.pause(backoff_s(times or 1, first_s=self.settings.getfloat("FIRST_WAIT_S")))
        again = self._request(url, request.callback, **arguments)
        again.meta["retries"] = times
        return None if self.stopping else again

    def _is_not_the_end(self, page: PageRequest) -> bool:
        """Tells, after an empty page, whether it has to be requested again.

        What a faulty empty page hides above, the next crawl finds; what it hides below would be
        lost for good.
        """
        wanted = self.site.empty_answers
        enough = {
            "newest": 1 if self._is_empty else max(wanted, FIRST_EMPTY_ANSWERS),
            # Of all crawls, those with nothing new are the most frequent: two requests at most.
            "above": min(wanted, 2),
            "below": max(wanted, LAST_EMPTY_ANSWERS),
        }[page.side]
        self._empty_answers = (self._empty_answers + 1) % enough
        return self._empty_answers > 0

    async def _backoff_if_empty(self) -> None:
        """Gives a board that answers with nothing again and again the time to come to itself."""
        if self._empty_answers > 1:
            first_s = self.settings.getfloat("FIRST_WAIT_S")
            await self.pause(backoff_s(self._empty_answers - 1, first_s=first_s))

    def _next_unsettled(self) -> Iterator[Request]:
        """Asks for the page of the next post that waits; when none does, for what is new."""
        if self.stopping:
            return
        for query in self._unsettled:
            highest = self.ledger.highest_pending(self.site.board, query)
            if highest is not None:
                self._unsettled = self._unsettled[self._unsettled.index(query) :]
                yield self._unsettled_request(query, highest + 1)
                return
        yield from self._next_recheck()

    def _next_recheck(self, *, below_is_empty: bool = False) -> Iterator[Request]:
        """Requests the next page to be read again; when there is none, what is new."""
        if self.stopping:
            return
        if self._missing:
            highest, lowest = self._missing[0], self._missing[-1]
            page = PageRequest("below", highest + 1)  # with the next lower one, that is there
            if below_is_empty:
                page = PageRequest("above", lowest - 1)
            words, limit = self.board.ALL_POSTS, min(self._sizes.take(), highest - lowest + 2)
            yield self._recheck_request(self.parse_missing, words, page, limit)
            return
        while self._to_recheck:
            query = self._to_recheck[0]
            self._recheck = self._recheck or self._begin_recheck(query)
            page_again = self._recheck.next_request() if self._recheck else None
            if page_again is not None:
                limit = self._sizes.take()
                yield self._recheck_request(self.parse_recheck, query, page_again, limit)
                return
            self._recheck = None
            self._to_recheck.pop(0)
        yield from self._first_page()

    def _begin_recheck(self, query: str) -> Recheck | None:
        found = self.ledger.recheckable(self.site.board, query, recheck_days=self.recheck_days)
        if found is None:
            return None
        posts = max(found.posts * self.recheck_frac * found.days, MIN_RECHECKED_POSTS)
        return Recheck.begin(
            newest=found.newest,
            last=found.last,
            recent=found.recent if self.recheck_days else found.newest,
            mark=found.mark,
            pages=math.ceil(posts / self.site.page_size) if self.recheck_frac else 0,
        )

    def _compare(self, posts: Iterable[Post], query: str) -> list[Outcome]:
        """Compares posts that were read again with the ledger; returns those to be settled."""
        low, high = self._cursor.low, self._cursor.high
        new = range(0)  # of a search that is not crawled any more none is added
        if query == self.query and low is not None and high is not None:
            new = range(low, high + 1)
        made = self.ledger.compare(
            self.site.board,
            query,
            posts=[post for post in posts if post.post_id >= self._bottom],
            new=new,
        )
        self._taken += made.new
        for name in ("known", "changed", "new"):
            self._count(f"recheck/{name}", getattr(made, name))
        return [Outcome(post, query) for post in made.to_settle]

    def _move_on(self) -> None:
        """Moves below a page once it is known what became of all its posts."""
        if not self._missing and (way := self._recheck) is not None:
            self._recheck = now_at = way.after(self._bottom)
            if way.is_walking:
                is_share = now_at.next_request() is None
                query = self._to_recheck[0]
                self.ledger.move_mark(self.site.board, query, now_at.edge, is_share=is_share)

    def _recheck_request(self, parse: Any, query: str, page: PageRequest, limit: int) -> Request:
        self._count("recheck/requests")
        url = self._page_url(query, page, limit)
        return self._request(url, parse, query=query, page=page, limit=limit)

    def _unsettled_request(self, query: str, edge: int) -> Request:
        page, limit = PageRequest("below", edge), self._sizes.take()
        url = self._page_url(query, page, limit)
        return self._request(url, self.parse_unsettled, query=query, page=page, limit=limit)

    def _first_page(self) -> Iterator[Request]:
        """Requests the number of posts if this is the first crawl of the search, then continues."""
        url = self.board.count_url(self.site, self.query)
        if url and self._cursor.high is None:
            yield self._request(url, self.parse_count)
        else:
            yield from self._next_page()

    def _next_page(self) -> Iterator[Request]:
        page, least = self._cursor.next_request(caught_up=self._caught_up), 1
        if (
            page is not None
            and page.side == "below"
            and self._empty_answers
            and page.edge not in self._reader.spoilers
        ):
            # The lowest post seen must come again: an empty answer is faulty, and one with nothing
            # else is the end.
            page, least = PageRequest("below", page.edge + 1), 2
        remaining = self.limit - self._taken if self.limit else self.site.page_size
        if page is None or remaining <= 0 or self.stopping:
            return
        # Never a page of one, but to find what spoils a page: its order could not be checked.
        limit = max(least, min(self._sizes.take(), max(2, remaining)))
        url = self._page_url(self.query, page, limit)
        yield self._request(url, self.parse_page, query=self.query, page=page, limit=limit)

    def _page_url(self, query: str, page: PageRequest, limit: int) -> str:
        return self.board.page_url(self.site, query, page, limit=limit)

    def _request(self, url: str, callback: Any, **arguments: Any) -> Request:
        return Request(
            self._with_credentials(url),
            callback=callback,
            errback=self.page_failed,
            cb_kwargs=arguments,
            dont_filter=True,
            # Every status comes to parse_page, which knows what it means.
            meta={
                "kind": "api",
                "download_slot": "api",
                "download_maxsize": MAX_RESPONSE_BYTES,
                "shown_url": url,
                "handle_httpstatus_list": [*range(400, 600)],
            },
        )

    def _with_credentials(self, url: str) -> str:
        values = {
            parameter: os.environ.get(variable, "")
            for parameter, variable in self.site.credentials.items()
        }
        if not values or not all(values.values()):
            return url
        return f"{url}&{urlencode(values)}"


class DanbooruSpider(BoardSpider):
    """Crawls a site of the Danbooru family: scrapy crawl danbooru -a site=…"""

    name = "danbooru"
    family = "danbooru"


class MoebooruSpider(BoardSpider):
    """Crawls a site of the Moebooru family: scrapy crawl moebooru -a site=…"""

    name = "moebooru"
    family = "moebooru"


class GelbooruSpider(BoardSpider):
    """Crawls a site of the Gelbooru family: scrapy crawl gelbooru02 -a site=…"""

    name = "gelbooru02"
    family = "gelbooru02"
