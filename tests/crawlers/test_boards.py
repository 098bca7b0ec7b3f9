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
from crawlers.boards.record import BrokenPage, board_words, spoiler_of
from crawlers.cursor import PageRequest
from crawlers.post import Post, same_content
from crawlers.sites import Site, load_sites
from dataset.errors import CrawlError
from dataset.schemas import POSTS
from tests.hypothesis_profiles import examples

SITES = load_sites()
DANBOORU = SITES["safebooru_donmai"]


def record(**changes: Any) -> bytes:
    fields = {"id": 7, "md5": "0" * 32, "rating": "g", "tag_string": "b a a"}
    return json.dumps([fields | changes]).encode()


def test_a_recorded_danbooru_post_is_read_with_its_tags_by_kind(real_data: Path) -> None:
    body = (real_data / "api/danbooru.donmai.us/post_9969513_2025.json").read_bytes()
    (post,) = danbooru.parse(body, DANBOORU).posts
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
    post, video, *_ = danbooru.parse(body, DANBOORU).posts
    assert post.tags_artist == ("qitoli",)
    assert "blue_archive" in post.tags_general
    assert "qitoli" not in post.tags_general
    assert video.ext == "mp4"


def test_a_recorded_moebooru_post_is_read(real_data: Path) -> None:
    body = (real_data / "api/konachan.net/post_334771_s_2021.json").read_bytes()
    (post,) = moebooru.parse(body, SITES["konachan"]).posts
    assert (post.post_id, post.rating, post.ext) == (334771, "general", "jpg")
    assert (post.width, post.height) == (3000, 1957)
    assert post.created_at == dt.datetime.fromtimestamp(1637545469, dt.UTC)
    assert post.file_url is not None
    assert SITES["konachan"].allows(post.file_url)


def test_a_recorded_gelbooru_post_has_its_tags_unescaped(real_data: Path) -> None:
    body = (real_data / "api/gelbooru.com/dapi_json1_post_14970719_2026.json").read_bytes()
    (post,) = gelbooru02.parse(body, SITES["gelbooru_com"]).posts
    assert "grabbing_another's_arm" in post.tags_general
    assert post.created_at == dt.datetime(2026, 9, 26, 8, 51, 9, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": None}, "the id of a post is None, a number wanted"),
        ({"id": -3}, "the id of a post is -3, a number wanted"),
        ({"id": 7.5}, "the id of a post is 7.5, a number wanted"),
        ({"id": "9" * 19}, "the id of a post is '9999999999999999999', a number wanted"),
        ({"md5": "xyz"}, "md5 is 'xyz', an md5 of 32 hex digits wanted"),
        ({"md5": 5}, "md5 is 5, text wanted"),
        (
            {"image_width": "wide"},
            "image_width is 'wide', a whole number of at most 2,147,483,647 wanted",
        ),
        ({"image_height": 64.5}, "image_height is 64.5, a whole number of at most 2,147,483,647"),
        ({"file_url": "file:///etc/passwd"}, "file_url is 'file:///etc/passwd', an address wanted"),
        ({"file_url": "original/a.png"}, "file_url is 'original/a.png', an address wanted"),
        ({"file_ext": ["png"]}, "file_ext is ['png'], text wanted"),
        ({"rating": 1}, "rating is 1, text wanted"),
        ({"is_deleted": "perhaps"}, "is_deleted is 'perhaps', true or false wanted"),
        ({"tag_string": ["a", None]}, "tag_string is ['a', None], text wanted"),
        ({"tag_string_meta": {}}, "tag_string_meta is {}, text wanted"),
        ({"tag_string": None}, "tag_string_general is None, text wanted"),
        ({"tag_string": "lo\x01li a"}, "text without control characters or broken letters wanted"),
        ({"tag_string": "lo\ud800li"}, "text without control characters or broken letters wanted"),
        ({"tag_string_meta": "\ufffdomic"}, "text without control characters or broken letters"),
    ],
)
def test_a_record_with_a_bad_deciding_field_is_set_apart_and_the_others_are_read(
    changes: dict[str, Any], reason: str
) -> None:
    good, odd = json.loads(record(id=8))[0], json.loads(record(**changes))[0]
    (post,), (bad,) = danbooru.parse(json.dumps([odd, good]).encode(), DANBOORU)
    assert post.post_id == 8
    assert bad.post_id == (None if "id" in changes else 7)
    assert reason in bad.reason
    assert json.loads(bad.raw) == odd


