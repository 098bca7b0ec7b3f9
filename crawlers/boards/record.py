"""Reads the fields of a board's record; a field of the wrong kind is an error that names it."""

import datetime as dt
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.parsers import expat

from crawlers.sites import Site
from dataset.errors import CrawlError
from dataset.importers.records import Fields, whole_number

MAX_DEPTH = 8  # posts, post, field; and some margin


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


class Record(Fields):
    """One post's record, read field by field; every fault names the site, the post, the field.

    signs: fields of a post, one of which at least must be there: tags, too, have an id.
    """

    def __init__(self, site: Site, values: Any, *, signs: Collection[str]) -> None:
        if not isinstance(values, Mapping):
            raise CrawlError(f"{site.name}: a post is {_shown(values)}, a JSON object wanted")
        super().__init__(values)
        self._site = site
        self.post_id = self._post_id()
        if values.keys().isdisjoint(signs):
            raise CrawlError(
                f"{site.name}: record {self.post_id} has none of {', '.join(sorted(signs))}: it "
                "is no post"
            )

    def name(self, key: str) -> str | None:
        """Returns a plain name or path, also a number; None where absent, or where it is more."""
        value = self.values.get(key)
        text = str(value) if isinstance(value, str | int) else ""
        plain = re.fullmatch(r"[0-9A-Za-z_-]+([./][0-9A-Za-z_-]+)*", text)
        return text if plain else None

    def tags(self, key: str) -> tuple[str, ...]:
        """Returns the tags of a text with blanks between them, sorted and without doubles."""
        return tuple(sorted(set((self.text(key) or "").split())))

    def url(self, key: str) -> str | None:
        """Returns an absolute https or http address; None where the board withholds it."""
        value = self.text(key)
        if value is None:
            return None
        if value.startswith("//"):
            value = f"https:{value}"
        try:
            scheme = urlsplit(value).scheme
        except ValueError:  # as of http://[
            scheme = ""
        if scheme not in ("https", "http"):
            raise self.fault(key, "an address")
        return value

    def iso_time(self, key: str) -> dt.datetime | None:
        """Returns a moment written as ISO 8601, in UTC; without a zone, it is UTC already."""
        value = self.text(key)
        if value is None:
            return None
        try:
            moment = dt.datetime.fromisoformat(value)
            return moment.replace(tzinfo=moment.tzinfo or dt.UTC).astimezone(dt.UTC)
        except (ValueError, OverflowError) as error:
            raise self.fault(key, "a time as in ISO 8601") from error

    def unix_time(self, key: str) -> dt.datetime | None:
        """Returns a moment written as seconds since 1970, in UTC."""
        value = self.integer(key, greatest=10**12)
        if value is None:
            return None
        try:
            return dt.datetime.fromtimestamp(value, dt.UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise self.fault(key, "seconds since 1970") from error

    def rating(self, key: str, meanings: Mapping[str, str]) -> str:
        """Returns the rating spelt out; a word that is not known counts as explicit."""
        word = (self.text(key) or "").lower()
        meaning = meanings.get(word, "explicit")
        if meaning == "general" and word not in self._site.safe_ratings:
            return "sensitive"
        return meaning

    def _post_id(self) -> int:
        value = self.values.get("id")
        number = whole_number(value)
        if number is None or not 0 < number < 10**18:
            raise CrawlError(
                f"{self._site.name}: the id of a post is {_shown(value)}, a number wanted"
            )
        return number

    def fault(self, key: str, wanted: str) -> CrawlError:
        """Returns the error of a field, with site, post, and what the field should be."""
        value = _shown(self.values.get(key))
        return CrawlError(
            f"{self._site.name}, post {self.post_id}: {key} is {value}, {wanted} wanted"
        )


def ext_of(url: str | None) -> str | None:
    """Returns the extension of the file an address names, in small letters, without the dot."""
    try:
        path = urlsplit(url or "").path
    except ValueError:  # as of http://[
        return None
    name = unquote(path).rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else None


def now() -> dt.datetime:
    """Returns this moment in UTC, to the second."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}…"


def records_of(body: bytes, site: Site) -> list[Any]:
    """Returns the records of an answer: a bare list, one under `post`, a single record, or XML.

    Raises CrawlError, with the board's own words if it has any, for an answer that has none.
    """
    if is_markup(body):
        return list(read_markup(body, site))
    answer = load_json(body, site)
    if isinstance(answer, list):
        return answer
    if isinstance(answer, dict):
        if "post" in answer:
            rows = answer["post"]
            return rows if isinstance(rows, list) else [rows]
        if "id" in answer:
            return [answer]
        if answer.keys() == {"@attributes"}:  # gelbooru.com leaves `post` out where it finds none
            return []
        said = answer.get("message") or answer.get("reason") or answer.get("error")
        if isinstance(said, str):
            raise CrawlError(f'{site.name} answers with no posts and says "{said[:160]}"')
    raise CrawlError(
        f"{site.name}: the answer is no list of posts but {type(answer).__name__}"
        + (f" of {', '.join(list(answer)[:5])}" if isinstance(answer, dict) else "")
    )


def load_json(body: bytes, site: Site) -> Any:
    """Reads an answer as JSON; raises CrawlError if it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CrawlError(f"{site.name}: the answer is not JSON: {error}") from error
