"""The dialects: addresses, recorded answers, and records that are not as they should be."""

import datetime as dt
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawlers.boards import BOARDS, danbooru, gelbooru02, moebooru
from crawlers.post import Post
from crawlers.sites import Site, load_sites
from crawlers.window import Ask
from dataset.errors import CrawlError

SITES = load_sites()
DANBOORU = SITES["safebooru_donmai"]


def record(**changes: Any) -> bytes:
    fields = {"id": 7, "md5": "0" * 32, "rating": "g", "tag_string_general": "b a a"}
    return json.dumps([fields | changes]).encode()


def test_a_recorded_danbooru_post_is_read_with_its_tags_by_kind(real_data: Path) -> None:
    body = (real_data / "api/danbooru.donmai.us/post_9969513_2025.json").read_bytes()
    (post,) = danbooru.parse(
        body if body.lstrip().startswith(b"[") else b"[" + body + b"]", DANBOORU
    )
    assert post.post_id == 9969513
    assert post.md5 == "bd6cde0ec3b896251118d59b4d0e01b4"
    assert (post.ext, post.width, post.height, post.rating) == ("jpg", 2048, 2048, "general")
    assert post.tags_character == ("sangonomiya_kokomi",)
    assert post.tags_artist == ("mikurumikurumi",)
    assert "pink_hair" in post.tags_general
    assert post.created_at == dt.datetime(2025, 9, 15, 23, 27, 31, 639000, dt.UTC)
    assert post.file_url is not None
    assert DANBOORU.allows(post.file_url)


def test_a_recorded_banned_danbooru_post_has_neither_md5_nor_address(real_data: Path) -> None:
    body = (real_data / "api/danbooru.donmai.us/DERIVED_post_banned_no_url.json").read_bytes()
    (post,) = danbooru.parse(body, DANBOORU)
    assert (post.banned, post.md5, post.file_url) == (True, None, None)


def test_the_safe_of_danbooru_before_2022_is_not_taken_for_general(real_data: Path) -> None:
    body = (real_data / "api/danbooru.donmai.us/posts_2020_10.json").read_bytes()
    posts = danbooru.parse(body, DANBOORU)
    assert len(posts) == 10
    assert {post.rating for post in posts} == {"sensitive"}


def test_a_trimmed_danbooru_answer_gives_its_tags_as_general(real_data: Path) -> None:
    body = (real_data / "api/safebooru.donmai.us/posts_2026-10_trimmed.json").read_bytes()
    post, video, *_ = danbooru.parse(body, DANBOORU)
    assert post.tags_artist == ("qitoli",)
    assert "blue_archive" in post.tags_general
    assert "qitoli" not in post.tags_general
    assert video.ext == "mp4"


def test_a_recorded_moebooru_post_is_read(real_data: Path) -> None:
    body = (real_data / "api/konachan.net/post_334771_s_2021.json").read_bytes()
    (post,) = moebooru.parse(body, SITES["konachan"])
    assert (post.post_id, post.rating, post.ext) == (334771, "general", "jpg")
    assert (post.width, post.height) == (3000, 1957)
    assert post.created_at == dt.datetime.fromtimestamp(1637545469, dt.UTC)
    assert post.file_url is not None
    assert SITES["konachan"].allows(post.file_url)


def test_a_moebooru_score_written_as_text_is_read(real_data: Path) -> None:
    body = (real_data / "api/apkawa_booru-rs/myimouto_post.json").read_bytes()
    assert {type(post.score) for post in moebooru.parse(body, SITES["konachan"])} == {int}


def test_a_recorded_yandere_post_is_read(real_data: Path) -> None:
    body = (real_data / "api/single_posts/yandere_post_2025.json").read_bytes()
    (post,) = moebooru.parse(body, SITES["yandere"])
    assert (post.ext, post.pending, post.flagged, post.deleted) == ("png", False, False, False)
    assert post.file_url is not None
    assert SITES["yandere"].allows(post.file_url)


def test_a_recorded_safebooru_post_has_the_files_md5_not_its_name(real_data: Path) -> None:
    body = (real_data / "api/safebooru.org/dapi_json1_post_6077620_2025.json").read_bytes()
    (post,) = gelbooru02.parse(body, SITES["safebooru_org"])
    assert post.md5 == "563c6fbe5761ac4ba720ae0da9a15b8a"
    assert (post.rating, post.score, post.ext) == ("general", None, "jpg")


def test_a_recorded_gelbooru_post_has_its_tags_unescaped(real_data: Path) -> None:
    body = (real_data / "api/gelbooru.com/dapi_json1_post_14970719_2026.json").read_bytes()
    (post,) = gelbooru02.parse(body, SITES["gelbooru_com"])
    assert "grabbing_another's_arm" in post.tags_general
    assert post.created_at == dt.datetime(2026, 9, 26, 8, 51, 9, tzinfo=dt.UTC)


