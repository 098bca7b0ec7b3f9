"""The spiders: arguments, the way through the pages of a search, and the stop."""

import asyncio
import functools
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar, Self
from urllib.parse import urlencode

import scrapy
from scrapy.crawler import Crawler
from scrapy.exceptions import DownloadCancelledError, IgnoreRequest
from scrapy.http import Request, Response
from twisted.python.failure import Failure

from crawlers.boards import BOARDS, Board
from crawlers.boards.record import board_words, now
from crawlers.cursor import Cursor, PageRequest, PageSizes, in_order
from crawlers.ledger import Ledger
from crawlers.post import Outcome, Page, Quarantine
from crawlers.rate_limit import backoff_s
from crawlers.responses import PageReader, Unreadable, UnusableResponse, is_too_large, refusal
from crawlers.secrets import Secrets
from crawlers.settings import site_settings
from crawlers.sites import Site, board_names, board_takedowns, load_sites, site_named
from dataset.errors import CrawlError, OmokageError, UsageError
from dataset.media import has_blob
from dataset.policy import Takedowns, drop_reason
from dataset.store import Store

logger = logging.getLogger(__name__)

DEFAULT_HOME = "./var"
# A page of 200 posts has 0.6 MB. As JSON values an answer can take 24 times its size.
MAX_RESPONSE_BYTES = 8_000_000
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
    OMOKAGE_HOME, ./var); sites (a registry file of one's own); refetch_missing (yes: the blobs that
    are missing are lost, and are to be fetched again).
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
        crawler.settings.setdict(site_settings(chosen), priority="spider")
        store = Store(home or os.environ.get("OMOKAGE_HOME") or DEFAULT_HOME)
        names = board_names(load_sites(sites or None))
        spider = cls(
            site=chosen,
            store=store,
            words=tags,
            limit=int(limit),
            names=names,
            refetch_missing=refetch_missing in (True, "yes"),
        )
        spider._set_crawler(crawler)
        return spider

    async def start(self) -> AsyncIterator[Request]:
        """Asks again for what an earlier crawl left pending, then for what is new."""
        self._cursor = self.ledger.cursor(self.site.board, self.query)
        self.ledger.revisit(self.site.board)
        self._unsettled = self.ledger.pending_queries(self.site.board)
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
            elif drop_reason(post, self.takedowns) is None:
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
        self.stop(CrawlError(text))

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
        assert self.crawler.stats is not None
        added = self._quarantine.add(page.bad, moment=now())
        self.crawler.stats.inc_value("omokage/quarantined", added)

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
                self._spoilt_pages += 1
            arguments = {**arguments, "limit": self._sizes.take()}
            url, times = self._page_url(**arguments), 0
        retry_times = self.settings.getint("RETRY_TIMES")
        if times > (retry_times if most is None else min(most, retry_times)):
            self.stop(CrawlError(f"{error}. It was requested {times} times; run again later"))
            return None
        if self._spoilt_pages > MAX_SPOILT_PAGES:
            self.stop(CrawlError(f"{error}. {MAX_SPOILT_PAGES} pages before it were like that"))
            return None
        assert self.crawler.stats is not None
        self.crawler.stats.inc_value("omokage/asked_again")
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
        yield from self._first_page()

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
