"""The records' fields against recorded answers of the real boards, and what withholding drops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from demo.api import danbooru, gelbooru02, moebooru
from demo.api.search import RefusedError
from demo.collection import by_kind
from tests.demo.tiny_posts import made_collection, made_entry

CDN = "http://127.0.0.1/media"


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def types_of(record: dict[str, Any]) -> dict[str, type]:
    """The JSON types of what is there; a null says nothing of its field's type."""
    return {key: type(value) for key, value in record.items() if value is not None}


def assert_same_types(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    our_types, their_types = types_of(ours), types_of(theirs)
    for key in our_types.keys() & their_types.keys():
        assert our_types[key] is their_types[key], key


def test_a_danbooru_post_has_the_real_keys_in_their_order(recorded: Path) -> None:
    theirs = load(recorded / "danbooru.donmai.us" / "post_9969513_2025.json")
    theirs = theirs[0] if isinstance(theirs, list) else theirs
    ours = danbooru.post(made_entry(5, width=2048, height=2048), CDN)
    assert list(ours) == list(theirs)
    assert list(ours["media_asset"]) == list(theirs["media_asset"])
    assert_same_types(ours, theirs)
    assert_same_types(ours["media_asset"], theirs["media_asset"])
    shape = [(v["type"], v["width"], v["height"], v["file_ext"]) for v in variants(ours)]
    real = [(v["type"], v["width"], v["height"], v["file_ext"]) for v in variants(theirs)]
    assert shape == real


def variants(record: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = record["media_asset"]["variants"]
    return found


def test_a_withheld_danbooru_post_lacks_just_what_the_real_one_lacks(recorded: Path) -> None:
    theirs = load(recorded / "danbooru.donmai.us" / "DERIVED_post_banned_no_url.json")[0]
    ours = danbooru.post(made_entry(5, banned=True), CDN)
    assert list(ours) == list(theirs)
    assert list(ours["media_asset"]) == list(theirs["media_asset"])


def test_an_animated_danbooru_post_has_a_duration_and_no_sample(recorded: Path) -> None:
    theirs = load(recorded / "danbooru.donmai.us" / "posts_animated_gif_2023.json")[0]
    entry = made_entry(5, ext="gif", width=500, height=708, duration_s=4.16)
    ours = danbooru.post(entry, CDN)
    assert list(ours) == list(theirs)
    assert ours["media_asset"]["duration"] == theirs["media_asset"]["duration"]
    assert [v["type"] for v in variants(ours)] == [v["type"] for v in variants(theirs)]
    assert [v["width"] for v in variants(ours)] == [v["width"] for v in variants(theirs)]
    assert not ours["has_large"]


def test_danbooru_tags_have_the_real_keys(recorded: Path) -> None:
    theirs = load(recorded / "safebooru.donmai.us" / "tags_2026-10.json")[0]
    (ours,) = danbooru.tags(made_collection(made_entry(1)), {})
    # The recorded answer was trimmed: the real one has these two as well.
    assert ours.keys() - theirs.keys() == {"updated_at", "words"}
    assert theirs.keys() <= ours.keys()
    assert_same_types(ours, theirs)


def test_the_tag_limits_error_has_the_real_body(recorded: Path) -> None:
    theirs = load(recorded / "danbooru.donmai.us" / "error_422_tag_limit.json")
    with pytest.raises(RefusedError) as refused:
        danbooru.posts(made_collection(made_entry(1)), {"tags": "a b c"}, CDN)
    assert refused.value.body == {**theirs, "backtrace": []}


def test_a_moebooru_post_has_the_real_keys_in_their_order(recorded: Path) -> None:
    (theirs,) = load(recorded / "konachan.net" / "post_334771_s_2021.json")
    entry = made_entry(5, width=3000, height=1957)
    ours = moebooru.post(entry, CDN, lambda *_: 12345)
    assert list(ours) == list(theirs)
    assert_same_types(ours, theirs)
    for side in ("sample_width", "sample_height", "jpeg_width", "preview_width", "preview_height"):
        assert ours[side] == theirs[side]
    assert ours["jpeg_url"] == ours["file_url"]
    assert ours["jpeg_file_size"] == 0


def test_a_moebooru_png_gets_a_jpeg_of_its_own(recorded: Path) -> None:
    theirs = load(recorded / "apkawa_booru-rs" / "konachan_post.json")[0]
    assert theirs["file_url"].endswith(".png")
    ours = moebooru.post(made_entry(5, ext="png"), CDN, lambda *_: 12345)
    for record in (ours, theirs):
        assert record["jpeg_url"].endswith(".jpg")
        assert record["jpeg_file_size"] > 0


def test_a_deleted_moebooru_post_lacks_the_file_urls() -> None:
    size_of = lambda *_: 0  # noqa: E731
    whole = moebooru.post(made_entry(5), CDN, size_of)
    for gone in (made_entry(5, status="deleted"), made_entry(5, banned=True)):
        deleted = moebooru.post(gone, CDN, size_of)
        assert whole.keys() - deleted.keys() == {"file_url", "sample_url", "jpeg_url"}
        assert deleted.keys() - whole.keys() == {"flag_detail"}
        assert deleted["status"] == "deleted"


def test_moebooru_tags_have_the_real_keys(recorded: Path) -> None:
    theirs = load(recorded / "single_posts" / "yandere_tag_2026.json")[0]
    (ours,) = moebooru.tags(made_collection(made_entry(1)), {})
    assert list(ours) == list(theirs)


def test_a_safebooru_post_has_the_real_keys_in_their_order(recorded: Path) -> None:
    (theirs,) = load(recorded / "safebooru.org" / "dapi_json1_post_6077620_2025.json")
    (ours,) = gelbooru02.safebooru_json([made_entry(5, width=2160, height=1215)], CDN)
    assert list(ours) == list(theirs)
    assert_same_types(ours, theirs)
    for side in ("sample", "sample_width", "sample_height"):
        assert ours[side] == theirs[side]
    for record in (ours, theirs):
        assert record["hash"] not in record["file_url"]


def test_a_gelbooru_post_has_the_real_keys_in_their_order(recorded: Path) -> None:
    theirs = load(recorded / "gelbooru.com" / "dapi_json1_post_14970719_2026.json")
    entry = made_entry(5, width=1334, height=1002, tags=by_kind(general=("another's_arm", ">_<")))
    ours = gelbooru02.gelbooru_json([entry], {"limit": 1, "offset": 0, "count": 1}, CDN)
    assert list(ours) == list(theirs)
    assert list(ours["@attributes"]) == list(theirs["@attributes"])
    assert list(ours["post"][0]) == list(theirs["post"][0])
    assert_same_types(ours["post"][0], theirs["post"][0])
    assert ours["post"][0]["tags"] == "&gt;_&lt; another&#039;s_arm"


def test_an_empty_gelbooru_answer_has_no_post_key(recorded: Path) -> None:
    theirs = load(recorded / "gelbooru.com" / "dapi_empty_no_post_key.json")
    assert gelbooru02.gelbooru_json([], {"limit": 1, "offset": 0, "count": 0}, CDN) == theirs


def test_the_xml_answer_has_the_real_attributes(recorded: Path) -> None:
    text = (recorded / "bionus_imgbrd-grabber" / "gelbooru_dapi_posts_2017.xml").read_text()
    theirs = ElementTree.fromstring(text)
    ours = ElementTree.fromstring(
        gelbooru02.safebooru_xml([made_entry(5)], {"limit": 1, "offset": 0, "count": 1}, CDN)
    )
    assert ours.keys() == theirs.keys()
    assert list(ours[0].keys()) == list(theirs[0].keys())


def test_gelbooru_tags_have_the_real_keys(recorded: Path) -> None:
    theirs = load(recorded / "single_posts" / "gelbooru_dapi_tag_2024.json")
    found, attributes = gelbooru02.find_tags(made_collection(made_entry(1)), {})
    ours = gelbooru02.tags_json(found, attributes)
    assert list(ours) == list(theirs)
    assert list(ours["tag"][0]) == list(theirs["tag"][0])
    real_xml = (recorded / "single_posts" / "safebooru_org_dapi_tag_2026.xml").read_text()
    real_tag = ElementTree.fromstring(real_xml)[0]
    our_tag = ElementTree.fromstring(gelbooru02.tags_xml(found))[0]
    assert set(our_tag.keys()) == set(real_tag.keys())


def test_only_keeps_the_named_fields() -> None:
    collection = made_collection(made_entry(5))
    (record,) = danbooru.posts(collection, {"only": "id,md5,media_asset[status],nonsense"}, CDN)
    assert record == {"id": 5, "md5": record["md5"], "media_asset": {"status": "active"}}
