"""The curated list knows every frequent appearance tag of a real board, or why it is left out."""

import csv
from pathlib import Path

import numpy as np
import pytest

from dataset.errors import ConfigError
from dataset.labels import LabelSettings, choose_labels
from dataset.policy import EXCLUDED_TAGS
from dataset.vocabulary import appearance, read_vocabulary, sided
from tests.dataset.home import Home
from tests.dataset.test_labels import fill

FREQUENT = 10_000  # posts, of about POSTS
POSTS = 9_500_000
WITHOUT_COLOUR = 0.15  # comics, sketches, monochrome: they tell no hair or eye colour
PLAUSIBLE = {
    "short_hair", "long_hair", "blonde_hair", "black_hair", "brown_hair", "blue_hair",
    "white_hair", "pink_hair", "grey_hair", "purple_hair", "red_hair", "green_hair", "blue_eyes",
    "red_eyes", "brown_eyes", "green_eyes", "purple_eyes", "yellow_eyes", "hair_ornament",
    "animal_ears", "twintails", "ahoge", "ponytail",
}  # fmt: skip
# On the board too, the first of these stand only beside the second.
KINDS = {
    "_long_hair": "long_hair", "_ears": "animal_ears", "_hair_ornament": "hair_ornament",
    "_ponytail": "ponytail", "_twintails": "twintails", "_ahoge": "ahoge",
    "_blue_hair": "blue_hair",
}  # fmt: skip


@pytest.fixture(scope="module")
def counts(real_data: Path) -> dict[str, int]:
    """Posts of each appearance tag on a real board, the most frequent first."""
    with (real_data / "appearance_tag_counts.csv").open(newline="") as file:
        return {row["tag"]: int(row["post_count"]) for row in csv.DictReader(file)}


def faces_like(counts: dict[str, int], faces: int) -> list[list[str]]:
    """Tags of that many faces on coloured pictures, each tag in proportion to the board's count."""
    rng = np.random.default_rng(0)
    with_tag: dict[str, list[int]] = {}
    for tag, count in counts.items():
        colour = appearance().groups.get(tag) in ("hair_colour", "eye_colour")
        part = count / (POSTS * (1 - WITHOUT_COLOUR) if colour else POSTS)
        kind = next((kind for ending, kind in KINDS.items() if tag.endswith(ending)), "")
        among = with_tag.get(kind, range(faces)) if tag != "pointy_ears" else range(faces)
        with_tag[tag] = rng.permutation(among)[: round(part * faces)].tolist()
    tags: list[list[str]] = [[] for _ in range(faces)]
    for tag, rows in with_tag.items():
        for row in rows:
            tags[row].append(tag)
    return tags


def test_every_frequent_tag_is_curated_or_left_out_with_a_reason(counts: dict[str, int]) -> None:
    vocabulary = appearance()
    frequent = {tag for tag, count in counts.items() if count >= FREQUENT}
    assert len(frequent) > 150
    assert frequent - set(vocabulary.meaning) - set(vocabulary.left_out) == set()
    assert all(len(reason) > 10 for reason in vocabulary.left_out.values())


def test_real_counts_give_the_plausible_labels(home: Home, counts: dict[str, int]) -> None:
    fill(home, faces_like(counts, 2000))
    made = choose_labels(home.store, LabelSettings())
    assert set(made.labels) == PLAUSIBLE
    assert made.labels[:2] == ["long_hair", "hair_ornament"]
    assert made.warning is None
    assert made.cut["hat"].why == "left_out"
    assert made.cut["hair_bow"].counts_as == ["hair_ornament"]
    assert made.cut["cat_ears"].why == "too_rare"
    assert made.cut["cat_ears"].text.endswith("wanted; it counts as animal_ears")


def test_vocabulary_knows_the_plausible_labels_and_no_expression() -> None:
    vocabulary = appearance()
    assert set(vocabulary.groups) >= PLAUSIBLE
    assert not {"smile", "closed_eyes", "blush", "bow", "ribbon"} & set(vocabulary.meaning)
    assert vocabulary.meaning["very_long_hair"] == ("long_hair",)
    assert vocabulary.meaning["high_side_ponytail"] == ("side_ponytail", "ponytail")
    assert vocabulary.left_out["hat"].startswith("covers the hair")


def test_every_ornament_and_ear_leads_to_its_kind() -> None:
    kinds = {"_hair_ornament": "hair_ornament", "_ears": "animal_ears", "_hat": "none"}
    for tag, meant in appearance().meaning.items():
        for ending, kind in kinds.items():
            if tag.endswith(ending) and tag not in ("pointy_ears", "elf_ears"):
                assert kind in meant, tag


def test_styles_without_colours_never_come_so_far() -> None:
    """Their posts are dropped before a face is looked for, so no label knows them."""
    styles = {"sketch", "comic", "4koma", "monochrome", "greyscale", "lineart"}
    assert styles <= EXCLUDED_TAGS
    assert not EXCLUDED_TAGS & (set(appearance().meaning) | set(appearance().left_out))


def test_tags_that_tell_left_from_right_are_found() -> None:
    tags = ["hair_over_left_eye", "right_side_up", "eyepatch_on_right", "upright_ahoge", "leftover"]
    assert sided(tags) == ["hair_over_left_eye", "right_side_up", "eyepatch_on_right"]
    assert sided(appearance().groups) == []


def test_every_group_and_tag_has_a_name_of_its_own_in_both_languages() -> None:
    vocabulary = appearance()
    assert set(vocabulary.names) == set(vocabulary.groups) | set(vocabulary.groups.values())
    assert vocabulary.names["blonde_hair"] == {"zh": "金发", "ja": "金髪"}
    for language in ("zh", "ja"):
        names = [name[language] for name in vocabulary.names.values()]
        assert len(names) == len(set(names)), language


def test_faults_of_a_vocabulary_are_all_named() -> None:
    content = {
        "groups": {"a": ["one", "two"], "b": ["one", "three"]},
        "aliases": {"two": "one", "uno": "eins", "chapeau": "one"},
        "implications": {"one": ["three"], "three": ["one"], "four": ["two"]},
        "left_out": {"clothing": {"reason": "no appearance", "tags": ["chapeau", "three"]}},
        "names": {**{name: {"zh": "字"} for name in ("a", "b", "one", "two")}, "zwei": {}},
    }
    with pytest.raises(ConfigError) as caught:
        read_vocabulary(content, where="tags.toml")
    assert str(caught.value).splitlines() == [
        "tags.toml has faults:",
        '  "one" stands twice',
        '  "three" stands twice',
        '  alias "two" is a tag of a group',
        '  alias "chapeau" is left out',
        '  "uno" leads to "eins", which is in no group',
        '  "four" implies but is in no group',
        '  "one" and "three" imply each other',
        '  "three" and "one" imply each other',
        '  "three" has no name in zh',
        '  "zwei" has a name but is no group and in none',
    ]
