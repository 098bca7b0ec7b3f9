"""Reads posts from XML, as boards answer without `.json` or `json=1`; entities are refused.

Danbooru writes a field as an element, Moebooru and Gelbooru as an attribute of `post`.
"""

from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from crawlers.sites import Site
from dataset.errors import CrawlError

MAX_DEPTH = 8  # posts, post, field; and some room


def is_markup(body: bytes) -> bool:
    """Tells whether an answer is XML about something; a page of HTML is not."""
    return body.lstrip()[:6].lower().startswith((b"<?xml", b"<posts", b"<tags"))


def read_markup(body: bytes, site: Site) -> Iterator[dict[str, str | None]]:
    """Yields the fields of every post, by the names that JSON has for them.

    Raises CrawlError for XML that is broken, has a DTD (so no entity is ever expanded), or is
    about something else.
    """
    reader = _Reader(site)
    try:
        reader.read(body)
    except expat.ExpatError as error:
        raise CrawlError(f"{site.name}: the answer is broken XML: {error}") from error
    yield from reader.records


class _Reader:
    """Collects the `post` elements of one document."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path: list[str] = []
        self._text: list[str] = []
        self.records: list[dict[str, str | None]] = []

    def read(self, body: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.CharacterDataHandler = self._text.append
        parser.EndElementHandler = self._end
        parser.Parse(body, True)

    def _doctype(self, *_declared: Any) -> None:
        raise CrawlError(f"{self._site.name}: the answer is XML with a DTD, which no board sends")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._path and name != "posts":
            raise CrawlError(f"{self._site.name}: the answer is XML about {name}, posts wanted")
        self._path.append(name)
        if len(self._path) > MAX_DEPTH:
            raise CrawlError(f"{self._site.name}: the answer is XML nested {MAX_DEPTH} deep")
        self._text.clear()
        if len(self._path) == 2 and name == "post":
            self.records.append({_field(key): value for key, value in attributes.items()})

    def _end(self, name: str) -> None:
        if len(self._path) == 3 and self._path[1] == "post":
            self.records[-1][_field(name)] = "".join(self._text) or None
        self._path.pop()
        self._text.clear()


def _field(name: str) -> str:
    return name.replace("-", "_")
