"""What may be stored: the policy's reasons, the takedown list, and the search checked again."""

from typing import Any

import pytest

from crawlers.post import matches
from dataset.errors import ConfigError
from dataset.policy import EXCLUDED_TAGS, Takedowns, drop_reason, parse_takedowns
from tests.crawlers.conftest import MakePost


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"ext": None}, None),
        ({"rating": "sensitive"}, "rating"),
        ({"rating": "questionable"}, "rating"),
        ({"rating": "explicit"}, "rating"),
        ({"deleted": True}, "deleted"),
        ({"banned": True, "md5": None}, "banned"),
        ({"pending": True}, "pending"),
        ({"flagged": True}, "flagged"),
        ({"tags_general": ("1girl", "loli")}, "tag_loli"),
        ({"tags_meta": ("ai-generated",)}, "tag_ai-generated"),
        ({"tags_general": ("comic", "4koma")}, "tag_4koma"),
        ({"tags_meta": ("photo_(medium)",)}, "tag_photo_(medium)"),
        ({"ext": "mp4"}, "format"),
        ({"ext": "zip"}, "format"),
        ({"md5": None}, "withheld"),
        ({"file_url": None}, "withheld"),
    ],
)
def test_a_post_that_may_not_be_stored_has_a_reason(
    make_post: MakePost, changes: dict[str, Any], reason: str | None
) -> None:
    assert drop_reason(make_post(**changes), Takedowns()) == reason


@pytest.mark.parametrize("tag", sorted(EXCLUDED_TAGS))
def test_an_excluded_tag_of_any_kind_refuses(make_post: MakePost, tag: str) -> None:
    for kind in ("general", "character", "copyright", "meta"):
        assert drop_reason(make_post(**{f"tags_{kind}": (tag,)}), Takedowns()) == f"tag_{tag}"


def test_a_configuration_adds_to_the_excluded_tags(make_post: MakePost) -> None:
    assert drop_reason(make_post(), Takedowns(), excluded=["solo"]) == "tag_solo"
    post = make_post(tags_general=("loli",))
    assert drop_reason(post, Takedowns(), excluded=["solo"]) == "tag_loli"


def test_a_takedown_covers_md5_post_and_artist(make_post: MakePost) -> None:
    lines = [
        "# requested by mail",
        f"md5 {5:032X}",
        "post demo/6  # the owner",
        "artist Some One",
        "",
    ]
    takedowns = parse_takedowns(lines, where="takedown.txt")
    assert drop_reason(make_post(5), takedowns) == "takedown"
    assert drop_reason(make_post(6), takedowns) == "takedown"
    assert drop_reason(make_post(6, board="konachan"), takedowns) is None
    assert drop_reason(make_post(7, tags_artist=("some_one",)), takedowns) == "takedown"
    assert drop_reason(make_post(7, tags_general=("some_one",)), takedowns) == "takedown"
    assert drop_reason(make_post(8), takedowns) is None


def test_every_line_of_a_takedown_list_that_is_not_understood_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_takedowns(["md5 123", "post 7", "painter x", "artist ok"], where="h/takedown.txt")
    text = str(caught.value)
    assert text.startswith("h/takedown.txt is not a takedown list:")
    assert 'line 1: "md5 123"; "md5 <32 hex digits>"' in text
    assert 'line 2: "post 7"' in text
    assert 'line 3: "painter x"' in text
    assert "line 4" not in text


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        ("", True),
        ("1girl solo", True),
        ("1Girl", True),
        ("someone", True),
        ("1boy", False),
        ("1girl -solo", False),
        ("-1boy", True),
        ("rating:g id:>5 -status:deleted", True),
        ("~1boy ~1girl", True),
        ("1g*", True),
        ("-", False),
    ],
)
def test_the_plain_tags_of_a_search_are_checked_again(
    make_post: MakePost, words: str, fits: bool
) -> None:
    assert matches(words, make_post()) is fits