@pytest.mark.parametrize(
    "changes",
    [
        {"source": 12345},
        {"source": ["a", "b"]},
        {"source": "tab\there"},
        {"score": 3.5},
        {"score": "9" * 40},
        {"created_at": "yesterday"},
        {"created_at": {"json_class": "Time", "s": 1_700_000_000, "n": 0}},
        {"updated_at": []},
        {"parent_id": {"id": 1}},
    ],
)
def test_an_odd_field_that_decides_nothing_is_null(changes: dict[str, Any]) -> None:
    (post,), bad = danbooru.parse(record(**changes), DANBOORU)
    assert not bad
    assert all(getattr(post, name, None) is None for name in changes)
    (plain,), _ = danbooru.parse(record(), DANBOORU)
    assert same_content(post.to_record(), plain.to_record())


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("moebooru", {"created_at": {"json_class": "Time", "s": 1, "n": 0}}),
        ("moebooru", {"updated_at": "soon"}),
        ("gelbooru02", {"created_at": 17}),
        ("gelbooru02", {"change": "soon"}),
        ("gelbooru02", {"source": 5}),
    ],
)
def test_odd_times_and_sources_of_flat_boards_are_null(
    family: str, changes: dict[str, Any]
) -> None:
    site = next(site for site in SITES.values() if site.family == family)
    (post,), bad = BOARDS[family].parse(record(tags="a", **changes), site)
    assert not bad
    assert (post.created_at, post.updated_at, post.source) == (None, None, None)


@pytest.mark.parametrize("family", ["moebooru", "gelbooru02"])
@pytest.mark.parametrize(
    "changes",
    [{"status": "hidden"}, {"status": 0}, {"tags": ["a", None]}, {"tags": None}, {"width": "?"}],
)
def test_a_flat_record_with_a_bad_deciding_field_is_set_apart(
    family: str, changes: dict[str, Any]
) -> None:
    site = next(site for site in SITES.values() if site.family == family)
    posts, (bad,) = BOARDS[family].parse(record(**({"tags": "a"} | changes)), site)
    assert not posts
    assert next(iter(changes)) in bad.reason


def test_a_tag_that_no_kind_lists_is_still_a_tag_of_the_post() -> None:
    body = record(tag_string="a b loli", tag_string_general="a", tag_string_meta="b")
    (post,) = danbooru.parse(body, DANBOORU).posts
    assert (post.tags_general, post.tags_meta) == (("a", "loli"), ("b",))


@pytest.mark.parametrize(
    ("site", "given", "made"),
    [
        ("danbooru_donmai", "/data/a/0c/x.png", "https://danbooru.donmai.us/data/a/0c/x.png"),
        ("konachan", "//konachan.com/x.png", "https://konachan.com/x.png"),
        ("demo", "/media/x.png", "http://127.0.0.1:4650/media/x.png"),
        ("demo", "//127.0.0.1:4650/media/x.png", "http://127.0.0.1:4650/media/x.png"),
        ("konachan", "https://konachan.net/x.png", "https://konachan.net/x.png"),
    ],
)  # fmt: skip
def test_an_address_is_relative_to_the_boards_api(site: str, given: str, made: str) -> None:
    row = SITES[site]
    (post,) = BOARDS[row.family].parse(record(file_url=given, tags="a"), row).posts
    assert post.file_url == made
    assert row.allows(made)


@pytest.mark.parametrize(
    "given",
    ["//evil.example/x.png", "/\t/evil.example/x.png", "/\\evil.example/",
     "//danbooru.donmai.us@evil.example/x.png", "//danbooru.donmai.us:8080/x.png", "//[::1"],
)  # fmt: skip
def test_a_relative_address_leads_to_no_other_host(given: str) -> None:
    posts, bad = danbooru.parse(record(file_url=given), DANBOORU)
    assert bad or not DANBOORU.allows(str(posts[0].file_url))


@pytest.mark.parametrize(
    ("body", "source"),
    [
        (record(source="@").replace(b"@", b"a\tb"), None),
        (record(source="@").replace(b"@", b"\xe3\x81"), None),
        (record(source="fine", score="@").replace(b'"@"', b"1" + b"0" * 5000), "fine"),
        (b"\xef\xbb\xbf" + record(source="@").replace(b"@", b"a\nb"), None),
    ],
)
def test_json_with_damaged_texts_is_read(body: bytes, source: str | None) -> None:
    (post,), bad = danbooru.parse(body, DANBOORU)
    assert not bad
    assert (post.source, post.score) == (source, None)


