"""Reads a page record by record: one that cannot be used is set apart, the others are posts."""

import datetime as dt
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from xml.parsers import expat

from crawlers.post import BadRecord, Page, Post
from crawlers.sites import Site
from dataset.errors import CrawlError
from dataset.importers.records import Fields, whole_number

MAX_RECORDS = 10_000  # of a page; boards give at most 1,000
MAX_DEPTH = 8  # posts, post, field; and some margin
STATUSES = ("active", "pending", "flagged", "deleted")
_CONTROLS = bytes([*range(0x20), 0x7F])
_NO_CONTROLS = bytes(set(range(256)) - set(_CONTROLS))

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class BrokenPage(CrawlError):
    """A page of posts was begun, but it cannot be read to its end: a smaller one may be."""


class RecordError(CrawlError):
    """A record that cannot be used: the field that is to blame, what is there, what is expected."""


def read_page(
    body: bytes, site: Site, post_of: Callable[["Record"], Post], *, signs: Collection[str]
) -> Page:
    """Returns the posts of an answer, and its records that are none or have a bad field.

    signs: fields of a post, one of which at least must be there: tags, too, have an id.

    Raises BrokenPage for JSON that breaks off, CrawlError for an answer that is no page of posts.
    """
    page = Page([], [])
    rows = records_of(body, site)
    if len(rows) > MAX_RECORDS:  # each would be an object here, whatever it is: memory
        raise CrawlError(
            f"{site.name}: the answer has {len(rows):,} records, at most {MAX_RECORDS:,} wanted"
        )
    for row in rows:
        try:
            page.posts.append(post_of(Record(site, row, signs=signs)))
        except RecordError as error:
            page.bad.append(BadRecord(_post_id(row), str(error), _raw(row)))
    if rows and not any(isinstance(row, Mapping) and row.keys() & set(signs) for row in rows):
        raise CrawlError(f"{site.name}: {page.bad[0].reason}")
    return page


def is_markup(body: bytes) -> bool:
    """Tells whether an answer is XML about something; a page of HTML is not."""
    return body.lstrip()[:6].lower().startswith((b"<?xml", b"<posts", b"<tags"))


def read_markup(body: bytes, site: Site) -> Iterator[dict[str, str | None]]:
    """Yields the fields of every post, by the names that JSON has for them.

    Letters that no XML has become U+FFFD, which `Record.text` sees. Raises BrokenPage for XML that
    is broken, CrawlError where it has a DTD (so no entity is ever expanded) or another subject.
    """
    reader = _Reader(site)
    try:
        reader.read(body)
    except expat.ExpatError:
        reader = _Reader(site)
        text = _NOT_XML.sub("\ufffd", body.decode("utf-8", "replace"))
        try:
            reader.read(text.encode(), encoding="utf-8")
        except expat.ExpatError as error:
            raise BrokenPage(f"{site.name}: the answer is broken XML: {error}") from error
    yield from reader.records


class _Reader:
    """Collects the `post` elements of one document."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path: list[str] = []
        self._text: list[str] = []
        self.records: list[dict[str, str | None]] = []

    def read(self, body: bytes, *, encoding: str | None = None) -> None:
        parser = expat.ParserCreate(encoding)
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
    """One post's record, read field by field; raises RecordError where one cannot be used."""

    def __init__(self, site: Site, values: Any, *, signs: Collection[str]) -> None:
        if not isinstance(values, Mapping):
            raise RecordError(f"a post is {_shown(values)}, a JSON object wanted")
        super().__init__(values)
        self._site = site
        found = _post_id(values)
        if found is None:
            raise RecordError(f"the id of a post is {_shown(values.get('id'))}, a number wanted")
        self.post_id = found
        if values.keys().isdisjoint(signs):
            raise RecordError(
                f"record {found} has none of {', '.join(sorted(signs))}: it is no post"
            )

    def or_none(self, read: Callable[[str], Any], key: str) -> Any:
        """Returns what `read` makes of a field that decides nothing, None where it is odd."""
        try:
            return read(key)
        except RecordError:
            return None

    def text(self, key: str) -> str | None:
        """Returns a text; one that is damaged is no text."""
        value = super().text(key)
        if value is None:
            return None
        if _is_damaged(self.values[key]):
            raise self.fault(key, "text without control characters or broken letters")
        return value

    def status(self) -> str:
        """Returns the state of a post; an absent one is active, an unknown one is an error."""
        word = self.text("status") or "active"
        if word not in STATUSES:
            raise self.fault("status", f"one of {', '.join(STATUSES)}")
        return word

    def name(self, key: str) -> str | None:
        """Returns a plain name or path, also a number; None where absent, or where it is more."""
        value = self.values.get(key)
        text = str(value) if isinstance(value, str | int) else ""
        plain = re.fullmatch(r"[0-9A-Za-z_-]+([./][0-9A-Za-z_-]+)*", text)
        return text if plain else None

    def tags(self, key: str, *, required: bool = False) -> tuple[str, ...]:
        """Returns the tags of a text with blanks between them, sorted and without doubles."""
        if required and self.values.get(key) is None:
            raise self.fault(key, "text")
        return tuple(sorted(set((self.text(key) or "").split())))

    def url(self, key: str) -> str | None:
        """Returns an absolute https or http address; None where the board withholds it.

        A path (/data/original/x.png) or //host/path is taken for one beside the site's API.
        """
        value = self.text(key)
        if value is None:
            return None
        try:
            value = urljoin(self._site.api, value) if value.startswith("/") else value
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

    def fault(self, key: str, wanted: str) -> RecordError:
        """Returns the error of a field, with what the field should be."""
        return RecordError(f"{key} is {_shown(self.values.get(key))}, {wanted} wanted")


