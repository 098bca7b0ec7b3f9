"""The dialect of Gelbooru 0.2: index.php?page=dapi, paged by id within a sorted search.

safebooru.org answers with a bare list and calls the md5 `hash`; gelbooru.com wraps the list, leaves
`post` out where nothing is found, and escapes HTML in tags.
"""

import datetime as dt
import html
from urllib.parse import urlencode

from crawlers.boards.record import BrokenPage, Record, ext_of, now, read_page
from crawlers.cursor import PageRequest
from crawlers.post import Page, Post
from crawlers.sites import Site

ORDERED_PAGES = True
ALL_POSTS = ""  # deleted posts cannot be listed

RATINGS = {
    "general": "general",
    "safe": "general",
    "sensitive": "sensitive",
    "questionable": "questionable",
    "explicit": "explicit",
    # Letters are of before 2022, when "s" was safe: it cannot be distinguished from sensitive now.
    "s": "sensitive",
    "q": "questionable",
    "e": "explicit",
}
_SIGNS = ("md5", "hash", "rating", "tags", "file_url")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def page_url(site: Site, words: str, request: PageRequest, *, limit: int) -> str:
    """Returns the address of a page of posts."""
    where = {
        "newest": "sort:id:desc",
        "above": f"sort:id:asc id:>{request.edge}",
        "below": f"sort:id:desc id:<{request.edge}",
    }[request.side]
    fixed = {"page": "dapi", "s": "post", "q": "index", "json": 1}
    query = urlencode({**fixed, "limit": limit, "tags": f"{words} {where}".strip()})
    return f"{site.api}/index.php?{query}"


def second_url(url: str) -> str:
    """Returns the address of the page as XML: PHP's JSON is empty if one letter of it is broken."""
    return url.replace("&json=1", "")


def count_url(site: Site, words: str) -> str | None:
    """Returns None: only some answers tell how many posts a search has."""
    return None


def parse_count(body: bytes) -> int | None:
    """Returns None: there is nothing to read."""
    return None


def parse(body: bytes, site: Site) -> Page:
    """Reads an answer with json=1 or without (XML).

    Nothing at all comes where there is no post, and also where one cannot be written as JSON.
    """
    if not body.strip():
        raise BrokenPage(f"{site.name}: the answer is empty")
    return read_page(body, site, lambda record: _post(record, site), signs=_SIGNS)


def _post(record: Record, site: Site) -> Post:
    status = record.status()
    file_url = record.url("file_url") or _conventional_url(record, site)
    tags = html.unescape(" ".join(record.tags("tags", required=True))).split()
    source = record.or_none(record.text, "source")
    return Post(
        board=site.board,
        post_id=record.post_id,
        md5=record.md5("md5") or record.md5("hash"),
        ext=ext_of(record.text("image")) or ext_of(file_url),
        width=record.integer("width"),
        height=record.integer("height"),
        rating=record.rating("rating", RATINGS),
        tags_general=tuple(sorted(set(tags))),
        tags_character=(),
        tags_copyright=(),
        tags_artist=(),
        tags_meta=(),
        source=html.unescape(source) if source else None,
        score=record.or_none(record.integer, "score"),
        created_at=_written_time(record.or_none(record.text, "created_at")),
        updated_at=record.or_none(record.unix_time, "change"),
        fetched_at=now(),
        file_url=file_url,
        deleted=status == "deleted",
        pending=status == "pending",
        flagged=status == "flagged",
    )


def _conventional_url(record: Record, site: Site) -> str | None:
    """Returns where Gelbooru 0.2 keeps an original; older answers leave the address to be known."""
    folder, name = record.name("directory"), record.name("image")
    return f"{site.api}/images/{folder}/{name}" if folder and name else None


def _written_time(text: str | None) -> dt.datetime | None:
    """Reads `Sat Sep 26 03:51:09 -0500 2026` whatever the machine's language; else None."""
    try:
        _day, month, day, clock, zone, year = (text or "").split()
        number = _MONTHS.index(month) + 1
        moment = dt.datetime.fromisoformat(f"{year}-{number:02}-{int(day):02}T{clock}{zone}")
        return moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None  # the time of posting is not worth losing the post for
