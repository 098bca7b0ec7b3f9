"""Labels are the frequent curated tags, after aliases and implications."""

from typing import Any

import pyarrow as pa
import pytest

from dataset.errors import ConfigError, EmptyStageError, SchemaError
from dataset.labels import (
    Cut,
    LabelSettings,
    LabelsFile,
    appearance,
    choose_labels,
    label_matrix,
    read_labels,
)
from dataset.schemas import FACES, write_table
from dataset.vocabulary import read_vocabulary
from tests.dataset.home import Home


def face(sha256: str, post_id: int, *, drop_reason: str | None = None) -> dict[str, Any]:
    numbers = dict.fromkeys(("x", "y", "w", "h", "square_x", "square_y", "side"), 64)
    return {
        "face_id": f"{sha256[:16]}-0",
        "board": "demo",
        "post_id": post_id,
        "sha256": sha256,
        **numbers,
        "pad_frac": 0.0,
        "sharpness": 100.0,
        "phash": "0" * 16,
        "crop": None if drop_reason else "crops/x.png",
        "crop_sha256": None if drop_reason else "0" * 64,
        "drop_reason": drop_reason,
    }


def fill(home: Home, tags: list[list[str]]) -> None:
    """A solo post and a kept face for each list of tags; no crops are needed here."""
    faces = []
    for post_id, of_post in enumerate(tags, start=1):
        sha256 = home.add(str(post_id).encode(), tags=["solo", *of_post])
        faces.append(face(sha256, post_id))
    home.write()
    write_faces(home, faces)


def write_faces(home: Home, faces: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(faces, schema=FACES)
    write_table(home.store, "faces.parquet", table, declared=FACES)


def chosen(home: Home, **settings: Any) -> LabelsFile:
    return choose_labels(home.store, LabelSettings(**settings))


def reasons(made: LabelsFile) -> dict[str, tuple[str, str]]:
    return {tag: (cut.why, cut.text) for tag, cut in made.cut.items()}


def test_tags_in_the_window_are_chosen_by_frequency_then_name(home: Home) -> None:
    tags = [["smile"] for _ in range(20)]
    for rows, tag in (
        (range(11), "long_hair"),
        (range(10), "blue_eyes"),
        (range(5, 12), "red_hair"),
        (range(3, 10), "ahoge"),
        (range(1), "glasses"),
    ):
        for row in rows:
            tags[row].append(tag)
    fill(home, tags)
    made = chosen(home)
    assert made.labels == ["blue_eyes", "ahoge", "red_hair", "glasses"]
    assert reasons(made) == {
        "long_hair": ("too_frequent", "on 55.0% of the crops, at most 50.0% wanted"),
        "smile": (
            "left_out",
            "on 100.0% of the crops: an expression or a state of the face, not an appearance",
        ),
    }
    assert made.counts == {
        "long_hair": 11, "blue_eyes": 10, "ahoge": 7, "red_hair": 7, "glasses": 1
    }  # fmt: skip
    assert made.fractions["blue_eyes"] == 0.5
    assert made.warning is not None
    assert made.warning.startswith("4 labels instead of 23: blue_eyes, ahoge, red_hair, glasses.")
    assert read_labels(home.store) == (made.labels, made.digest)


def test_rarer_tags_are_cut_with_the_reason(home: Home) -> None:
    fill(home, [["red_hair"], *[["blue_hair"] if row < 9 else [] for row in range(24)]])
    made = chosen(home)
    assert made.labels == ["blue_hair"]
    text = "on 4.0% of the crops, at least 5.0% wanted"
    assert made.cut == {"red_hair": Cut("too_rare", text, 1, [])}


def test_no_more_labels_than_wanted(home: Home) -> None:
    fill(home, [["red_hair", "blue_eyes"], ["red_hair"], ["ahoge"], []])
    made = chosen(home, count=2)
    assert made.labels == ["red_hair", "ahoge"]
    assert made.warning is None
    assert reasons(made) == {
        "blue_eyes": (
            "not_among_the_most_frequent",
            "on 25.0% of the crops, 2 others are more frequent",
        )
    }


def test_aliases_and_implications_count(home: Home) -> None:
    fill(
        home, [["blond_hair", "bunny_ears"], ["blonde_hair", "cat_ears", "animal_ears"], [], [], []]
    )
    made = chosen(home)
    assert made.counts == {"animal_ears": 2, "blonde_hair": 2, "cat_ears": 1, "rabbit_ears": 1}


def test_dropped_faces_do_not_count(home: Home) -> None:
    kept = home.add(b"1", tags=["red_hair"])
    dropped = home.add(b"2", tags=["blue_hair"])
    other = home.add(b"3")
    home.write()
    write_faces(home, [face(kept, 1), face(dropped, 2, drop_reason="blurred"), face(other, 3)])
    assert chosen(home).counts == {"red_hair": 1}


def test_no_label_at_all_names_the_tags_seen(home: Home) -> None:
    fill(home, [["smile", ":d"], ["smile"]])
    with pytest.raises(EmptyStageError) as caught:
        chosen(home)
    assert str(caught.value) == (
        "No appearance tag is on any of the 2 crops. The most frequent tags: smile 2, solo 2, :d 1."
    )


def test_no_label_in_the_window_names_the_parts(home: Home) -> None:
    fill(home, [["red_hair"], ["red_hair"], ["red_hair", "ahoge"]])
    with pytest.raises(EmptyStageError, match=r"on 40% to 50% of the 3 crops\. Seen: red_hair 100"):
        chosen(home, min_frac=0.4)


def test_digest_is_of_the_content(home: Home) -> None:
    fill(home, [["red_hair"], ["blue_hair"], []])
    first = chosen(home)
    home.write(home.rows[::-1])
    assert chosen(home) == first
    assert chosen(home, count=1).digest != first.digest


def test_face_without_its_post_is_refused(home: Home) -> None:
    fill(home, [["red_hair"], []])
    home.write(home.rows[:1])
    with pytest.raises(SchemaError, match=r"faces without a post in posts\.parquet.*\n.*of demo 2"):
        chosen(home)


def test_all_faces_dropped_is_an_empty_stage(home: Home) -> None:
    sha256 = home.add(b"1")
    home.write()
    write_faces(home, [face(sha256, 1, drop_reason="padded")])
    with pytest.raises(EmptyStageError, match="all 1 faces are dropped"):
        chosen(home)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], 'a list "labels" of tags and a "digest" wanted'),
        ({"labels": [], "digest": "x"}, 'a list "labels"'),
        ({"labels": ["ahoge", "crop", "ahoge"], "digest": "x"}, "already: ahoge, crop"),
    ],
)
def test_foreign_labels_file_is_refused(home: Home, content: object, said: str) -> None:
    home.store.write_json("labels.json", content)
    with pytest.raises(SchemaError, match=said):
        read_labels(home.store)


