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

from crawlers.component import CrawlPart
from crawlers.middlewares import HostNotAllowed, Stopping
from crawlers.post import STOPPING, Post, Verdict
from crawlers.rate_limit import backoff_s
from crawlers.responses import PASSING, BrokenAnswer, TooLarge
from crawlers.retry import BROKEN_LINE
from dataset.errors import OmokageError
from dataset.media import MAX_BYTES, Media, MediaRefused, check_media, has_blob
from dataset.memory import give_back_large_blocks
from dataset.store import blob_path

BODIES_BYTES = 64_000_000  # what all pictures that are fetched beside each other may hold

GONE = frozenset({404, 410, 451})
# A fault of a minute (a page of the host's caretaker, another picture out of a broken cache) often
# comes twice; the same three times, with waits between, is what the board has.
ALIKE = 3
LOOKS = 5  # in one crawl


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What one answer about a picture says: it is `media`, refused, or not to be had now.

    doubtful: another answer may say otherwise; told_by: what is the same in an answer that comes
    again (None: this one is never believed, however often it comes); of_body: it is about the
    bytes that came, and so about the md5 of this one post.
    """

    media: Media | None = None
    reason: str | None = None
    put_off: str | None = None
    doubtful: bool = False
    told_by: str | None = None
    of_body: bool = False


class Belief:
    """The answers about one picture in this crawl, each told by what is the same in it."""

    def __init__(self) -> None:
        self.looks = 0
        self._seen: Counter[str] = Counter()

    def believes(self, answer: str | None) -> bool:
        """Tells whether this answer has come often enough; None is never believed."""
        self.looks += 1
        if answer is None:
            return False
        self._seen[answer] += 1
        return self._seen[answer] >= ALIKE

    @property
    def is_spent(self) -> bool:
        """Whether it has been asked often enough for this crawl."""
        return self.looks >= LOOKS


class BlobInfo(FileInfo):
    """What Scrapy remembers of a download: our last look at it."""

    look: Look


class BlobsPipeline(CrawlPart, FilesPipeline):
    """Scrapy's files pipeline with our store, our names and our gate.

    Scrapy's own store is not atomic, names files by address and fetches them again after 90 days.
    """

    def __init__(self, crawler: Crawler) -> None:
        CrawlPart.__init__(self, crawler)
        MediaPipeline.__init__(self, crawler=crawler)

    def open_spider(self, spider: Any = None) -> None:
        """Makes as many places as pictures may be fetched at once, and bounds what they hold."""
        super().open_spider()
        # Scrapy remembers every download of a crawl: a crawl of millions would fill the memory.
        self.spiderinfo.downloaded = LocalCache(limit=1_000)
        give_back_large_blocks()
        at_once = self.spider.site.media_at_once
        self._places = asyncio.Semaphore(at_once)
        self._alone = asyncio.Lock()
        self._body_bytes = min(MAX_BYTES, BODIES_BYTES // at_once)
        # The media host's own interval stands between two looks, too.
        self._first_wait_s = self._crawler.settings.getfloat("FIRST_WAIT_S") / 4

    async def process_item(self, item: Any, spider: Any = None) -> Any:
        """Fetches the picture of a post, so many at once as the site allows.

        Requests beyond that would queue behind the middlewares, where neither a stop nor a wait
        that the board asks for could hold them back.
        """
        if item.reason is not None:
            return item
        async with self._places:
            item = await super().process_item(item)
        if item.reason != "too_large" or self._body_bytes == MAX_BYTES:
            return item
        # Too large to be held beside others, perhaps not by itself: the large ones go one by one.
        item.reason, item.alone = None, True
        async with self._alone:
            (request,) = self.get_media_requests(item, self.spiderinfo)
            fingerprint = self._crawler.request_fingerprinter.fingerprint(request)
            self.spiderinfo.downloaded.pop(fingerprint, None)  # it was too large only for then
            return await super().process_item(item)

    def get_media_requests(self, item: Verdict, info: MediaPipeline.SpiderInfo) -> list[Request]:
        """Returns the request for the picture of a post; none for an address that is no address."""
        assert item.post.file_url is not None  # the policy refuses a post without one
        meta = {
            "kind": "media",
            "download_slot": "media",
            "download_maxsize": MAX_BYTES if item.alone else self._body_bytes,
        }
        # A picture is compressed already, and its size then says what has to be held.
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
            return _info(request, item.post, Look(media=known, of_body=True), status="uptodate")
        return _info(request, item.post, await self._fetch(request, item.post), status="downloaded")

    def item_completed(
        self, results: list[FileInfoOrError], item: Any, info: MediaPipeline.SpiderInfo
    ) -> Any:
        """Writes what became of the download onto the verdict."""
        for _succeeded, result in results:
            if isinstance(result, Failure):
                result.raiseException()
            look: Look = result["look"]  # type: ignore[typeddict-item]
            if result["checksum"] in (None, item.post.md5):
                item.media, item.reason, item.put_off = look.media, look.reason, look.put_off
            elif look.media is not None:
                item.reason = "wrong_md5"  # two posts, one address, two md5s
            else:
                item.put_off = "another post has its address and another md5"
        return item

    async def _fetch(self, request: Request, post: Post) -> Look:
        """Asks for a picture until there is an answer that can be believed, or for long enough."""
        belief = Belief()
        while True:
            look = await self._look(request.copy(), post)
            if not look.doubtful or belief.believes(look.told_by):
                return look
            if belief.is_spent:
                why = look.put_off or f"{look.reason}, and not the same each time"
                return Look(put_off=why, of_body=look.of_body)
            self.stats.inc_value("omokage/asked_again")
            await self.spider.pause(backoff_s(belief.looks, first_s=self._first_wait_s))

    async def _look(self, request: Request, post: Post) -> Look:
        """Asks for a picture once (errors that pass are waited out on the way) and judges it."""
        engine = self._crawler.engine
        assert engine is not None
        try:
            response = await engine.download_async(request)
        except Stopping:
            return Look(put_off=STOPPING)
        except HostNotAllowed as error:
            ours = self.spider.site.allows(request.url)  # then it is a redirect that leads away
            return Look(reason="host", doubtful=ours, told_by=str(error))
        except (DownloadCancelledError, TooLarge):
            # Too large beside others is no verdict yet: it is asked for again, alone.
            last = request.meta["download_maxsize"] == MAX_BYTES
            return Look(reason="too_large", doubtful=last, told_by="too_large")
        except BrokenAnswer as error:
            return Look(put_off=str(error), doubtful=True)
        except IgnoreRequest:
            return Look(reason="robots")
        except BROKEN_LINE as error:
            return Look(put_off=str(error) or type(error).__name__)
        if response.status != 200:
            return _judge_status(response.status)
        return await self._judge_body(response, post)

    async def _judge_body(self, response: Response, post: Post) -> Look:
        """Checks and stores what came, in a thread: decoding would hold up the reactor."""
        try:
            return await asyncio.to_thread(self._store_blob, response.body, post)
        except OmokageError as error:  # the store is full or read-only
            self.spider.stop(error)
            return Look(put_off=STOPPING)

    def _store_blob(self, content: bytes, post: Post) -> Look:
        assert post.md5 is not None
        try:
            media = check_media(content, md5=post.md5, ext=post.ext)
        except MediaRefused as refused:
            return _judge_refused(content, refused, post.md5)
        if not has_blob(self.spider.store, media):  # or it is cut short: written anew
            self.spider.store.write_bytes(blob_path(media.sha256, media.ext), content)
        return Look(media=media, of_body=True)


def _judge_status(status: int) -> Look:
    if status in PASSING:  # it has been asked for often enough
        return Look(put_off=f"status {status}")
    if status in GONE:
        return Look(reason="gone")
    return Look(reason=f"status_{status}", doubtful=True, told_by=str(status))


def _judge_refused(content: bytes, refused: MediaRefused, md5: str) -> Look:
    """Tells whether a refused file is what the board has, or only what came this time.

    With the board's md5 it is what the board has. Without, it may be: if it is a whole picture, of
    the same bytes each time. A page of HTML or half a picture never is, however often it comes.
    """
    found_md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found_md5 == md5:
        return Look(reason=refused.reason, of_body=True)
    try:
        other = check_media(content, md5=found_md5, ext=None)
    except MediaRefused as worse:
        return Look(put_off=f"not its picture came but {worse}", doubtful=True, of_body=True)
    return Look(reason="wrong_md5", doubtful=True, told_by=other.sha256, of_body=True)


def _info(request: Request, post: Post, look: Look, *, status: str) -> BlobInfo:
    path = blob_path(look.media.sha256, look.media.ext) if look.media else ""
    checksum = post.md5 if look.of_body else None
    return BlobInfo(url=request.url, path=path, checksum=checksum, status=status, look=look)
