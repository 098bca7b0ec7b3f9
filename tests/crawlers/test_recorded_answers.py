"""Every recorded answer of a real board, and what must come of it."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawlers.boards import BOARDS
from crawlers.boards.record import BrokenPage, records_of
from crawlers.post import TAG_KINDS, Post
from crawlers.sites import Site, load_sites
from dataset.errors import CrawlError
from dataset.policy import EXCLUDED_TAGS, Takedowns, drop_reason
from tests.hypothesis_profiles import examples

SITES = load_sites()

# file: the site that it is read as, and its posts (number, beginning of the md5, rating, number of
# tags, reason of the refusal), last those of bad records; or what the refusal of the answer says.
Row = tuple[int, str, str, int, str | None]
ANSWERS: dict[str, tuple[str, list[Row] | str]] = {
    "apkawa_booru-rs/danbooru_posts.json": (
        "danbooru_donmai",
        [(6148687, "35285a88", "general", 25, "pending")],
    ),
    "apkawa_booru-rs/gelbooru_dapi_post.json": (
        "gelbooru_com",
        [
            (8329156, "b4a3a01f", "general", 31, None),
            (8311716, "b467cfb6", "general", 51, None),
            (8299561, "06f140a0", "general", 30, None),
        ],
    ),
    "apkawa_booru-rs/gelbooru_v0.2_post_id.json": (
        "safebooru_org",
        [(4296456, "e0b8bce4", "general", 22, None)],
    ),
    "apkawa_booru-rs/konachan_post.json": (
        "konachan",
        [
            (354323, "e53d6e7c", "general", 6, None),
            (354321, "c01451d1", "general", 9, None),
            (354320, "69c334f6", "general", 8, None),
            (354319, "a484e100", "general", 6, None),
            (354318, "f6caf5e5", "general", 11, None),
            (354317, "3f2eee84", "general", 8, None),
            (354316, "7c8ba62f", "general", 7, None),
            (354315, "ec40224c", "general", 4, None),
            (354314, "4af1376b", "general", 6, None),
        ],
    ),
    "apkawa_booru-rs/moebooru_post_id.json": (
        "konachan",
        [(354323, "e53d6e7c", "general", 6, None)],
    ),
    "apkawa_booru-rs/myimouto_post.json": (
        "konachan",
        [
            (543959, "caee6222", "general", 58, "host"),
            (543958, "7ec09d7a", "general", 25, "tag_comic"),
        ],
    ),
    "bionus_imgbrd-grabber/danbooru_posts_2016.xml": (
        "danbooru_donmai",
        [
            (2434966, "e5d074c5", "sensitive", 16, "pending"),
            (2434964, "1e774a4a", "sensitive", 17, "pending"),
            (2434960, "f957fe28", "sensitive", 23, "rating"),
            (2434959, "ee457086", "sensitive", 5, "pending"),
            (2434957, "ee3a1433", "sensitive", 58, "rating"),
            (2434956, "fbd77c18", "sensitive", 39, "rating"),
            (2434955, "bdf47443", "sensitive", 33, "rating"),
            (2434954, "dba5622f", "sensitive", 41, "rating"),
            (2434953, "077cf49e", "sensitive", 37, "rating"),
            (2434952, "7a16aa10", "sensitive", 72, "rating"),
            (2434951, "0d1cd601", "sensitive", 26, "rating"),
            (2434950, "7bf3b85d", "sensitive", 43, "rating"),
            (2434949, "59b87894", "sensitive", 46, "rating"),
            (2434948, "68518fe6", "sensitive", 46, "rating"),
            (2434945, "dcc00f47", "sensitive", 40, "rating"),
            (2434967, "", "", 0, "md5 is 'test98bf686ca7910ee0ad48e59ba99807d3', an md5"),
        ],
    ),
    "bionus_imgbrd-grabber/danbooru_tags_2017.json": (
        "danbooru_donmai",
        "record 1429147 has none of file_url",
    ),
    "bionus_imgbrd-grabber/gelbooru_dapi_posts_2017.xml": (
        "gelbooru_com",
        [
            (3889506, "e70f631c", "sensitive", 36, "rating"),
            (3889502, "e164f5f5", "sensitive", 26, "rating"),
            (3889498, "ddc9f892", "sensitive", 32, "rating"),
            (3889497, "afca08f3", "sensitive", 26, "rating"),
            (3889496, "67934e0e", "sensitive", 70, "rating"),
            (3889493, "85467037", "sensitive", 35, "rating"),
            (3889491, "06cf713d", "sensitive", 32, "rating"),
            (3889488, "78311b89", "sensitive", 41, "rating"),
            (3889487, "e22e342c", "sensitive", 30, "rating"),
            (3889485, "03bdbf4e", "sensitive", 29, "rating"),
            (3889484, "3ab2ca9a", "sensitive", 41, "rating"),
        ],
    ),
    "danbooru.donmai.us/DERIVED_post_banned_no_url.json": (
        "danbooru_donmai",
        [(9969513, "", "general", 16, "banned")],
    ),
    "danbooru.donmai.us/error_422_tag_limit.json": (
        "danbooru_donmai",
        'answers with no posts and says "You cannot search for more than 2 tags at a time."',
    ),
    "danbooru.donmai.us/post_9969513_2025.json": (
        "danbooru_donmai",
        [(9969513, "bd6cde0e", "general", 16, None)],
    ),
    "danbooru.donmai.us/posts_2020_10.json": (
        "danbooru_donmai",
        [
            (4018204, "4f39497e", "sensitive", 24, "rating"),
            (4018203, "fd730961", "sensitive", 25, "rating"),
            (4018202, "34efe539", "sensitive", 79, "rating"),
            (4018201, "2b201538", "sensitive", 38, "pending"),
            (4018200, "efbf1cb0", "sensitive", 31, "rating"),
            (4018199, "1b486f3e", "sensitive", 34, "rating"),
            (4018198, "13acb401", "sensitive", 26, "pending"),
            (4018197, "401882eb", "sensitive", 33, "pending"),
            (4018196, "c40d3516", "sensitive", 30, "rating"),
            (4018195, "96128a8c", "sensitive", 43, "rating"),
        ],
    ),
    "danbooru.donmai.us/posts_animated_gif_2023.json": (
        "danbooru_donmai",
        [
            (2552401, "278c8023", "general", 29, "tag_animated"),
            (6285839, "76823069", "general", 28, "tag_animated"),
        ],
    ),
    "danbooru.donmai.us/tags.json": ("danbooru_donmai", "record 566835 has none of file_url"),
    "gelbooru.com/dapi_empty_no_post_key.json": ("gelbooru_com", []),
    "gelbooru.com/dapi_json1_post_14970719_2026.json": (
        "gelbooru_com",
        [(14970719, "da5619f7", "general", 6, None)],
    ),
    "konachan.net/post_334771_s_2021.json": (
        "konachan",
        [(334771, "0a8bbd7c", "general", 10, None)],
    ),
    "safebooru.donmai.us/posts_2026-10_trimmed.json": (
        "safebooru_donmai",
        [
            (12294341, "a6e5f238", "general", 9, None),
            (12294302, "640cab5d", "general", 9, "tag_animated"),
            (12290033, "9cfea6cb", "general", 14, "tag_2koma"),
        ],
    ),
    "safebooru.donmai.us/tags_2026-10.json": (
        "safebooru_donmai",
        "record 2728183 has none of file_url",
    ),
    "safebooru.org/dapi_json1_post_6077620_2025.json": (
        "safebooru_org",
        [(6077620, "563c6fbe", "general", 42, None)],
    ),
    "single_posts/danbooru_2016_g_no_humans.json": (
        "danbooru_donmai",
        [(2552401, "278c8023", "general", 29, "tag_animated")],
    ),
    "single_posts/danbooru_2025.json": (
        "danbooru_donmai",
        [(9969513, "bd6cde0e", "general", 16, None)],
    ),
    "single_posts/gelbooru_dapi_tag_2024.json": (
        "gelbooru_com",
        "gelbooru_com: the answer is no list of posts but dict of @attributes, tag",
    ),
    "single_posts/safebooru_org_dapi_2025.json": (
        "safebooru_org",
        [(6077620, "563c6fbe", "general", 42, None)],
    ),
    "single_posts/safebooru_org_dapi_tag_2026.xml": (
        "safebooru_org",
        "safebooru_org: the answer is XML about tags, posts wanted",
    ),
    "single_posts/yandere_post_2025.json": (
        "yandere",
        [(1223391, "3a453ffa", "general", 13, None)],
    ),
    "single_posts/yandere_tag_2026.json": ("yandere", "record 2341 has none of file_url"),
    "single_posts/zerochan_2025.json": ("danbooru_donmai", "record 4585899 has none of file_url"),
}


# The same answer, once more as XML.
ANSWERS["danbooru.donmai.us/posts_2020_10.xml"] = ANSWERS["danbooru.donmai.us/posts_2020_10.json"]


def files(real_data: Path) -> list[str]:
    folder = real_data / "api"
    found = (path for path in folder.rglob("*") if path.suffix in (".json", ".xml"))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def test_every_recorded_answer_has_its_row(real_data: Path) -> None:
    assert files(real_data) == sorted(ANSWERS)


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_recorded_answer_gives_its_posts_or_its_refusal(real_data: Path, name: str) -> None:
    site_name, wanted = ANSWERS[name]
    site = SITES[site_name]
    body = (real_data / "api" / name).read_bytes()
    if isinstance(wanted, str):
        with pytest.raises(CrawlError) as caught:
            BOARDS[site.family].parse(body, site)
        assert wanted in str(caught.value)
        return
    found: list[Row] = []
    page = BOARDS[site.family].parse(body, site)
    for post in page.posts:
        reason = drop_reason(post, Takedowns(), excluded=site.excluded_tags)
        if reason is None and not site.allows(str(post.file_url)):
            reason = "host"  # as the middleware says when the picture is requested
        found.append((post.post_id, (post.md5 or "")[:8], post.rating, len(post.tags), reason))
        assert post.board == site.board
        assert reason in ("banned", "pending") or (post.width and post.height and post.ext)
    assert found == wanted[: len(page.posts)]
    assert len(page.bad) == len(wanted) - len(found)
    for bad, (post_id, _md5, _rating, _tags, reason) in zip(
        page.bad, wanted[len(found) :], strict=True
    ):
        assert bad.post_id == post_id
        assert bad.reason.startswith(str(reason))


def test_json_and_xml_of_one_answer_give_the_same_posts(real_data: Path) -> None:
    site = SITES["danbooru_donmai"]
    folder = real_data / "api/danbooru.donmai.us"
    said, marked = (
        [post.to_record() for post in BOARDS["danbooru"].parse(path.read_bytes(), site).posts]
        for path in (folder / "posts_2020_10.json", folder / "posts_2020_10.xml")
    )
    passing = {"fetched_at", "created_at", "updated_at", "score", "flagged"}
    kept = [name for name in said[0] if name not in passing]
    assert [[post[name] for name in kept] for post in said] == [
        [post[name] for name in kept] for post in marked
    ]


# The fields that decide whether a post is taken, and as what, by family.
DECIDING = {
    "danbooru": {
        *("id", "md5", "rating", "file_url", "file_ext", "image_width", "image_height"),
        *("is_deleted", "is_banned", "is_pending", "is_flagged", "tag_string"),
        *(f"tag_string_{kind}" for kind in TAG_KINDS),
    },
    "moebooru": {
        *("id", "md5", "rating", "file_url", "file_ext", "width", "height", "status", "tags"),
        *("is_held", "is_pending"),
    },
    "gelbooru02": {
        *("id", "md5", "hash", "rating", "file_url", "image", "directory", "width", "height"),
        *("status", "tags"),
    },
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        [
            *("", "e", "s", "g", "safe", "general", "deleted", "loli", "0", "1", "true", "t", "?"),
            *("lo\x01li", "lo\ud800li", "\ufffd", "a\tb", "0" * 32, "../../etc", "file:///x"),
            *("//evil.example/x.png", "/data/x.png", "http://x/y.png", "https://[::1", "mp4"),
        ]
    ),
    st.lists(st.none() | st.text(max_size=5), max_size=2),
    st.dictionaries(st.sampled_from(["id", "s", "n"]), st.integers(), max_size=2),
)
RAW = st.sampled_from([b"\x00", b"\x01", b"\t", b"\n", b"\x7f", b"\xff", b"\xc3", b"\xe3\x81"])
MARK = "\ue000"  # where damage goes: no board has it
PAGES = [name for name, (_, wanted) in ANSWERS.items() if isinstance(wanted, list) and wanted]


@dataclasses.dataclass
class Mutated:
    """A recorded page with its good records, those records mutated, and the answer with them."""

    site: Site
    good: list[Any]
    rows: list[Any]
    body: bytes


@st.composite
def mutated(draw: st.DrawFn, folder: Path) -> Mutated:
    """A page of at least three records, of which at least one is as it was recorded."""
    name = draw(st.sampled_from(PAGES))
    site = SITES[ANSWERS[name][0]]
    rows = records_of((folder / name).read_bytes(), site)
    good = [
        row for row in rows if BOARDS[site.family].parse(json.dumps([row]).encode(), site).posts
    ]
    good = (good * 3)[: max(len(good), 3)]
    odd: list[Any] = json.loads(json.dumps(good))
    damages: list[bytes] = []
    for row in odd[: draw(st.integers(1, len(good) - 1))]:
        for _ in range(draw(st.integers(1, 2))):
            keys = sorted(row)
            key = draw(st.sampled_from(keys))
            match draw(st.sampled_from(["set", "set", "drop", "damage", "new"])):
                case "set":
                    row[key] = draw(ODD)
                case "drop":
                    del row[key]
                case "new":
                    row[draw(st.sampled_from(["status", "is_held", "change", "x"]))] = draw(ODD)
                case "damage" if isinstance(row[key], str):
                    cut = draw(st.integers(0, len(row[key])))
                    row[key] = f"{row[key][:cut]}{MARK}{row[key][cut:]}"
                    damages.append(draw(RAW))
    if draw(st.booleans()):
        odd[0] = draw(ODD.filter(lambda value: not isinstance(value, dict)))
    order = draw(st.permutations(range(len(good))))
    good, odd = [good[at] for at in order], [odd[at] for at in order]
    body = json.dumps(odd, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if site.name == "gelbooru_com" and draw(st.booleans()):
        body = b'{"@attributes": {"limit": 100}, "post": ' + body + b"}"
    for damage in damages:
        body = body.replace(MARK.encode(), damage, 1)
    return Mutated(site, good, odd, body)


DOWN = {"", "0", "0.0", "f", "false", "n", "no", "null", "none"}  # a flag, as databases write it


def may_be_taken(row: Any, post: Post, site: Site) -> bool:
    """By the record alone: nothing that decides had to be guessed, and nothing forbids the post."""
    texts = [row.get(key) for key in row if key.startswith("tag")]
    tags = {tag for text in texts if isinstance(text, str) for tag in text.split()}
    kinds = [row.get(f"tag_string_{kind}") for kind in TAG_KINDS]
    is_whole = isinstance(row.get("tag_string"), str) or all(isinstance(one, str) for one in kinds)
    md5s = {str(row.get(key)).lower() for key in ("md5", "hash") if row.get(key)}
    url = row.get("file_url") or f"{site.api}/images/{row.get('directory')}/{row.get('image')}"
    flags = [row.get(key) for key in row if key.startswith("is_") and key in DECIDING[site.family]]
    sizes = [row.get(key) for key in ("image_width", "image_height", "width", "height")]
    return (
        (is_whole if site.family == "danbooru" else isinstance(row.get("tags"), str))
        and not tags & (EXCLUDED_TAGS | set(site.excluded_tags))
        and not any(re.search("[\x00-\x1f\x7f\ufffd\ue000\ud800-\udfff]", tag) for tag in tags)
        and str(row.get("rating")).lower() in site.safe_ratings
        and (site.family == "danbooru" or row.get("status") in (None, "", "active"))
        and all(flag in (None, False) or str(flag).strip().lower() in DOWN for flag in flags)
        and all(
            size.is_integer() if isinstance(size, float) else isinstance(size, int | str | None)
            for size in sizes
        )
        and re.sub(r"\.0+$", "", str(row.get("id"))) == str(post.post_id)
        and post.md5 in md5s
        and re.fullmatch("[0-9a-f]{32}", post.md5 or "") is not None
        and isinstance(url, str)
        and post.file_url == urljoin(site.api, url)
    )


@settings(deadline=None, max_examples=examples(300))
@given(data=st.data())
def test_mutated_answers_lose_no_good_record_and_let_no_bad_one_through(
    real_data: Path, data: st.DataObject
) -> None:
    made = data.draw(mutated(real_data / "api"))
    site, board = made.site, BOARDS[made.site.family]
    before = board.parse(json.dumps(made.good).encode(), site).posts
    page = board.parse(made.body, site)
    assert page.size == len(made.rows)
    assert all(bad.reason and bad.raw for bad in page.bad)
    left = [essence(post) for post in page.posts]
    for post, was, row in zip(before, made.good, made.rows, strict=True):
        if not isinstance(row, dict):
            continue
        changed = {key for key in was.keys() | row if repr(was.get(key)) != repr(row.get(key))}
        if not changed & DECIDING[site.family]:  # whatever became of source, score and times
            assert essence(post) in left
            left.remove(essence(post))
    rows = [row for row in made.rows if isinstance(row, dict)]
    for post in page.posts:
        refused = drop_reason(post, Takedowns(), excluded=site.excluded_tags)
        if essence(post) in left and refused is None:
            # a deciding field was changed: none is taken by a guess
            assert any(may_be_taken(row, post, site) for row in rows), post


def essence(post: Post) -> dict[str, Any]:
    """All that decides what becomes of a post."""
    odd = ("source", "score", "created_at", "updated_at", "fetched_at")
    return {key: value for key, value in post.to_record().items() if key not in odd}


@settings(deadline=None, max_examples=examples(100))
@given(data=st.data())
def test_an_answer_cut_anywhere_is_broken_and_never_a_shorter_page(
    real_data: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([name for name in PAGES if name.endswith(".json")]))
    site = SITES[ANSWERS[name][0]]
    body = (real_data / "api" / name).read_bytes().strip()
    with pytest.raises(BrokenPage):
        BOARDS[site.family].parse(body[: data.draw(st.integers(1, len(body) - 1))], site)
