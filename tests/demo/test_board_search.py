"""How searches are read and pages are cut, dialect by dialect, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.api import danbooru, gelbooru02, moebooru
from demo.api.search import Grammar, Numbers, RefusedError, parse_numbers, parse_query, search
from demo.collection import Collection, by_kind
from tests.demo.tiny_posts import made_collection, made_entry

CDN = "http://127.0.0.1/media"
GRAMMARS = [danbooru.GRAMMAR, moebooru.GRAMMAR, gelbooru02.GRAMMAR]
post_ids = st.sets(st.integers(1, 10_000), min_size=1, max_size=60)


def found_ids(collection: Collection, text: str, grammar: Grammar) -> list[int]:
    query = parse_query(text, grammar, collection.tags)
    return [entry.post_id for entry in search(collection, query)]


@pytest.fixture(scope="module")
def mixed() -> Collection:
    return made_collection(
        made_entry(1, tags=by_kind(general=("1girl", "blue_eyes")), score=9),
        made_entry(2, tags=by_kind(general=("1girl", "red_eyes")), rating="s", score=3),
        made_entry(3, tags=by_kind(general=("1boy", ":d")), rating="q", ext="png"),
        made_entry(4, tags=by_kind(general=("1girl",)), status="deleted"),
        made_entry(5, tags=by_kind(general=("scenery",)), status="pending"),
        made_entry(6, tags=by_kind(general=("1girl",)), banned=True),
        made_entry(7, tags=by_kind(general=("1girl",)), rating="e", status="flagged"),
    )


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("5", Numbers(listed=frozenset({5}))),
        ("1,2", Numbers(listed=frozenset({1, 2}))),
        (">5", Numbers(low=6)),
        (">=5", Numbers(low=5)),
        ("<5", Numbers(high=4)),
        ("<=5", Numbers(high=5)),
        ("5..9", Numbers(5, 9)),
        ("9..5", Numbers(5, 9)),
        ("5..", Numbers(low=5)),
        ("..9", Numbers(high=9)),
        ("-3", Numbers(listed=frozenset({-3}))),
        ("five", None),
        ("", None),
        ("1,", None),
        (">", None),
        ("5...9", None),
    ],
)
def test_numbers_are_read_as_boards_write_ranges(text: str, numbers: Numbers | None) -> None:
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", [7, 6, 5, 3, 2, 1]),
        ("1girl", [7, 6, 2, 1]),
        ("-1girl", [5, 3]),
        ("*_eyes", [2, 1]),
        ("~blue_eyes ~scenery", [5, 1]),
        (":d", [3]),
        ("nobody_has_this", []),
        ("rating:g", [6, 5, 1]),
        ("rating:g,s", [6, 5, 2, 1]),
        ("rating:general", [6, 5, 1]),
        ("-rating:e", [6, 5, 3, 2, 1]),
        ("id:>3", [7, 6, 5]),
        ("id:2..3", [3, 2]),
        ("order:id", [1, 2, 3, 5, 6, 7]),
        ("order:id_desc id:<3", [2, 1]),
        ("order:score id:..2", [1, 2]),
        ("status:any", [7, 6, 5, 4, 3, 2, 1]),
        ("status:deleted", [4]),
        ("status:banned", [6]),
        ("status:pending", [5]),
        ("status:modqueue", [7, 5]),
        ("status:active", [3, 2, 1]),
        ("filetype:png", [3]),
        ("score:>=3", [2, 1]),
    ],
)
def test_danbooru_finds(mixed: Collection, text: str, ids: list[int]) -> None:
    assert found_ids(mixed, text, danbooru.GRAMMAR) == ids


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", [7, 5, 3, 2, 1]),
        ("rating:s", [5, 1]),
        ("rating:safe", [5, 1]),
        ("rating:questionable", [3, 2]),
        ("order:id id:>2", [3, 5, 7]),
        ("deleted:true", [6, 4]),
        ("deleted:all", [7, 6, 5, 4, 3, 2, 1]),
        ("ext:png", [3]),
    ],
)
def test_moebooru_finds(mixed: Collection, text: str, ids: list[int]) -> None:
    assert found_ids(mixed, text, moebooru.GRAMMAR) == ids


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", [7, 5, 3, 2, 1]),
        ("rating:general", [5, 1]),
        ("rating:safe", [5, 1]),
        ("rating:sensitive", [2]),
        ("id:<3", [2, 1]),
        ("sort:id:asc", [1, 2, 3, 5, 7]),
        ("sort:id:desc id:>4", [7, 5]),
        ("-1girl", [5, 3]),
    ],
)
def test_gelbooru_finds(mixed: Collection, text: str, ids: list[int]) -> None:
    assert found_ids(mixed, text, gelbooru02.GRAMMAR) == ids


@pytest.mark.parametrize("word", ["wibble:3", "id:many", "rating:nice", "order:taste"])
def test_words_the_board_does_not_understand_are_ignored(mixed: Collection, word: str) -> None:
    query = parse_query(f"1girl {word}", danbooru.GRAMMAR, mixed.tags)
    assert query.ignored == (word,)
    assert [entry.post_id for entry in search(mixed, query)] == [7, 6, 2, 1]


def test_a_withheld_post_is_not_found_by_its_md5(mixed: Collection) -> None:
    first, banned = mixed.by_id(1), mixed.by_id(6)
    assert first
    assert banned
    assert found_ids(mixed, f"md5:{first.md5}", danbooru.GRAMMAR) == [1]
    assert found_ids(mixed, f"md5:{banned.md5}", danbooru.GRAMMAR) == []


@given(text=st.text(max_size=60))
def test_any_text_is_a_search(text: str) -> None:
    collection = made_collection(made_entry(1))
    for grammar in GRAMMARS:
        assert found_ids(collection, text, grammar) in ([1], [])


@given(
    params=st.dictionaries(
        st.sampled_from(["tags", "limit", "page", "pid", "id", "only", "type", "search[name]"]),
        st.text(max_size=20) | st.integers().map(str) | st.just("9" * 5000),
    )
)
def test_any_parameters_are_answered_or_refused(params: dict[str, str]) -> None:
    collection = made_collection(made_entry(1), made_entry(2))
    for posts in (
        lambda: danbooru.posts(collection, params, CDN),
        lambda: moebooru.posts(collection, params, CDN, size_of=lambda *_: 0),
        lambda: gelbooru02.find(collection, params)[0],
    ):
        try:
            answer = posts()
        except RefusedError as refused:
            assert refused.status in (410, 422, 500)  # noqa: PT017 - an answer as good as any
        else:
            assert len(answer) <= 2
    assert len(danbooru.tags(collection, params)) <= 1
    assert len(moebooru.tags(collection, params)) <= 1


def test_danbooru_counts_two_words_and_no_free_metatags(mixed: Collection) -> None:
    free = "rating:g id:>0 status:any filetype:jpg score:>-9 limit:5"
    assert danbooru.posts(mixed, {"tags": f"1girl blue_eyes {free}"}, CDN)
    for third in ("solo", "-solo", "order:id"):
        with pytest.raises(RefusedError) as refused:
            danbooru.posts(mixed, {"tags": f"1girl blue_eyes {third}"}, CDN)
        assert refused.value.status == 422
        assert refused.value.body["error"] == "PostQuery::TagLimitError"


def test_danbooru_page_1000_is_the_last_numbered_one(mixed: Collection) -> None:
    assert danbooru.posts(mixed, {"page": "1000"}, CDN) == []
    with pytest.raises(RefusedError) as refused:
        danbooru.posts(mixed, {"page": "1001"}, CDN)
    assert refused.value.status == 410


def test_danbooru_page_a_gives_the_next_ids_in_descending_order() -> None:
    collection = made_collection(*(made_entry(post_id) for post_id in range(1, 11)))
    page = danbooru.posts(collection, {"page": "a4", "limit": "3"}, CDN)
    assert [record["id"] for record in page] == [7, 6, 5]


def test_a_limit_above_the_largest_is_clamped() -> None:
    collection = made_collection(*(made_entry(post_id) for post_id in range(1, 303)))
    assert len(danbooru.posts(collection, {}, CDN)) == 20
    assert len(danbooru.posts(collection, {"limit": "1000"}, CDN)) == 200
    assert len(danbooru.posts(collection, {"tags": "limit:30"}, CDN)) == 30
    moebooru_page = moebooru.posts(collection, {"limit": "1000"}, CDN, size_of=lambda *_: 0)
    assert len(moebooru_page) == 100
    assert len(gelbooru02.find(collection, {"limit": "1000"})[0]) == 100


def test_moebooru_refuses_a_seventh_word(mixed: Collection) -> None:
    with pytest.raises(RefusedError, match="6 tags"):
        moebooru.posts(mixed, {"tags": "a b c d e f g"}, CDN, size_of=lambda *_: 0)


@given(ids=post_ids, limit=st.integers(1, 30))
def test_following_danbooru_down_reaches_every_post_once(ids: set[int], limit: int) -> None:
    collection = made_collection(*(made_entry(post_id) for post_id in ids))
    seen: list[int] = []
    params = {"limit": str(limit)}
    while page := danbooru.posts(collection, params, CDN):
        seen += [record["id"] for record in page]
        params["page"] = f"b{min(record['id'] for record in page)}"
    assert seen == sorted(ids, reverse=True)


@given(ids=post_ids, limit=st.integers(1, 30))
def test_following_danbooru_up_reaches_every_post_once(ids: set[int], limit: int) -> None:
    collection = made_collection(*(made_entry(post_id) for post_id in ids))
    seen: list[int] = []
    params = {"limit": str(limit), "page": "a0"}
    while page := danbooru.posts(collection, params, CDN):
        seen += [record["id"] for record in page]
        params["page"] = f"a{max(record['id'] for record in page)}"
    assert len(seen) == len(ids)
    assert set(seen) == ids


@given(ids=post_ids, limit=st.integers(1, 30))
def test_following_moebooru_up_reaches_every_post_once(ids: set[int], limit: int) -> None:
    collection = made_collection(*(made_entry(post_id) for post_id in ids))
    seen: list[int] = []
    last = 0
    while True:
        params = {"limit": str(limit), "tags": f"order:id id:>{last}"}
        page = moebooru.posts(collection, params, CDN, size_of=lambda *_: 0)
        if not page:
            break
        seen += [record["id"] for record in page]
        last = seen[-1]
    assert seen == sorted(ids)


@given(ids=post_ids, limit=st.integers(1, 30), by_pid=st.booleans())
def test_following_gelbooru_reaches_every_post_once(
    ids: set[int], limit: int, by_pid: bool
) -> None:
    collection = made_collection(*(made_entry(post_id) for post_id in ids))
    seen: list[int] = []
    params = {"limit": str(limit), "pid": "0"}
    while page := gelbooru02.find(collection, params)[0]:
        seen += [entry.post_id for entry in page]
        if by_pid:
            params["pid"] = str(int(params["pid"]) + 1)
        else:
            params["tags"] = f"id:<{seen[-1]}"
    assert seen == sorted(ids, reverse=True)
