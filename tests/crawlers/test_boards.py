"""The dialects: addresses, recorded answers, and records that are not as they should be."""

import datetime as dt
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawlers.boards import BOARDS, danbooru, gelbooru02, moebooru
from crawlers.cursor import PageRequest
from crawlers.post import Post
from crawlers.sites import Site, load_sites
from dataset.errors import CrawlError
from dataset.schemas import POSTS
from tests.hypothesis_profiles import examples

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


def test_a_recorded_gelbooru_post_has_its_tags_unescaped(real_data: Path) -> None:
    body = (real_data / "api/gelbooru.com/dapi_json1_post_14970719_2026.json").read_bytes()
    (post,) = gelbooru02.parse(body, SITES["gelbooru_com"])
    assert "grabbing_another's_arm" in post.tags_general
    assert post.created_at == dt.datetime(2026, 9, 26, 8, 51, 9, tzinfo=dt.UTC)


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


@pytest.mark.parametrize("word", ["e", "", "S", "q", "unheard-of"])
@pytest.mark.parametrize("site", ["safebooru_donmai", "gelbooru_com"])
def test_a_rating_that_is_not_known_to_be_safe_is_not_general(site: str, word: str) -> None:
    row = SITES[site]
    (post,) = BOARDS[row.family].parse(record(rating=word, tags="a"), row)
    assert post.rating != "general"


@pytest.mark.parametrize("word", ["s", "g"])
def test_the_letters_of_old_gelbooru_records_are_not_general(word: str) -> None:
    (post,) = gelbooru02.parse(record(rating=word, tags="a"), SITES["gelbooru_com"])
    assert post.rating != "general"


@pytest.mark.parametrize(
    ("site", "page_request", "wanted"),
    [
        ("demo", PageRequest("newest"), {"page": ["b2147483647"], "tags": ["1girl"]}),
        ("demo", PageRequest("above", 9), {"page": ["a9"]}),
        ("demo", PageRequest("below", 9), {"page": ["b9"]}),
        ("konachan", PageRequest("newest"), {"tags": ["1girl order:id_desc"]}),
        ("konachan", PageRequest("above", 9), {"tags": ["1girl order:id id:>9"]}),
        ("konachan", PageRequest("below", 9), {"tags": ["1girl order:id_desc id:<9"]}),
        (
            "gelbooru_com",
            PageRequest("above", 9),
            {"tags": ["1girl sort:id:asc id:>9"], "json": ["1"]},
        ),
        (
            "gelbooru_com",
            PageRequest("below", 9),
            {"tags": ["1girl sort:id:desc id:<9"], "s": ["post"]},
        ),
    ],
)
def test_pages_are_requested_for_by_id(
    site: str, page_request: PageRequest, wanted: dict[str, list[str]]
) -> None:
    row: Site = SITES[site]
    url = BOARDS[row.family].page_url(row, "1girl", page_request, limit=50)
    query = parse_qs(urlsplit(url).query)
    assert query["limit"] == ["50"]
    assert wanted.items() <= query.items()
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


NAMES = st.sampled_from(
    [
        *("id", "md5", "hash", "rating", "tags", "tag_string"),
        *("tag_string_general", "tag_string_artist", "file_url", "file_ext", "image", "directory"),
        *("image_width", "image_height", "width", "height", "created_at", "updated_at"),
        *("change", "is_deleted", "is_banned", "is_pending", "is_flagged", "is_held"),
        *("status", "score", "source", "post", "@attributes", "unheard_of"),
    ]
)
TEXTS = st.text(max_size=30) | st.sampled_from(
    ["\ud800", "a\x00b", "//[", "http://[::1", "https://a:b@c/d.png", "0001-01-01T00:00:00+14:00",
     "9999-12-31T23:59:59-12:00", "Mon Jan 01 00:00:00 +2359 0001", "9" * 30, "٣", "1e9", " "]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(NAMES, VALUES, max_size=8).map(lambda made: {"id": 1} | made)
ANSWERS = VALUES | st.lists(RECORDS, max_size=3) | st.fixed_dictionaries({"post": VALUES | RECORDS})


def outcomes(body: bytes) -> dict[str, str]:
    """How each family's parser takes an answer: "" if it reads it, else the words of its refusal.

    What is read must survive the ledger and fit the table.
    """
    errors = {}
    for family, board in BOARDS.items():
        site = next(site for site in SITES.values() if site.family == family)
        try:
            posts = board.parse(body, site)
        except CrawlError as refused:
            errors[family] = str(refused)
            continue
        errors[family] = ""
        for post in posts:
            assert Post.from_record(json.loads(json.dumps(post.to_record()))) == post
            json.dumps(post.to_record(), ensure_ascii=False).encode()
            site.allows(post.file_url or "")
        # What a parser lets through, every table takes.
        values = [{name: getattr(post, name, None) for name in POSTS.names} for post in posts]
        assert pa.Table.from_pylist(values, schema=POSTS).num_rows == len(posts)
    return errors


@settings(deadline=None, max_examples=examples(300))
@given(ANSWERS)
def test_any_json_is_parsed_or_refused_in_our_own_words(answer: Any) -> None:
    assert outcomes(json.dumps(answer).encode()).keys() == BOARDS.keys()


@settings(deadline=None, max_examples=examples(150))
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"<posts>{text}".encode()))
def test_any_bytes_are_parsed_or_refused_in_our_own_words(body: bytes) -> None:
    assert outcomes(body).keys() == BOARDS.keys()
    count = danbooru.parse_count(body)
    assert count is None or count >= 0


