"""Undoes the Content-Encoding of answers; one that cannot be undone is a broken answer."""

import struct
import zlib

from scrapy.downloadermiddlewares.httpcompression import HttpCompressionMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Request, Response
from scrapy.spiders import Spider

from crawlers.broken import TooLarge, UnreadableEncoding

ENCODINGS = ("gzip", "deflate")
_UNDONE = {*ENCODINGS, "x-gzip", "identity", ""}
_BROKEN = (OSError, EOFError, struct.error, zlib.error)  # what the decoders say of broken data


class EncodingMiddleware(HttpCompressionMiddleware):
    """Scrapy's own middleware, whose errors would else pass for faults of ours."""

    def process_request(self, request: Request, spider: Spider | None = None) -> None:
        """Says which encodings we take."""
        request.headers.setdefault("Accept-Encoding", ", ".join(ENCODINGS))

    def process_response(
        self, request: Request, response: Response, spider: Spider | None = None
    ) -> Request | Response:
        """Raises TooLarge or UnreadableEncoding."""
        said = b",".join(response.headers.getlist("Content-Encoding")).decode("latin-1")
        if not {word.strip().lower() for word in said.split(",")} <= _UNDONE:
            raise UnreadableEncoding(f"the answer is encoded as {said}, which was not asked for")
        try:
            decoded: Request | Response = super().process_response(request, response)
        except IgnoreRequest as error:  # beyond DOWNLOAD_MAXSIZE
            raise TooLarge(f"{len(response.body):,} bytes grow too large when decoded") from error
        except _BROKEN as error:
            raise UnreadableEncoding(f"the {said} of the answer is broken: {error}") from error
        return decoded
