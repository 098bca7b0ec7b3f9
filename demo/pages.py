"""The board's few pages for people: an index of thumbnails and a page a post."""

from __future__ import annotations

from html import escape
from urllib.parse import urlencode

from demo.api import danbooru
from demo.api.search import page_of, parse_query, search, shard
from demo.collection import RATINGS, TAG_KINDS, Collection, Entry

PAGE_SIZE = 60
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem auto;max-width:72rem;padding:0 1rem;"
    "background:#fbfaf8;color:#222}a{color:#215a8e}h1{font-size:1.3rem}"
    ".grid{display:flex;flex-wrap:wrap;gap:.6rem}.grid a{width:180px;height:180px;display:flex;"
    "align-items:center;justify-content:center;background:#eee}.grid img{max-width:180px;"
    "max-height:180px}.post{display:flex;flex-wrap:wrap;gap:1.5rem}.post img{max-width:100%;"
    "max-height:80vh}dt{font-weight:600}nav{margin:1rem 0}"
)


def index(collection: Collection, tags: str, page: int) -> str:
    """One page of thumbnails, newest first, of what `tags` finds (all if empty)."""
    query = parse_query(tags, danbooru.GRAMMAR, collection.tags)
    found = search(collection, query)
    shown = page_of(found, page - 1, PAGE_SIZE)
    thumbnails = "".join(
        f'<a href="/posts/{entry.post_id}">{_picture(entry, "180x180", "jpg")}</a>'
        for entry in shown
    )
    nav = []
    if page > 1:
        nav.append(f'<a href="/?{_link(tags, page - 1)}">newer</a>')
    if page * PAGE_SIZE < len(found):
        nav.append(f'<a href="/?{_link(tags, page + 1)}">older</a>')
    body = (
        f"<h1>Omokage demo board</h1><p>{len(found):,} of {len(collection):,} posts. The same"
        " pictures are served as /danbooru, /moebooru, /gelbooru and /gelbooru_com.</p>"
        f'<form action="/"><input name="tags" size="40" value="{escape(tags)}" '
        'aria-label="tags" placeholder="1girl blue_eyes"> <button>Search</button></form>'
        f'<nav>{" · ".join(nav)}</nav><div class="grid">{thumbnails}</div>'
    )
    return _page("Omokage demo board", body)


def post(entry: Entry) -> str:
    """One post's page: the picture and its record."""
    facts = {
        "Size": f"{entry.width} × {entry.height} px, {entry.size_bytes:,} bytes, {entry.ext}",
        "Rating": RATINGS[entry.rating],
        "Status": "banned" if entry.banned else entry.status,
        "md5": entry.md5,
        **{f"{kind.capitalize()} tags": _tag_links(entry.tags[kind]) for kind in TAG_KINDS},
    }
    listed = "".join(
        f"<dt>{name}</dt><dd>{value if 'tags' in name else escape(value)}</dd>"
        for name, value in facts.items()
        if value
    )
    title = f"Post {entry.post_id}"
    body = (
        f'<p><a href="/">All posts</a></p><h1>{title}</h1><div class="post">'
        f"{_picture(entry, '720x720', 'webp')}<dl>{listed}</dl></div>"
    )
    return _page(title, body)


def _picture(entry: Entry, shape: str, ext: str) -> str:
    if entry.withheld:
        return f"<span>post {entry.post_id}: banned</span>"
    url = f"/media/{shape}/{shard(entry.md5)}/{entry.md5}.{ext}"
    return f'<img src="{url}" alt="post {entry.post_id}" loading="lazy">'


def _tag_links(names: tuple[str, ...]) -> str:
    return " ".join(f'<a href="/?{_link(name, 1)}">{escape(name)}</a>' for name in names)


def _link(tags: str, page: int) -> str:
    return escape(urlencode({"tags": tags, "page": page}))


def _page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )
