"""Downloads pictures, checks them, and stores them under the sha256 of their bytes."""

import asyncio
from typing import Any, NoReturn, Self

from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response
from scrapy.http.request import NO_CALLBACK
from scrapy.pipelines.files import FilesPipeline
from scrapy.pipelines.media import FileInfo, FileInfoOrError, MediaPipeline
from scrapy.utils.datatypes import LocalCache
from twisted.python.failure import Failure

from crawlers.answers import PASSING, is_too_large
from crawlers.middlewares.hosts import HostNotAllowed
from crawlers.middlewares.patience import BROKEN_LINE
from crawlers.middlewares.stop import Stopping
from crawlers.spiders.board import BoardSpider
from crawlers.verdict import STOPPING, Verdict
from dataset.blobs import blob_path
from dataset.errors import OmokageError
from dataset.media import MAX_BYTES, Media, MediaRefused, check_media, has_blob
from dataset.memory import give_back_large_blocks

BODIES_BYTES = 64_000_000  # what all pictures that are fetched beside each other may hold


class BlobInfo(FileInfo):
    """What became of a download: a picture, or the reason why it is none."""

    media: Media | None
    reason: str | None


class FetchError(Exception):
    """The picture could not be fetched this time; the next crawl tries again."""


class BlobsPipeline(FilesPipeline):
    """Scrapy's files pipeline with our store, our names and our gate.

    Scrapy's own store is not atomic, names files by address and fetches them again after 90 days.
    """

    def __init__(self, crawler: Crawler) -> None:
        MediaPipeline.__init__(self, crawler=crawler)
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Makes the pipeline."""
        return cls(crawler)

    def open_spider(self, spider: Any = None) -> None:
        """Makes as many places as pictures may be fetched at once, and bounds what they hold."""
        super().open_spider()
        # Scrapy remembers every download of a crawl: a crawl of millions would fill the memory.
        self.spiderinfo.downloaded = LocalCache(limit=1_000)
        give_back_large_blocks()
        at_once = self._spider.site.media_at_once
        self._places = asyncio.Semaphore(at_once)
        self._alone = asyncio.Lock()
        self._body_bytes = min(MAX_BYTES, BODIES_BYTES // at_once)

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
        """Returns the request for the picture of a post."""
        assert item.post.file_url is not None  # the policy refuses a post without one
        meta = {
            "kind": "media",
            "download_slot": "media",
            "download_maxsize": MAX_BYTES if item.alone else self._body_bytes,
        }
        # A picture is compressed already, and its size then says what has to be held.
        plain = {"Accept-Encoding": "identity"}
        return [Request(item.post.file_url, headers=plain, callback=NO_CALLBACK, meta=meta)]

    def media_to_download(
        self, request: Request, info: MediaPipeline.SpiderInfo, *, item: Any = None
    ) -> Any:
        """Returns the blob of a picture that some board's post has brought already."""
        known = self._spider.ledger.blob_of(item.post.md5)
        if known is None or not has_blob(self._spider.store, known):
            return None
        return _kept(request.url, item.post.md5, known, status="uptodate")

    async def media_downloaded(
        self,
        response: Response,
        request: Request,
        info: MediaPipeline.SpiderInfo,
        *,
        item: Any = None,
    ) -> FileInfo:
        """Checks and stores what came, in a thread: decoding would hold up the reactor."""
        if response.status in PASSING:
            raise FetchError(f"status {response.status}")
        if response.status != 200:
            gone = response.status in (404, 410, 451)
            return _refused(request.url, "gone" if gone else f"status_{response.status}")
        try:
            media = await asyncio.to_thread(self._store_blob, response.body, item)
        except MediaRefused as refused:
            return _refused(request.url, refused.reason, checksum=item.post.md5)
        except OmokageError as error:  # the store is full or read-only
            self._spider.stop(error)
            raise Stopping(str(error)) from error
        return _kept(request.url, item.post.md5, media, status="downloaded")

    def media_failed(
        self, failure: Failure, request: Request, info: MediaPipeline.SpiderInfo
    ) -> NoReturn:
        """Hands the failure on to `item_completed`."""
        failure.raiseException()

    def item_completed(
        self, results: list[FileInfoOrError], item: Any, info: MediaPipeline.SpiderInfo
    ) -> Any:
        """Writes what became of the download onto the verdict."""
        for _succeeded, result in results:
            if isinstance(result, Failure):
                _judge_failure(item, result)
            elif result["checksum"] not in (None, item.post.md5):
                item.reason = "wrong_md5"  # two posts, one address, two md5s
            else:
                item.media, item.reason = result["media"], result["reason"]  # type: ignore[typeddict-item]
        return item

    def _store_blob(self, content: bytes, item: Verdict) -> Media:
        assert item.post.md5 is not None
        media = check_media(content, md5=item.post.md5, ext=item.post.ext)
        if not has_blob(self._spider.store, media):  # or it is cut short: written anew
            self._spider.store.write_bytes(blob_path(media.sha256, media.ext), content)
        return media

    @property
    def _spider(self) -> BoardSpider:
        spider = self._crawler.spider
        assert isinstance(spider, BoardSpider)
        return spider


def _judge_failure(item: Verdict, failure: Failure) -> None:
    error = failure.value
    if isinstance(error, Stopping):
        item.put_off = STOPPING
    elif isinstance(error, HostNotAllowed):
        item.reason = "host"
    elif is_too_large(error):
        item.reason = "too_large"
    elif isinstance(error, IgnoreRequest):
        item.reason = "robots"
    elif isinstance(error, (FetchError, *BROKEN_LINE)):
        item.put_off = str(error) or type(error).__name__
    else:
        failure.raiseException()


def _kept(url: str, md5: str, media: Media, *, status: str) -> BlobInfo:
    path = blob_path(media.sha256, media.ext)
    return BlobInfo(url=url, path=path, checksum=md5, status=status, media=media, reason=None)


def _refused(url: str, reason: str, *, checksum: str | None = None) -> BlobInfo:
    return BlobInfo(
        url=url, path="", checksum=checksum, status="refused", media=None, reason=reason
    )