@pytest.mark.parametrize(
    "body",
    [
        b'[{"id": 1, "rating": "g", "score": NaN}]',
        b'[{"id": 1, "rating": "g", "score": 1' + b"0" * 5000 + b"}]",
        b'[{"id": 1, "rating": "g", "score": ' + b"[" * 300 + b"]" * 300 + b"}]",
        b'{"id": ' * 50_000,
        b'[{"id": 1, "rating": "g", "score": 3000000000}]',
        b"<posts>" * 50_000,
        b"<posts><post id='1'",
    ],
)
def test_monstrous_answers_are_refused(body: bytes) -> None:
    for family in ("danbooru", "moebooru"):
        site = next(site for site in SITES.values() if site.family == family)
        with pytest.raises(CrawlError):
            BOARDS[family].parse(body, site)


def test_unknown_keys_are_ignored_and_missing_ones_are_absent() -> None:
    (post,) = danbooru.parse(b'[{"id": 5, "rating": "g", "new": {"deep": [1]}}]', DANBOORU)
    assert (post.post_id, post.md5, post.tags, post.deleted) == (5, None, frozenset(), False)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b'<!DOCTYPE a [<!ENTITY x "boo">]><posts><post id="1" md5="&x;"/></posts>',
            "not JSON",
        ),
        (b'<?xml version="1.0"?><!DOCTYPE posts><posts/>', "with a DTD"),
        (
            b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>'
            b"<posts><post id='1' tags='&b;'/></posts>",
            "with a DTD",
        ),
        (b'<?xml version="1.0"?><html/>', "XML about html, posts wanted"),
        (b'<posts><post id="1" tags="a"/>', "broken XML"),
    ],
)
def test_xml_that_declares_or_breaks_something_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(CrawlError, match=said):
        gelbooru02.parse(body, SITES["safebooru_org"])


def test_posts_in_xml_are_read_as_elements_and_as_attributes() -> None:
    marked = (
        b'<posts type="array"><post><id type="integer">7</id><rating>g</rating><tag-string>b a'
        b"</tag-string><is-deleted type='boolean'>true</is-deleted><source nil='true'/>"
        b"<md5>" + b"0" * 32 + b"</md5></post></posts>"
    )
    (post,) = danbooru.parse(marked, DANBOORU)
    assert (post.post_id, post.tags_general, post.deleted) == (7, ("a", "b"), True)
    assert (post.md5, post.source) == ("0" * 32, None)
    flat = b'<posts count="1" offset="0"><post id="7" rating="safe" tags=" b a "/></posts>'
    (post,) = gelbooru02.parse(flat, SITES["safebooru_org"])
    assert (post.post_id, post.rating, post.tags_general) == (7, "general", ("a", "b"))
    assert gelbooru02.parse(b'<posts count="0" offset="0"/>', SITES["safebooru_org"]) == []


def test_an_original_without_an_address_lies_where_gelbooru_keeps_it() -> None:
    body = json.dumps([{"id": 1, "hash": "0" * 32, "directory": 41, "image": "ab.jpg"}]).encode()
    (post,) = gelbooru02.parse(body, SITES["safebooru_org"])
    assert post.file_url == "https://safebooru.org/images/41/ab.jpg"
    for image in ("../ab.jpg", "ab.jpg?x=1", "//evil.example/ab.jpg", None):
        body = json.dumps([{"id": 1, "tags": "", "directory": "a/b", "image": image}]).encode()
        assert gelbooru02.parse(body, SITES["safebooru_org"])[0].file_url is None


def test_an_error_that_comes_as_200_is_reported_and_is_no_empty_page() -> None:
    body = b'{"success": false, "message": "The database timed out"}'
    for family, site in (("gelbooru02", "gelbooru_com"), ("danbooru", "demo")):
        with pytest.raises(CrawlError, match='says "The database timed out"'):
            BOARDS[family].parse(body, SITES[site])
