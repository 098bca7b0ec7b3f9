"""Every recorded answer of a real board, and what must come of it."""

from pathlib import Path

import pytest

from crawlers.boards import BOARDS
from crawlers.sites import load_sites
from dataset.errors import CrawlError
from dataset.policy import Takedowns, drop_reason

SITES = load_sites()

# file: the site that it is read as, and its posts (number, beginning of the md5, rating, number of
# tags, reason of the refusal), or what the refusal of the whole answer says.
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
    "bionus_imgbrd-grabber/danbooru_posts_2016.xml": ("danbooru_donmai", "post 2434967: md5 is "),
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
    found = []
    for post in BOARDS[site.family].parse(body, site):
        reason = drop_reason(post, Takedowns(), excluded=site.excluded_tags)
        if reason is None and not site.allows(str(post.file_url)):
            reason = "host"  # as the middleware says when the picture is requested
        found.append((post.post_id, (post.md5 or "")[:8], post.rating, len(post.tags), reason))
        assert post.board == site.board
        assert reason in ("banned", "pending") or (post.width and post.height and post.ext)
    assert found == wanted


def test_json_and_xml_of_one_answer_give_the_same_posts(real_data: Path) -> None:
    site = SITES["danbooru_donmai"]
    folder = real_data / "api/danbooru.donmai.us"
    said, marked = (
        [post.to_record() for post in BOARDS["danbooru"].parse(path.read_bytes(), site)]
        for path in (folder / "posts_2020_10.json", folder / "posts_2020_10.xml")
    )
    passing = {"fetched_at", "created_at", "updated_at", "score", "flagged"}
    kept = [name for name in said[0] if name not in passing]
    assert [[post[name] for name in kept] for post in said] == [
        [post[name] for name in kept] for post in marked
    ]