@pytest.mark.parametrize("damage", [b"\x01", b"\n", b"\xff", b"\xe3\x81", b"\xc3"])
@pytest.mark.parametrize("key", ["tag_string", "md5", "rating", "file_url", "file_ext"])
def test_damage_in_a_deciding_text_sets_the_record_apart(key: str, damage: bytes) -> None:
    values = {"md5": "0" * 32, "rating": "g", "file_ext": "png", "tag_string": "loli"}
    text = values.get(key, "https://cdn.donmai.us/x.png")
    body = record(**{key: f"{text[:2]}@{text[2:]}"}).replace(b"@", damage)
    posts, (bad,) = danbooru.parse(body[:-1] + b"," + record(id=8)[1:], DANBOORU)
    assert [post.post_id for post in posts] == [8]
    assert bad.post_id == 7
    assert bad.reason.startswith(key)


@pytest.mark.parametrize(
    "body",
    [
        record()[:-9],
        b'[{"id": 7, "tag_string": "a " b"}]',
        b'[{"id": 7, "tag_string": "\\x"}]',
        b'[{"id": 7, "score": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
        b"[",
    ],
)
def test_json_that_breaks_off_is_a_broken_page(body: bytes) -> None:
    with pytest.raises(BrokenPage, match="safebooru_donmai: the answer is not JSON"):
        danbooru.parse(body, DANBOORU)


@pytest.mark.parametrize(
    ("body", "post_id"),
    [
        (b'[{"id":7,"x":"', 7),
        (b'[{"created_at":"now","id":"7","x":"', 7),
        (b'{"@attributes":{"limit":1},"post":[{"id":7,"x":"', 7),
        (b'{"id":7,"x":"', 7),
        (b'[{"x":{"id":7},"y":"', None),
        (b'[{"media":{"a":1},"id":7,"y":"', None),
        (b'[{"x":"\\"id\\":7', None),
        (b'[{"id":0,', None),
        (b"[", None),
    ],
)
def test_the_id_of_a_broken_record_is_its_own_or_not_known(
    body: bytes, post_id: int | None
) -> None:
    found = spoiler_of(body, BrokenPage("broken"))
    assert (found.post_id if found else None) == post_id


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
    (post,) = BOARDS[row.family].parse(record(rating=word, tags="a"), row).posts
    assert post.rating != "general"


@pytest.mark.parametrize("word", ["s", "g"])
def test_the_letters_of_old_gelbooru_records_are_not_general(word: str) -> None:
    (post,) = gelbooru02.parse(record(rating=word, tags="a"), SITES["gelbooru_com"]).posts
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
            posts, bad = board.parse(body, site)
        except CrawlError as refused:
            errors[family] = str(refused)
            continue
        errors[family] = ""
        assert all(one.reason and isinstance(one.raw, str) for one in bad)
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
        b'{"id": ' * 50_000,
        b"<posts>" * 50_000,
        b"<posts><post id='1'",
        b'[{"id": 1, "name": "a tag", "post_count": 3}]',
        b"[null, 5]",
    ],
)
def test_monstrous_answers_are_refused(body: bytes) -> None:
    for family in ("danbooru", "moebooru"):
        site = next(site for site in SITES.values() if site.family == family)
        with pytest.raises(CrawlError):
            BOARDS[family].parse(body, site)


@pytest.mark.parametrize(
    "score", [b"NaN", b"1" + b"0" * 5000, b"[" * 300 + b"]" * 300, b"3000000000", b"1e400"]
)
def test_a_monstrous_score_is_null(score: bytes) -> None:
    (post,), bad = danbooru.parse(record(score="@").replace(b'"@"', score), DANBOORU)
    assert (post.score, bad) == (None, [])


def test_unknown_keys_are_ignored_and_missing_ones_are_absent() -> None:
    (post,) = danbooru.parse(b'[{"id": 5, "tag_string": "", "new": {"deep": [1]}}]', DANBOORU).posts
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
    (post,) = danbooru.parse(marked, DANBOORU).posts
    assert (post.post_id, post.tags_general, post.deleted) == (7, ("a", "b"), True)
    assert (post.md5, post.source) == ("0" * 32, None)
    flat = b'<posts count="1" offset="0"><post id="7" rating="safe" tags=" b a "/></posts>'
    (post,) = gelbooru02.parse(flat, SITES["safebooru_org"]).posts
    assert (post.post_id, post.rating, post.tags_general) == (7, "general", ("a", "b"))
    assert gelbooru02.parse(b'<posts count="0" offset="0"/>', SITES["safebooru_org"]).size == 0


