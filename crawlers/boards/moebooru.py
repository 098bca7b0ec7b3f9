"""The dialect of Moebooru: /post.json, paged by id within an ordered search."""

from urllib.parse import urlencode

from crawlers.boards.record import Record, ext_of, load_json, now
from crawlers.post import Post
from crawlers.sites import Site
from crawlers.window import Ask
from dataset.errors import CrawlError

ORDERED_PAGES = True

RATINGS = {"s": "general", "q": "questionable", "e": "explicit"}


def page_url(site: Site, words: str, ask: Ask, *, limit: int) -> str:
    """Returns the address of a page of posts."""
    where = {
        "newest": "order:id_desc",
        "above": f"order:id id:>{ask.edge}",
        "below": f"order:id_desc id:<{ask.edge}",
    }[ask.side]
    query = urlencode({"limit": limit, "tags": f"{words} {where}".strip()})
    return f"{site.api}/post.json?{query}"


def count_url(site: Site, words: str) -> str | None:
    """Returns None: only the XML answer would tell how many posts a search has."""
    return None


def parse_count(body: bytes) -> int | None:
    """Returns None: there is nothing to read."""
    return None


def parse(body: bytes, site: Site) -> list[Post]:
    """Reads an answer of /post.json."""
    rows = load_json(body, site)
    if not isinstance(rows, list):
        raise CrawlError(f"{site.name}: the answer is no list of posts but {type(rows).__name__}")
    return [_post(Record(site, row), site) for row in rows]


def _post(record: Record, site: Site) -> Post:
    status = record.text("status") or "active"
    file_url = record.url("file_url")
    return Post(
        board=site.board,
        post_id=record.post_id,
        md5=record.md5("md5"),
        ext=record.text("file_ext") or ext_of(file_url),
        width=record.integer("width"),
        height=record.integer("height"),
        rating=record.rating("rating", RATINGS),
        tags_general=record.tags("tags"),
        tags_character=(),
        tags_copyright=(),
        tags_artist=(),
        tags_meta=(),
        source=record.text("source"),
        score=record.integer("score"),
        created_at=record.unix_time("created_at"),
        updated_at=record.unix_time("updated_at"),
        fetched_at=now(),
        file_url=file_url,
        deleted=status == "deleted",
        pending=status == "pending" or record.flag("is_held") or record.flag("is_pending"),
        flagged=status == "flagged",
    )
