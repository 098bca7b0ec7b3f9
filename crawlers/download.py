"""Downloads pictures, checks them, and stores them under the sha256 of their bytes."""

import asyncio
import dataclasses
import hashlib
from collections import Counter
from typing import Any

from scrapy.crawler import Crawler
from scrapy.exceptions import DownloadCancelledError, IgnoreRequest
from scrapy.http import Request, Response
from scrapy.http.request import NO_CALLBACK
from scrapy.pipelines.files import FilesPipeline
from scrapy.pipelines.media import FileInfo, FileInfoOrError, MediaPipeline
from scrapy.utils.datatypes import LocalCache
from twisted.python.failure import Failure

from crawlers.extensions import CrawlComponent
from crawlers.middlewares import HostNotAllowed, Stopping
from crawlers.post import STOPPING, Outcome, Post
from crawlers.rate_limit import backoff_s
from crawlers.responses import TRANSIENT, TooLarge, UnusableResponse
from crawlers.retry import CONNECTION_ERRORS
from dataset.errors import OmokageError
from dataset.media import (
    MAX_BYTES,
    Media,
    MediaRefused,
    check_media,
    give_back_large_blocks,
    has_blob,
)
from dataset.store import blob_path

BODIES_BYTES = 64_000_000  # of all pictures that are downloaded at the same time

GONE = frozenset({404, 410, 451})
# A short fault (a maintenance page, another picture out of a broken cache) often comes twice; the
# same response three times, with waits between, is what the board has.
QUORUM = 3  # equal responses
MAX_RESPONSES = 5  # in one crawl


@dataclasses.dataclass(frozen=True, slots=True)
class FetchResult:
    """What one response about a picture means: it is `media`, refused, or `deferred`.

    doubtful: another response may differ; quorum_key: what is the same in a response that comes
    again (None: never accepted, however often it comes); depends_on_body: it is about the bytes
    that came, and so about the md5 of this one post.
    """

    media: Media | None = None
    reason: str | None = None
    deferred: str | None = None
    doubtful: bool = False
    quorum_key: str | None = None
    depends_on_body: bool = False


class ResponseQuorum:
    """Accepts a doubtful response once it has come QUORUM times, identified by its key."""

    def __init__(self) -> None:
        self.responses = 0
        self._counts: Counter[str] = Counter()

    def accepts(self, key: str | None) -> bool:
        """Counts a response; tells whether it has come often enough. None never has."""
        self.responses += 1
        if key is None:
            return False
        self._counts[key] += 1
        return self._counts[key] >= QUORUM

    @property
    def is_exhausted(self) -> bool:
        """Whether MAX_RESPONSES of this crawl are used up."""
        return self.responses >= MAX_RESPONSES


class BlobInfo(FileInfo):
    """What Scrapy remembers of a download: the result of our last request."""

    result: FetchResult