def test_gelbooru_without_a_post_key_is_an_empty_page(real_data: Path) -> None:
    body = (real_data / "api/gelbooru.com/dapi_empty_no_post_key.json").read_bytes()
    assert gelbooru02.parse(body, SITES["gelbooru_com"]) == []
    assert gelbooru02.parse(b"", SITES["safebooru_org"]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": None}, "the id of a post is None, a number wanted"),
        ({"id": -3}, "the id of a post is -3, a number wanted"),
        ({"md5": "xyz"}, "post 7: md5 is 'xyz', an md5 of 32 hex digits wanted"),
        ({"md5": 5}, "post 7: md5 is 5, text wanted"),
        (
            {"image_width": "wide"},
            "post 7: image_width is 'wide', a whole number of at most 2,147,483,647",
        ),
        ({"created_at": "yesterday"}, "post 7: created_at is 'yesterday', a time as in ISO 8601"),
        (
            {"file_url": "file:///etc/passwd"},
            "post 7: file_url is 'file:///etc/passwd', an address",
        ),
        ({"is_deleted": "perhaps"}, "post 7: is_deleted is 'perhaps', true or false wanted"),
        ({"tag_string_general": ["a"]}, "post 7: tag_string_general is ['a'], text wanted"),
    ],
)
def test_a_wrong_field_is_named_with_its_post(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CrawlError) as caught:
        danbooru.parse(record(**changes), DANBOORU)
    assert said in str(caught.value)
    assert "safebooru_donmai" in str(caught.value)


@pytest.mark.parametrize("family", list(BOARDS))
@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'"x"', b"\xff", b"[" * 100_000])
def test_an_answer_that_is_none_is_an_error_not_a_crash(family: str, body: bytes) -> None:
    site = next(site for site in SITES.values() if site.family == family)
    with pytest.raises(CrawlError):
        BOARDS[family].parse(body, site)


@pytest.mark.parametrize("word", ["e", "", "S", "safe", "unheard-of"])
def test_a_rating_that_is_not_known_to_be_safe_is_not_general(word: str) -> None:
    (post,) = danbooru.parse(record(rating=word), DANBOORU)
    assert post.rating != "general"


@settings(deadline=None)  # the machine is shared
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "id",
                "md5",
                "hash",
                "rating",
                "tags",
                "tag_string",
                "file_url",
                "image",
                "created_at",
                "is_deleted",
                "status",
                "score",
                "width",
                "change",
                "source",
                "is_held",
            ]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text("ab0-/:&; é<", max_size=40)
        | st.lists(st.integers()),
    )
)
def test_any_record_is_either_a_post_or_a_crawl_error(values: dict[str, Any]) -> None:
    body = json.dumps([{"id": 1} | values]).encode()
    for family, site in (
        ("danbooru", "demo"),
        ("moebooru", "konachan"),
        ("gelbooru02", "demo_gelbooru"),
    ):
        try:
            posts = BOARDS[family].parse(body, SITES[site])
        except CrawlError:
            continue
        assert [Post.from_record(post.to_record()) for post in posts] == posts


@pytest.mark.parametrize(
    ("site", "ask", "wanted"),
    [
        ("demo", Ask("newest"), {"page": ["b2147483647"], "tags": ["1girl"]}),
        ("demo", Ask("above", 9), {"page": ["a9"]}),
        ("demo", Ask("below", 9), {"page": ["b9"]}),
        ("konachan", Ask("newest"), {"tags": ["1girl order:id_desc"]}),
        ("konachan", Ask("above", 9), {"tags": ["1girl order:id id:>9"]}),
        ("konachan", Ask("below", 9), {"tags": ["1girl order:id_desc id:<9"]}),
        ("gelbooru_com", Ask("above", 9), {"tags": ["1girl sort:id:asc id:>9"], "json": ["1"]}),
        ("gelbooru_com", Ask("below", 9), {"tags": ["1girl sort:id:desc id:<9"], "s": ["post"]}),
    ],
)
def test_pages_are_asked_for_by_id(site: str, ask: Ask, wanted: dict[str, list[str]]) -> None:
    row: Site = SITES[site]
    url = BOARDS[row.family].page_url(row, "1girl", ask, limit=50)
    asked = parse_qs(urlsplit(url).query)
    assert asked["limit"] == ["50"]
    assert wanted.items() <= asked.items()
    assert row.allows(url)
    assert row.is_exempt_from_robots(url)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b'{"counts":{"posts":5}}', 5),
        (b'{"counts":{"posts":null}}', None),
        (b"<", None),
        (b"[]", None),
    ],
)
def test_a_count_is_read_if_there_is_one(body: bytes, count: int | None) -> None:
    assert danbooru.parse_count(body) == count