def test_matrix_has_a_column_for_each_label_in_order() -> None:
    tags = pa.array([["x_hair_ornament"], [], ["ahoge", "solo"]], pa.list_(pa.string()))
    assert label_matrix(tags, ["ahoge", "hair_ornament"]).tolist() == [
        [False, True],
        [False, False],
        [True, False],
    ]
    with pytest.raises(SchemaError, match="not in the curated list of appearance tags: smile"):
        label_matrix(tags, ["smile"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_frac": 0.6}, "min_frac is 0.6 and max_frac 0.5"),
        ({"max_frac": 1.5}, "max_frac 1.5"),
        ({"count": 0}, "count is 0; at least 1 wanted"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LabelSettings(**settings)


def test_vocabulary_knows_the_plausible_labels_and_no_expression() -> None:
    vocabulary = appearance()
    plausible = (
        "short_hair long_hair blonde_hair black_hair brown_hair blue_hair white_hair pink_hair "
        "grey_hair purple_hair red_hair green_hair blue_eyes red_eyes brown_eyes green_eyes "
        "purple_eyes yellow_eyes hair_ornament animal_ears twintails ahoge ponytail"
    )
    assert set(plausible.split()) <= set(vocabulary.groups)
    assert not {"smile", "closed_eyes", "blush", "bow", "ribbon"} & set(vocabulary.meaning)
    assert vocabulary.meaning["very_long_hair"] == ("long_hair",)
    assert set(vocabulary.meaning["mini_top_hat"]) == {"mini_top_hat", "mini_hat", "top_hat", "hat"}


def test_every_hair_ornament_ear_and_hat_implies_its_kind() -> None:
    meaning = appearance().meaning
    kinds = {"_hair_ornament": "hair_ornament", "_hat": "hat", "_ears": "animal_ears"}
    for tag in appearance().groups:
        for ending, kind in kinds.items():
            if tag.endswith(ending) and tag != "pointy_ears":
                assert kind in meaning[tag], tag


def test_faults_of_a_vocabulary_are_all_named() -> None:
    content = {
        "groups": {"a": ["one", "two"], "b": ["one", "three"]},
        "aliases": {"two": "one", "uno": "eins"},
        "implications": {"one": ["three"], "three": ["one"], "four": ["two"]},
    }
    with pytest.raises(ConfigError) as caught:
        read_vocabulary(content, where="tags.toml")
    assert str(caught.value).splitlines() == [
        "tags.toml has faults:",
        '  "one" stands twice',
        '  alias "two" is a tag of a group',
        '  "uno" leads to "eins", which is in no group',
        '  "four" implies but is in no group',
        '  "one" and "three" imply each other',
        '  "three" and "one" imply each other',
    ]