class BlobsPipeline(CrawlComponent, FilesPipeline):
    """Scrapy's files pipeline with our store, our names and our gate.

    Scrapy's own store is not atomic, names files by address and fetches them again after 90 days.
    """

    def __init__(self, crawler: Crawler) -> None:
        CrawlComponent.__init__(self, crawler)
        MediaPipeline.__init__(self, crawler=crawler)

    def open_spider(self, spider: Any = None) -> None:
        """Limits how many pictures are downloaded at once, and their bytes."""
        super().open_spider()
        # Scrapy remembers every download of a crawl: a crawl of millions would fill the memory.
        self.spiderinfo.downloaded = LocalCache(limit=1_000)
        give_back_large_blocks()
        at_once = self.spider.site.media_at_once
        self._slots = asyncio.Semaphore(at_once)
        self._large_file_lock = asyncio.Lock()
        self._body_bytes = min(MAX_BYTES, BODIES_BYTES // at_once)
        # The media host's own interval stands between two requests, too.
        self._first_wait_s = self._crawler.settings.getfloat("FIRST_WAIT_S") / 4

    async def process_item(self, item: Any, spider: Any = None) -> Any:
        """Fetches the picture of a post, so many at once as the site allows.

        Requests beyond that would queue behind the middlewares, where neither a stop nor a wait
        that the board asks for could delay them.
        """
        if item.reason is not None or item.deferred is not None:
            return item
        async with self._slots:
            item = await super().process_item(item)
        if item.reason != "too_large" or self._body_bytes == MAX_BYTES:
            return item
        # Too large beside others, perhaps not alone: large pictures are downloaded one by one.
        item.reason, item.is_large = None, True
        async with self._large_file_lock:
            (request,) = self.get_media_requests(item, self.spiderinfo)
            fingerprint = self._crawler.request_fingerprinter.fingerprint(request)
            self.spiderinfo.downloaded.pop(fingerprint, None)  # it was too large only for then
            return await super().process_item(item)

    def get_media_requests(self, item: Outcome, info: MediaPipeline.SpiderInfo) -> list[Request]:
        """Returns the request for the picture of a post; none for an address that is no address."""
        assert item.post.file_url is not None  # the policy refuses a post without one
        meta = {
            "kind": "media",
            "download_slot": "media",
            "download_maxsize": MAX_BYTES if item.is_large else self._body_bytes,
        }
        # A picture is compressed already, and its size then says how much memory it needs.
        plain = {"Accept-Encoding": "identity"}
        try:
            return [Request(item.post.file_url, headers=plain, callback=NO_CALLBACK, meta=meta)]
        except ValueError:  # a port beyond all ports, half an IPv6 address
            item.reason = "host"
            return []

    async def media_to_download(  # type: ignore[override]  # Scrapy awaits what it returns
        self, request: Request, info: MediaPipeline.SpiderInfo, *, item: Any = None
    ) -> FileInfo:
        """Returns the blob of a picture that some board's post has brought already, or fetches it.

        A fault of ours is raised, and counted; whatever the network does is an answer.
        """
        known = self.spider.ledger.blob_of(item.post.md5)
        if known is not None and has_blob(self.spider.store, known):
            return _info(
                request,
                item.post,
                FetchResult(media=known, depends_on_body=True),
                status="uptodate",
            )
        return _info(request, item.post, await self._fetch(request, item.post), status="downloaded")

    def item_completed(
        self, results: list[FileInfoOrError], item: Any, info: MediaPipeline.SpiderInfo
    ) -> Any:
        """Writes what became of the download onto the outcome."""
        for _succeeded, info_or_failure in results:
            if isinstance(info_or_failure, Failure):
                info_or_failure.raiseException()
            result: FetchResult = info_or_failure["result"]  # type: ignore[typeddict-item]
            if info_or_failure["checksum"] in (None, item.post.md5):
                item.media, item.reason, item.deferred = (
                    result.media,
                    result.reason,
                    result.deferred,
                )
            elif result.media is not None:
                item.reason = "wrong_md5"  # two posts, one address, two md5s
            else:
                item.deferred = "another post has its address and another md5"
        return item

    async def _fetch(self, request: Request, post: Post) -> FetchResult:
        """Requests a picture until a response is certain or has its quorum."""
        quorum = ResponseQuorum()
        while True:
            result = await self._fetch_once(request.copy(), post)
            if not result.doubtful or quorum.accepts(result.quorum_key):
                return result
            if quorum.is_exhausted:
                why = result.deferred or f"{result.reason}, and not the same each time"
                return FetchResult(deferred=why, depends_on_body=result.depends_on_body)
            self.stats.inc_value("omokage/asked_again")
            await self.spider.pause(backoff_s(quorum.responses, first_s=self._first_wait_s))

    async def _fetch_once(self, request: Request, post: Post) -> FetchResult:
        """Asks for a picture once (errors that pass are waited out on the way) and judges it."""
        engine = self._crawler.engine
        assert engine is not None
        try:
            response = await engine.download_async(request)
        except Stopping:
            return FetchResult(deferred=STOPPING)
        except HostNotAllowed as error:
            ours = self.spider.site.allows(request.url)  # then it is a redirect that leads away
            return FetchResult(reason="host", doubtful=ours, quorum_key=str(error))
        except (DownloadCancelledError, TooLarge):
            # Too large beside others is not final yet: it is downloaded again, alone.
            last = request.meta["download_maxsize"] == MAX_BYTES
            return FetchResult(reason="too_large", doubtful=last, quorum_key="too_large")
        except UnusableResponse as error:
            return FetchResult(deferred=str(error), doubtful=True)
        except IgnoreRequest:
            return FetchResult(reason="robots")
        except CONNECTION_ERRORS as error:
            return FetchResult(deferred=str(error) or type(error).__name__)
        if response.status != 200:
            return _classify_status(response.status)
        return await self._classify_body(response, post)

    async def _classify_body(self, response: Response, post: Post) -> FetchResult:
        """Checks and stores what came, in a thread: decoding would block the reactor."""
        try:
            return await asyncio.to_thread(self._store_blob, response.body, post)
        except OmokageError as error:  # the store is full or read-only
            self.spider.stop(error)
            return FetchResult(deferred=STOPPING)

    def _store_blob(self, content: bytes, post: Post) -> FetchResult:
        assert post.md5 is not None
        try:
            media = check_media(content, md5=post.md5, ext=post.ext)
        except MediaRefused as refused:
            return _classify_refused(content, refused, post.md5)
        if not has_blob(self.spider.store, media):  # or it is cut short: written anew
            self.spider.store.write_bytes(blob_path(media.sha256, media.ext), content)
        return FetchResult(media=media, depends_on_body=True)


def _classify_status(status: int) -> FetchResult:
    if status in TRANSIENT:  # it has been retried often enough
        return FetchResult(deferred=f"status {status}")
    if status in GONE:
        return FetchResult(reason="gone")
    return FetchResult(reason=f"status_{status}", doubtful=True, quorum_key=str(status))


def _classify_refused(content: bytes, refused: MediaRefused, md5: str) -> FetchResult:
    """Tells whether a refused file is what the board has, or only what came this time.

    With the board's md5 it is what the board has. Without, it may be: if it is a whole picture, of
    the same bytes each time. A page of HTML or half a picture never is, however often it comes.
    """
    found_md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found_md5 == md5:
        return FetchResult(reason=refused.reason, depends_on_body=True)
    try:
        other = check_media(content, md5=found_md5, ext=None)
    except MediaRefused as worse:
        return FetchResult(
            deferred=f"not its picture came but {worse}", doubtful=True, depends_on_body=True
        )
    return FetchResult(
        reason="wrong_md5", doubtful=True, quorum_key=other.sha256, depends_on_body=True
    )


def _info(request: Request, post: Post, result: FetchResult, *, status: str) -> BlobInfo:
    path = blob_path(result.media.sha256, result.media.ext) if result.media else ""
    checksum = post.md5 if result.depends_on_body else None
    return BlobInfo(url=request.url, path=path, checksum=checksum, status=status, result=result)