def test_an_original_without_an_address_lies_where_gelbooru_keeps_it() -> None:
    body = json.dumps(
        [{"id": 1, "hash": "0" * 32, "tags": "", "directory": 41, "image": "ab.jpg"}]
    ).encode()
    (post,) = gelbooru02.parse(body, SITES["safebooru_org"]).posts
    assert post.file_url == "https://safebooru.org/images/41/ab.jpg"
    for image in ("../ab.jpg", "ab.jpg?x=1", "//evil.example/ab.jpg", None):
        body = json.dumps([{"id": 1, "tags": "", "directory": "a/b", "image": image}]).encode()
        assert gelbooru02.parse(body, SITES["safebooru_org"]).posts[0].file_url is None


def test_an_error_that_comes_as_200_is_reported_and_is_no_empty_page() -> None:
    body = b'{"success": false, "message": "The database timed out"}'
    for family, site in (("gelbooru02", "gelbooru_com"), ("danbooru", "demo")):
        with pytest.raises(CrawlError, match='says "The database timed out"'):
            BOARDS[family].parse(body, SITES[site])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'"Missing authentication. Go to x"', "Missing authentication. Go to x"),
        (b"Missing authentication. Go to x\n", "Missing authentication. Go to x"),
        (b"Search error: API limited due to abuse.", "Search error: API limited due to abuse."),
        (b'{"success": false, "reason": "too\\nmany   tags"}', "too many tags"),
        (b'{"success": false}', "success: false"),
        (b'{"error": {"message": "No key"}}', "No key"),
        (b"<error>Missing authentication</error>", "Missing authentication"),
        (b'<?xml version="1.0"?>\n<response success="false" reason="search down"/>', "search down"),
        (b"<response><success>false</success><reason>no</reason></response>", "false no"),
        (b"<!DOCTYPE html><title>Access denied | board</title><p>Ray ID", "Access denied | board"),
        (b"<html><title>Wait...</title><script src=/cdn-cgi/challenge-platform/x>", "Wait..."),
        (b"<html><title>Just a moment</title>The board is under maintenance.</html>", ""),
        (b"<html></html>", ""),
        (b'<!DOCTYPE a [<!ENTITY x "boo">]><error>&x;</error>', ""),
        (b'<posts count="0"/>', ""),
        (b"<error>no end", ""),
        (record(), ""),
        (record()[:-5], ""),
        (b"", ""),
        (b"[]", ""),
        (b"null", ""),
        (b"word", ""),
        (b"\xff\xfe\x00", ""),
        (b'"' + b"a " * 500 + b'"', " ".join("a" * 80)),
    ],
)  # fmt: skip
def test_the_words_of_a_refusal_are_known_whatever_they_are_packed_in(
    body: bytes, words: str
) -> None:
    assert board_words(body) == words


@pytest.mark.parametrize("damage", [b"\x01", b"\xff", b"\xe3\x81", b"\x00"])
def test_a_damaged_letter_in_xml_costs_only_the_record_whose_deciding_field_has_it(
    damage: bytes,
) -> None:
    body = b"""<?xml version="1.0" encoding="UTF-8"?><posts count="3" offset="0">
        <post id="3" tags="a@b" source="" rating="general"/>
        <post id="2" tags="a" source="x@y" rating="general"/>
        <post id="1" tags="a" source="\xe3\x81\x82" rating="general"/></posts>"""
    posts, (bad,) = gelbooru02.parse(body.replace(b"@", damage), SITES["safebooru_org"])
    assert [(post.post_id, post.source) for post in posts] == [(2, None), (1, "\u3042")]
    assert (bad.post_id, bad.reason.partition(" ")[0]) == (3, "tags")


def test_an_empty_answer_of_gelbooru_is_broken_and_is_requested_as_xml() -> None:
    site = SITES["safebooru_org"]
    with pytest.raises(BrokenPage, match="the answer is empty"):
        gelbooru02.parse(b" \n", site)
    url = gelbooru02.page_url(site, "1girl", PageRequest("newest"), limit=5)
    assert "json" in parse_qs(urlsplit(url).query)
    second = gelbooru02.second_url(url)
    assert "json" not in parse_qs(urlsplit(second).query)
    assert site.is_exempt_from_robots(second)
    assert gelbooru02.second_url(second) == second
