"""The dialect of Danbooru: /posts.json, paged by id (page=a<id> and page=b<id>)."""

import json
from urllib.parse import urlencode

from crawlers.boards.record import Record, now, read_page
from crawlers.cursor import PageRequest
from crawlers.post import TAG_KINDS, Page, Post
from crawlers.sites import Site

# Both page=a<id> and page=b<id> take the ids next to <id> and list them descending, whatever
# order the search asks for: there is no order to check.
ORDERED_PAGES = False
ALL_POSTS = "status:any"  # a search hides deleted posts unless it says so

# Until 2022 "s" was safe; such records cannot be distinguished from those that are sensitive.
RATINGS = {"g": "general", "s": "sensitive", "q": "questionable", "e": "explicit"}
_SIGNS = ("md5", "rating", "tag_string", "tag_string_general", "file_url")


def page_url(site: Site, words: str, request: PageRequest, *, limit: int) -> str:
    """Returns the address of a page of posts."""
    # b with an id beyond all others is the newest page: unlike page=1 it is always by id.
    page = f"a{request.edge}" if request.side == "above" else f"b{request.edge or 2**31 - 1}"
    return f"{site.api}/posts.json?{urlencode({'limit': limit, 'tags': words, 'page': page})}"


def second_url(url: str) -> str:
    """Returns the same address: another format has another path, which robots.txt may disallow."""
    return url


def count_url(site: Site, words: str) -> str | None:
    """Returns the address that tells how many posts a search has."""
    return f"{site.api}/counts/posts.json?{urlencode({'tags': words})}"


def parse(body: bytes, site: Site) -> Page:
    """Reads an answer of /posts.json, or of /posts.xml."""
    return read_page(body, site, lambda record: _post(record, site), signs=_SIGNS)


def parse_count(body: bytes) -> int | None:
    """Reads an answer of /counts/posts.json; the count is null where the search took too long."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None  # it is for the progress bar only
    counts = answer.get("counts") if isinstance(answer, dict) else None
    found = counts.get("posts") if isinstance(counts, dict) else None
    return found if isinstance(found, int) and found is not True and found >= 0 else None


def _post(record: Record, site: Site) -> Post:
    # An answer cut short by `only=` or a mirror may lack the kinds: all tags count as general.
    # Without `tag_string` every kind must be there: an excluded tag may be of any.
    kinds = {
        kind: record.tags(f"tag_string_{kind}", required=record.raw("tag_string") is None)
        for kind in TAG_KINDS
    }
    of_no_kind = set(record.tags("tag_string")).difference(*kinds.values())
    return Post(
        board=site.board,
        post_id=record.post_id,
        md5=record.md5("md5"),
        ext=record.text("file_ext"),
        width=record.integer("image_width"),
        height=record.integer("image_height"),
        rating=record.rating("rating", RATINGS),
        tags_general=tuple(sorted(of_no_kind.union(kinds["general"]))),
        tags_character=kinds["character"],
        tags_copyright=kinds["copyright"],
        tags_artist=kinds["artist"],
        tags_meta=kinds["meta"],
        source=record.or_none(record.text, "source"),
        score=record.or_none(record.integer, "score"),
        created_at=record.or_none(record.iso_time, "created_at"),
        updated_at=record.or_none(record.iso_time, "updated_at"),
        fetched_at=now(),
        file_url=record.url("file_url"),
        deleted=record.flag("is_deleted"),
        banned=record.flag("is_banned"),
        pending=record.flag("is_pending"),
        flagged=record.flag("is_flagged"),
    )
