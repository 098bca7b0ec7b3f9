"""Reads the fields of a board's record; a field of the wrong kind is an error that names it."""

import datetime as dt
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from crawlers.sites import Site
from dataset.errors import CrawlError

_MD5 = re.compile(r"[0-9a-f]{32}")
# 1 and 0 are equal to True and False, and found as them.
_FLAGS: dict[object, bool] = {True: True, False: False, None: False, "true": True, "false": False}


class Record:
    """One post's record, read field by field; every fault names the site, the post, the field."""

    def __init__(self, site: Site, values: Any) -> None:
        if not isinstance(values, Mapping):
            raise CrawlError(f"{site.name}: a post is {_shown(values)}, a JSON object wanted")
        self._site, self._values = site, values
        self.post_id = self._post_id()

    def integer(self, key: str) -> int | None:
        """Returns a whole number, also one written as text; None where absent or null."""
        value = self._values.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not re.fullmatch(r"-?\d{1,18}", str(value)):
            raise self._fault(key, "a whole number")
        return int(value)

    def text(self, key: str) -> str | None:
        """Returns a text; None where absent, null or empty."""
        value = self._values.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise self._fault(key, "text")
        # JSON can hold half a surrogate pair, which neither SQLite nor Parquet can.
        return value.encode("utf-8", "replace").decode()

    def tags(self, key: str) -> tuple[str, ...]:
        """Returns the tags of a text with blanks between them, sorted and without doubles."""
        return tuple(sorted(set((self.text(key) or "").split())))

    def flag(self, key: str) -> bool:
        """Returns whether a flag is up; absent and null are down."""
        value = self._values.get(key)
        if not isinstance(value, bool | int | str | None) or value not in _FLAGS:
            raise self._fault(key, "true or false")
        return _FLAGS[value]

    def md5(self, *keys: str) -> str | None:
        """Returns the first md5 that is there; None where the board withholds it."""
        for key in keys:
            value = self.text(key)
            if value is not None:
                if not _MD5.fullmatch(value.lower()):
                    raise self._fault(key, "an md5 of 32 hex digits")
                return value.lower()
        return None

    def url(self, key: str) -> str | None:
        """Returns an absolute https or http address; None where the board withholds it."""
        value = self.text(key)
        if value is None:
            return None
        if value.startswith("//"):
            value = f"https:{value}"
        if urlsplit(value).scheme not in ("https", "http"):
            raise self._fault(key, "an address")
        return value

    def iso_time(self, key: str) -> dt.datetime | None:
        """Returns a moment written as ISO 8601, in UTC."""
        value = self.text(key)
        if value is None:
            return None
        try:
            return dt.datetime.fromisoformat(value).astimezone(dt.UTC)
        except ValueError as error:
            raise self._fault(key, "a time as in ISO 8601") from error

    def unix_time(self, key: str) -> dt.datetime | None:
        """Returns a moment written as seconds since 1970, in UTC."""
        value = self.integer(key)
        if value is None:
            return None
        try:
            return dt.datetime.fromtimestamp(value, dt.UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise self._fault(key, "seconds since 1970") from error

    def rating(self, key: str, meanings: Mapping[str, str]) -> str:
        """Returns the rating spelt out; a word that is not known counts as explicit."""
        word = (self.text(key) or "").lower()
        meaning = meanings.get(word, "explicit")
        if meaning == "general" and word not in self._site.safe_ratings:
            return "sensitive"
        return meaning

    def _post_id(self) -> int:
        value = self._values.get("id")
        if isinstance(value, bool) or not re.fullmatch(r"[1-9]\d{0,17}", str(value)):
            raise CrawlError(
                f"{self._site.name}: the id of a post is {_shown(value)}, a number wanted"
            )
        return int(str(value))

    def _fault(self, key: str, wanted: str) -> CrawlError:
        value = _shown(self._values.get(key))
        return CrawlError(
            f"{self._site.name}, post {self.post_id}: {key} is {value}, {wanted} wanted"
        )


def load_json(body: bytes, site: Site) -> Any:
    """Reads an answer as JSON; raises CrawlError if it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CrawlError(f"{site.name}: the answer is not JSON: {error}") from error


def ext_of(url: str | None) -> str | None:
    """Returns the extension of the file an address names, in small letters, without the dot."""
    name = unquote(urlsplit(url or "").path).rpartition("/")[2]
    return name.rpartition(".")[2].lower() if "." in name else None


def now() -> dt.datetime:
    """Returns this moment in UTC, to the second."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
