"""Labels are the frequent curated tags, after aliases and implications."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset.errors import ConfigError, EmptyStageError, SchemaError, StoreError
from dataset.labels import (
    Cut,
    LabelSettings,
    LabelsFile,
    choose_labels,
    label_matrix,
    load_labels,
    read_labels,
)
from dataset.schemas import FACES, write_table
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
    with pytest.raises(SchemaError, match=r"faces without a post in posts\.lance.*\n.*of demo 2"):
        chosen(home)


def test_all_faces_dropped_is_an_empty_stage(home: Home) -> None:
    sha256 = home.add(b"1")
    home.write()
    write_faces(home, [face(sha256, 1, drop_reason="padded")])
    with pytest.raises(EmptyStageError, match="no face is kept, all are dropped"):
        chosen(home)


def test_posts_without_a_tag_count_nowhere(home: Home) -> None:
    fill(home, [["red_hair"], ["blue_hair"]])
    made = chosen(home)
    bare = [home.add(name, tags=[]) for name in (b"x", b"y")]
    home.write()
    faces = [face(row["sha256"], row["post_id"]) for row in home.rows]
    write_faces(home, faces)
    again = chosen(home)
    assert (again.crops, again.untagged) == (2, len(bare))
    assert (again.fractions, again.counts) == (made.fractions, made.counts)


def test_only_untagged_posts_are_an_empty_stage(home: Home) -> None:
    sha256 = home.add(b"1", tags=[])
    home.write()
    write_faces(home, [face(sha256, 1)])
    with pytest.raises(EmptyStageError, match=r"None of the 1 crops has a tag: labels are chosen"):
        chosen(home)


def test_every_face_of_a_post_counts(home: Home) -> None:
    sha256 = home.add(b"1", tags=["red_hair", "ahoge"])
    other = home.add(b"2", tags=["red_hair"])
    home.write()
    second = {**face(sha256, 1), "face_id": f"{sha256[:16]}-1"}
    write_faces(home, [face(sha256, 1), second, face(other, 2)])
    made = chosen(home, max_frac=1)
    assert made.counts == {"red_hair": 3, "ahoge": 2}
    assert made.labels == ["red_hair", "ahoge"]
    assert made.together == [[3, 2], [2, 2]]


def test_labels_tell_their_group_and_what_led_to_them(home: Home) -> None:
    fill(home, [["blond_hair"], ["blonde_hair", "cat_ears", "cat_ears"], ["blonde_hair"], []])
    made = chosen(home, max_frac=1)
    assert made.groups == {
        "blonde_hair": "hair_colour", "animal_ears": "on_the_head", "cat_ears": "on_the_head"
    }  # fmt: skip
    assert made.seen_as["blonde_hair"] == {"blonde_hair": 2, "blond_hair": 1}
    assert made.seen_as["animal_ears"] == {"cat_ears": 1}
    assert made.cut == {
        "blond_hair": Cut(
            "alias",
            "on 25.0% of the crops; an alias; it counts as blonde_hair",
            1,
            ["blonde_hair"],
        )
    }
    assert load_labels(home.store) == made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: [], "an object of labels, groups, "),
        (lambda content: {"labels": []}, 'missing: groups, .*\n.*"labels" is no list of tags'),
        (lambda content: content | {"lables": []}, 'unknown key "lables"; did you mean "labels"'),
        (lambda content: content | {"labels": ["red_hair", "red_hair"]}, '"red_hair" stands twice'),
        (lambda content: content | {"labels": ["crop"]}, 'label "crop" is a column of the man'),
        (
            lambda content: content | {"labels": ["red_hare"]},
            '"red_hare" is no curated appearance tag; did you mean "red_hair"',
        ),
        (lambda content: content | {"labels": ["pink_hair"]}, '"pink_hair" is on no crop'),
        (lambda content: content | {"labels": content["labels"][::-1]}, "are out of order"),
        (lambda content: content | {"counts": {"red_hair": "many"}}, "gives no number"),
        (lambda content: content | {"crops": 99}, "its content has the digest [0-9a-f]{64}, it"),
        (lambda content: content | {"digest": "x"}, 'it says "x"'),
    ],
)
def test_labels_file_edited_by_hand_is_refused(
    home: Home, change: Callable[[Any], object], said: str
) -> None:
    fill(home, [["red_hair", "ahoge"], ["red_hair"], ["blue_hair", "ahoge"], []])
    chosen(home)
    home.store.write_json("labels.json", change(home.store.read_json("labels.json")))
    with pytest.raises(SchemaError, match=rf"(?s)labels\.json.*{said}"):
        read_labels(home.store)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"face_id": "1"}, r"faces\.lance: a kept face needs.*\n  1: sha256 is"),
        ({"sha256": "zz" * 32}, r'sha256 is "zzzz'),
        ({"crop": None}, r'crop is "None"'),
        ({"sha256": "0" * 64}, r"posts\.lance does not fit.*\n  demo 1 has another picture"),
        ({"board": "other"}, r"faces without a post in posts\.lance.*\n.*of other 1"),
    ],
)
def test_face_that_does_not_fit_is_named(home: Home, change: dict[str, Any], said: str) -> None:
    sha256 = home.add(b"1")
    home.write()
    write_faces(home, [{**face(sha256, 1), **change}])
    with pytest.raises(SchemaError, match=said):
        chosen(home)


@pytest.mark.parametrize(
    ("again", "said"),
    [
        ({}, "demo 1 stands twice"),
        ({"post_id": 2, "drop_reason": "takedown"}, "demo 2 is dropped, but has kept faces"),
    ],
)
def test_post_that_does_not_fit_is_named(home: Home, again: dict[str, Any], said: str) -> None:
    fill(home, [["red_hair"], ["blue_hair"]])
    first = next(row for row in home.rows if row["post_id"] == again.get("post_id", 1))
    others = [row for row in home.rows if row is not first]
    home.write([*others, {**first, **again}, *([first] if not again else [])])
    with pytest.raises(SchemaError, match=rf"does not fit the faces.*\n  {said}"):
        chosen(home)


def test_post_with_faces_of_two_pictures_is_named(home: Home) -> None:
    first, second = home.add(b"1"), home.add(b"2")
    home.write()
    write_faces(home, [face(first, 1), face(second, 1)])
    with pytest.raises(SchemaError, match=r"faces of two pictures.*\n  demo 1"):
        chosen(home)


def test_foreign_tables_are_refused_by_their_name(home: Home) -> None:
    fill(home, [["red_hair"], []])
    table = pq.read_table(home.store.state.local("faces.parquet"))
    path = home.store.state.local("faces.parquet")
    pq.write_table(table.append_column("mood", table["board"]), path)
    with pytest.raises(SchemaError, match=r"faces\.parquet is not a faces table:\n  mood is unkn"):
        chosen(home)
    pq.write_table(table.drop(["side"]), home.store.state.local("faces.parquet"))
    with pytest.raises(SchemaError, match="side is missing, int32 wanted"):
        chosen(home)
    empty = table.set_column(1, "board", pa.array(["demo", None]))
    pq.write_table(empty, home.store.state.local("faces.parquet"))
    with pytest.raises(SchemaError, match="board is empty in row 1"):
        chosen(home)
    home.store.write_bytes("faces.parquet", b"no table")
    with pytest.raises(SchemaError, match=r"faces\.parquet is not a Parquet file"):
        chosen(home)
    home.store.remove("faces.parquet")
    with pytest.raises(StoreError, match=r"faces\.lance is not there"):
        chosen(home)


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
