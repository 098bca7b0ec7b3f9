"""The dialect of Moebooru: /post.json, paged by id within an ordered search."""

from urllib.parse import urlencode

from crawlers.boards.record import Record, ext_of, now, read_page
from crawlers.cursor import PageRequest
from crawlers.post import Page, Post
from crawlers.sites import Site

ORDERED_PAGES = True
ALL_POSTS = "deleted:all"  # a search hides deleted posts unless it says so

RATINGS = {"s": "general", "q": "questionable", "e": "explicit"}
_SIGNS = ("md5", "rating", "tags", "file_url")


def page_url(site: Site, words: str, request: PageRequest, *, limit: int) -> str:
    """Returns the address of a page of posts."""
    where = {
        "newest": "order:id_desc",
        "above": f"order:id id:>{request.edge}",
        "below": f"order:id_desc id:<{request.edge}",
    }[request.side]
    query = urlencode({"limit": limit, "tags": f"{words} {where}".strip()})
    return f"{site.api}/post.json?{query}"


def second_url(url: str) -> str:
    """Returns the same address: another format has another path, which robots.txt may disallow."""
    return url


def count_url(site: Site, words: str) -> str | None:
    """Returns None: only the XML answer would tell how many posts a search has."""
    return None


def parse_count(body: bytes) -> int | None:
    """Returns None: there is nothing to read."""
    return None


def parse(body: bytes, site: Site) -> Page:
    """Reads an answer of /post.json, or of /post.xml."""
    return read_page(body, site, lambda record: _post(record, site), signs=_SIGNS)


def _post(record: Record, site: Site) -> Post:
    status = record.status()
    file_url = record.url("file_url")
    return Post(
        board=site.board,
        post_id=record.post_id,
        md5=record.md5("md5"),
        ext=record.text("file_ext") or ext_of(file_url),
        width=record.integer("width"),
        height=record.integer("height"),
        rating=record.rating("rating", RATINGS),
        tags_general=record.tags("tags", required=True),
        tags_character=(),
        tags_copyright=(),
        tags_artist=(),
        tags_meta=(),
        source=record.or_none(record.text, "source"),
        score=record.or_none(record.integer, "score"),
        created_at=record.or_none(record.unix_time, "created_at"),
        updated_at=record.or_none(record.unix_time, "updated_at"),
        fetched_at=now(),
        file_url=file_url,
        deleted=status == "deleted",
        pending=status == "pending" or record.flag("is_held") or record.flag("is_pending"),
        flagged=status == "flagged",
    )
