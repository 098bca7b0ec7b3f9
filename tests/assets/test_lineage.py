"""Each column of each table says which columns it is made from, and all of those exist."""

import dagster as dg
import pytest

from assets.reporting import (
    FACES_LINEAGE,
    LABELS_COLUMNS,
    LABELS_LINEAGE,
    POSTS_LINEAGE,
    column_schema,
    machine_labels_lineage,
    manifest_lineage,
)
from dataset.schemas import FACES, POSTS, machine_labels_schema, manifest_schema

LABELS = ["red_hair", "blue_eyes"]
COLUMNS = {
    "posts": POSTS.names,
    "faces": FACES.names,
    "labels": [column.name for column in LABELS_COLUMNS.columns],
    "machine_labels": machine_labels_schema(LABELS).names,
    "manifest": manifest_schema(LABELS).names,
}
LINEAGE = {
    "posts": POSTS_LINEAGE,
    "faces": FACES_LINEAGE,
    "labels": LABELS_LINEAGE,
    "machine_labels": machine_labels_lineage(LABELS),
    "manifest": manifest_lineage(LABELS),
}
NEW = {"posts": set(POSTS.names)}  # they come from the boards, not from another table
ABOVE = {
    "posts": set(),
    "faces": {"posts"},
    "labels": {"posts", "faces"},
    "machine_labels": {"posts", "faces", "labels"},
    "manifest": {"posts", "faces", "labels", "machine_labels"},
}


@pytest.mark.parametrize("table", LINEAGE)
def test_every_column_says_what_it_is_made_from_or_is_new(table: str) -> None:
    deps = LINEAGE[table].deps_by_column
    assert list(deps) == list(COLUMNS[table]) or set(deps) == set(COLUMNS[table])
    assert {column for column, made_from in deps.items() if not made_from} == NEW.get(table, set())


@pytest.mark.parametrize("table", LINEAGE)
def test_every_named_column_exists_in_a_table_that_is_above(table: str) -> None:
    for made_from in LINEAGE[table].deps_by_column.values():
        for dep in made_from:
            asset = dep.asset_key.to_user_string()
            assert asset in ABOVE[table]
            assert dep.column_name in COLUMNS[asset]


def test_without_a_tagger_no_label_comes_from_one() -> None:
    deps = manifest_lineage(LABELS, by_machine=False).deps_by_column
    sources = {dep.asset_key.to_user_string() for made_from in deps.values() for dep in made_from}
    assert sources == {"posts", "faces", "labels"}


@pytest.mark.parametrize(
    ("schema", "unique"),
    [
        (POSTS, None),
        (FACES, "face_id"),
        (machine_labels_schema(LABELS), "face_id"),
        (manifest_schema(LABELS), "face_id"),
    ],
    ids=["posts", "faces", "machine_labels", "manifest"],
)
def test_columns_tell_their_meaning_and_what_holds(schema: object, unique: str | None) -> None:
    shown = column_schema(schema)
    assert all(column.description for column in shown.columns)
    assert [c.name for c in shown.columns if c.constraints.unique] == [unique] * bool(unique)
    assert shown.constraints is not None
    assert shown.constraints.other
    dg.TableSchema(columns=shown.columns, constraints=shown.constraints)


def test_a_probability_is_told_to_lie_between_0_and_1() -> None:
    shown = column_schema(machine_labels_schema(LABELS))
    other = {column.name: column.constraints.other for column in shown.columns}
    assert (other["red_hair"], other["face_id"]) == (["0 to 1"], [])
