"""Machine-made labels stand in only for faces whose posts have no tags, and say so."""

from typing import Any

import pyarrow as pa
import pytest

from dataset.errors import ConfigError, EmptyStageError, SchemaError, StoreError
from dataset.labels import LabelSettings, choose_labels
from dataset.manifest import Manifest, build_manifest, load_manifest
from dataset.schemas import FACES, MACHINE_LABELS_PATH, machine_labels_schema, write_table
from tests.dataset.home import Home, png, scenery
from tests.dataset.home import rows_of as home_rows
from tests.dataset.test_labels import face, write_faces

TAGGED, BARE = 12, 6
LABELS = ["ahoge", "red_hair"]


@pytest.fixture
def mixed(home: Home) -> Home:
    """Faces of which a part has tags; labels.json knows ahoge and red_hair."""
    crop = png(scenery(0, side=64))
    home.store.write_bytes("crops/x.png", crop)
    faces = []
    for number in range(TAGGED + BARE):
        tags = [] if number >= TAGGED else ["solo", LABELS[number % 2]]
        sha256 = home.add(str(number).encode(), tags=tags)
        faces.append(face(sha256, number + 1))
    home.write()
    write_faces(home, faces)
    choose_labels(home.store, LabelSettings())
    return home


def bare_faces(home: Home) -> list[str]:
    return [f"{row['sha256'][:16]}-0" for row in home.rows[TAGGED:]]


def tag(home: Home, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=machine_labels_schema(LABELS))
    write_table(home.store, MACHINE_LABELS_PATH, table, declared=machine_labels_schema(LABELS))


def row(face_id: str, ahoge: float, red_hair: float, **other: Any) -> dict[str, Any]:
    fixed = {"face_id": face_id, "crop_sha256": "0" * 64, "tagger": "t" * 64}
    return {**fixed, "ahoge": ahoge, "red_hair": red_hair, **other}


def build(home: Home, **options: Any) -> Manifest:
    return build_manifest(home.store, eval_frac=0.5, **options)


def rows_of(home: Home, made: Manifest) -> dict[str, dict[str, Any]]:
    return {one["face_id"]: one for one in home_rows(home.store, made)}


def test_untagged_faces_are_left_out(mixed: Home) -> None:
    made = build(mixed)
    assert (made.untagged, made.machine_rows, made.machine_threshold) == (BARE, 0, None)
    found = rows_of(mixed, made)
    assert len(found) == TAGGED
    assert not set(bare_faces(mixed)) & set(found)
    assert {one["labels_by"] for one in found.values()} == {"board"}


def test_machine_labels_hold_from_the_threshold_on(mixed: Home) -> None:
    bare = bare_faces(mixed)
    tag(mixed, [row(bare[0], 0.25, 0.2499), row(bare[1], 0.0, 1.0), row(bare[2], 0.1, 0.1)])
    made = build(mixed, machine_labels=MACHINE_LABELS_PATH)
    found = rows_of(mixed, made)
    by_machine = {key: one for key, one in found.items() if one["labels_by"] == "machine"}
    has = {key: [label for label in LABELS if one[label]] for key, one in by_machine.items()}
    assert has == {bare[0]: ["ahoge"], bare[1]: ["red_hair"], bare[2]: []}
    assert (made.machine_rows, made.untagged, made.machine_threshold) == (3, BARE - 3, 0.25)
    assert made.made_from["tagger"] == "t" * 64
    assert load_manifest(mixed.store, None) == made
    stricter = build(mixed, machine_labels=MACHINE_LABELS_PATH, machine_threshold=0.3)
    assert stricter.digest != made.digest
    assert stricter.counts["ahoge"] == made.counts["ahoge"] - 1


def test_tags_of_the_board_are_never_overruled(mixed: Home) -> None:
    tagged = [f"{one['sha256'][:16]}-0" for one in mixed.rows[:TAGGED]]
    without = build(mixed)
    tag(mixed, [row(face_id, 1.0, 1.0) for face_id in tagged])
    made = build(mixed, machine_labels=MACHINE_LABELS_PATH)
    assert (made.digest, made.machine_rows) == (without.digest, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ahoge": 1.5}, r"{0}: ahoge is 1\.5; 0 to 1 wanted"),
        ({"red_hair": float("nan")}, "{0}: red_hair is nan; 0 to 1 wanted"),
        ({"crop_sha256": "1" * 64}, "{0}: crop_sha256 is of another crop"),
    ],
)
def test_machine_labels_that_do_not_fit_are_named(
    mixed: Home, change: dict[str, Any], said: str
) -> None:
    bare = bare_faces(mixed)
    tag(mixed, [row(bare[0], 0.5, 0.5) | change, row(bare[1], 0.5, 0.5)])
    wanted = rf"machine_labels\.parquet does not fit.*\n  {said.format(bare[0])}"
    with pytest.raises(SchemaError, match=wanted):
        build(mixed, machine_labels=MACHINE_LABELS_PATH)


def test_machine_labels_that_stand_twice_are_named(mixed: Home) -> None:
    bare = bare_faces(mixed)
    tag(mixed, [row(bare[0], 0.5, 0.5), row(bare[0], 0.5, 0.5)])
    with pytest.raises(SchemaError, match=f"{bare[0]} stands twice"):
        build(mixed, machine_labels=MACHINE_LABELS_PATH)


def test_machine_labels_of_other_labels_are_refused(mixed: Home) -> None:
    declared = machine_labels_schema(["ahoge", "blue_hair"])
    write_table(mixed.store, MACHINE_LABELS_PATH, declared.empty_table(), declared=declared)
    with pytest.raises(SchemaError, match=r"red_hair is missing, float wanted\n  blue_hair is unk"):
        build(mixed, machine_labels=MACHINE_LABELS_PATH)


def test_missing_machine_labels_and_wild_thresholds_are_refused(mixed: Home) -> None:
    with pytest.raises(StoreError, match=r"machine_labels\.parquet is not there"):
        build(mixed, machine_labels=MACHINE_LABELS_PATH)
    with pytest.raises(ConfigError, match=r"threshold of machine-made labels is 1\.5; a prob"):
        build(mixed, machine_labels=MACHINE_LABELS_PATH, machine_threshold=1.5)


def test_only_untagged_faces_left_is_an_empty_stage(mixed: Home) -> None:
    kept = [face(one["sha256"], one["post_id"]) for one in mixed.rows[TAGGED:]]
    table = pa.Table.from_pylist(kept, schema=FACES)
    write_table(mixed.store, "faces.parquet", table, declared=FACES)
    with pytest.raises(EmptyStageError, match=rf"{BARE} more have no tags and no machine-made"):
        build(mixed)