def _post_id(row: Any) -> int | None:
    number = whole_number(row.get("id")) if isinstance(row, Mapping) else None
    return number if number is not None and 0 < number < 10**18 else None


def _raw(row: Any) -> str:
    """Returns a record as JSON, as far as it can be written."""
    try:
        return json.dumps(row, ensure_ascii=False)
    except RecursionError:
        return _shown(row)


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
    if said := board_words(body):
        raise CrawlError(f'{site.name} answers with no posts and says "{said}"')
    raise CrawlError(
        f"{site.name}: the answer is no list of posts but {type(answer).__name__}"
        + (f" of {', '.join(list(answer)[:5])}" if isinstance(answer, dict) else "")
    )


def load_json(body: bytes, site: Site) -> Any:
    """Reads an answer as JSON, also with raw control characters, cut letters and endless numbers.

    Whatever is damaged by them is damaged in the record, too, which `Record.text` sees. Raises
    BrokenPage for JSON that breaks off, CrawlError for what is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(body.decode("utf-8-sig", "replace"), strict=False, parse_int=_number)
    except (ValueError, RecursionError) as error:
        kind = BrokenPage if body.lstrip()[:1] in (b"[", b"{") else CrawlError
        raise kind(f"{site.name}: the answer is not JSON: {error}") from error


# Not after a second brace: an object inside the record has an id of its own.
_FIRST_ID = re.compile(
    rb'\A\s*(?:\{[^\[]*"post"\s*:\s*)?\[?\s*\{[^{}]*?"id"\s*:\s*"?([0-9]{1,18})\b'
)


def spoiler_of(body: bytes, error: BrokenPage) -> BadRecord | None:
    """Returns the post that breaks a page on which it is alone, None if its id is not known."""
    found = _FIRST_ID.match(body)
    post_id = int(found[1]) if found else 0
    return BadRecord(post_id, str(error), body.decode("utf-8", "replace")) if post_id else None


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) < 100 else digits


MAX_WORDS_BYTES = 20_000  # no refusal is longer, but for a page of HTML
_BLOCKING = re.compile(
    rb"captcha|access denied|attention required|you have been blocked|unusual traffic"
    rb"|verify you are human|checking your browser|cf-chl|challenge-platform|ddos-guard",
    re.IGNORECASE,
)
_TITLE = re.compile(rb"<title[^>]*>([^<]+)", re.IGNORECASE)


def _is_damaged(text: str) -> bool:
    """Tells whether a text has control characters, a letter that was cut, or half a surrogate pair.

    An excluded tag may hide there.
    """
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return True
    return bool(encoded.translate(None, _NO_CONTROLS)) or b"\xef\xbf\xbd" in encoded


def board_words(body: bytes) -> str:
    """Returns the words of an answer that is a refusal, at most 160 letters in one line; else "".

    A refusal is a JSON text, an object with message, reason or error, XML of an error or response,
    plain words, or a page of HTML that asks for proof of a human being or says that we are blocked.
    """
    start = body[:MAX_WORDS_BYTES].lstrip()
    if start[:9].lower().startswith((b"<!doctype", b"<html")):
        title = _TITLE.search(start)
        said = title[1].decode("utf-8", "replace") if title else "blocked"
        said = said if _BLOCKING.search(start) else ""
    elif len(body) > MAX_WORDS_BYTES:
        said = ""
    elif start.startswith(b"<"):
        said = _markup_words(body)
    else:
        said = _plain_words(body)
    said = "".join(letter if letter.isprintable() else " " for letter in said[:10_000])
    return " ".join(said.split())[:160].rstrip()


def _plain_words(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace").strip()
        return text if re.fullmatch(r"\w[^<>{}\[\]\\]*\s[^<>{}\[\]\\]*", text) else ""
    if isinstance(answer, str):
        return answer
    if not isinstance(answer, dict):
        return ""
    said = answer.get("message") or answer.get("reason") or answer.get("error")
    if isinstance(said, Mapping):  # {"error": {"message": …}}
        said = said.get("message")
    if isinstance(said, str) and said:
        return said
    return "success: false" if answer.get("success") is False else ""


def _markup_words(body: bytes) -> str:
    """Returns texts and reasons of XML whose root is error or response; "" for any other."""
    words: list[str] = []
    roots: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        roots.append(name)
        words.extend(attributes.get(key, "") for key in ("reason", "message", "error"))

    def declared(*_doctype: Any) -> None:
        raise ValueError("XML with a DTD, which no board sends")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = declared
    parser.StartElementHandler = start
    parser.CharacterDataHandler = words.append
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError):
        return ""
    return " ".join(words) if roots[0] in ("error", "errors", "response") else ""
