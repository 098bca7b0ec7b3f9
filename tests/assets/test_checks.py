"""A failed check tells a stranger the number, the limit, the cause and the next step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from assets.checks import table_checks
from assets.resources import StoreResource
from dataset.schemas import (
    FACES,
    FACES_PATH,
    MACHINE_LABELS_PATH,
    ROWS_AT_ONCE,
    machine_labels_schema,
    write_table,
)
from dataset.store import Store
from tests.dataset.home import Home, png, scenery
from tests.dataset.test_labels import fill


@dataclass(frozen=True)
class Found:
    """How a check ended, and what it said."""

    passed: bool
    description: str
    severity: dg.AssetCheckSeverity


def checked(root: Path, name: str) -> Found:
    """Runs one check on a home."""
    (check,) = [one for one in table_checks() if [spec.name for spec in one.check_specs] == [name]]
    job = dg.Definitions(
        asset_checks=[check],
        jobs=[dg.define_asset_job("check", selection=dg.AssetSelection.checks(check))],
        resources={"store": StoreResource(root=str(root))},
    ).resolve_job_def("check")
    done = job.execute_in_process(raise_on_error=False)  # a blocking check that fails raises
    (evaluation,) = done.get_asset_check_evaluations()
    return Found(evaluation.passed, evaluation.description or "", evaluation.severity)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(Store(str(tmp_path)))


def drop(home: Home, count: int, reason: str) -> None:
    for _ in range(count):
        home.add(png(scenery(len(home.rows))), drop_reason=reason)


def test_too_few_posts_are_told_with_why_they_were_dropped(home: Home, tmp_path: Path) -> None:
    home.add(png(scenery(0)))
    drop(home, 6, "rating")
    drop(home, 3, "tag_comic")
    home.write()
    found = checked(tmp_path, "posts_kept")
    assert not found.passed
    assert found.description == (
        "1 of 10 posts were kept (10.0%, limit 20%). Most of what was dropped: rating (6), "
        "tag_comic (3). Do the crawl's search words (field `tags`) ask for safe pictures of "
        "characters? not_fetched means that the pictures are still to come: crawl again."
    )


def test_an_unsafe_post_is_named_with_how_to_remove_it(home: Home, tmp_path: Path) -> None:
    home.add(png(scenery(0)))
    home.rows[0]["rating"] = "questionable"
    home.write()
    found = checked(tmp_path, "posts_are_safe")
    assert not found.passed
    assert "1 of 1 stored posts are not rated general: demo 1." in found.description
    assert "takedown.txt" in found.description


def test_counts_are_of_the_whole_table_however_it_is_read(home: Home, tmp_path: Path) -> None:
    home.add(png(scenery(0)))
    for number in range(2, 2 * ROWS_AT_ONCE + 3):
        sha256 = name_of(number // 2) if number % 4 else None
        reason = None if number % 4 else "rating"
        row = {"post_id": number, "sha256": sha256, "drop_reason": reason}
        home.rows.append(home.rows[0] | row | {"rating": "general" if number < 900 else "explicit"})
    home.write()
    total, kept = 2 * ROWS_AT_ONCE + 2, 2 * ROWS_AT_ONCE + 2 - (2 * ROWS_AT_ONCE + 2) // 4
    said = checked(tmp_path, "posts_kept").description
    assert said.startswith(f"{kept:,} of {total:,} posts were kept")
    said = checked(tmp_path, "posts_are_safe").description
    unsafe = sum(number % 4 > 0 for number in range(900, total + 1))
    names = ", ".join(f"demo {number}" for number in range(901, 1000) if number % 4)
    assert said.startswith(f"{unsafe:,} of {kept:,} stored posts are not rated general: demo 901,")
    assert said.partition(": ")[2].startswith(", ".join(names.split(", ")[:10]) + ", …. Their")
    faces = [face(name_of(number), row) for row, number in enumerate((1, 1, 2, 3))]
    write_table(home.store, FACES_PATH, pa.Table.from_pylist(faces, FACES), declared=FACES)
    pictures = 1 + len({number // 2 for number in range(2, total + 1) if number % 4})
    found = checked(tmp_path, "faces_kept")
    assert found.description.startswith(f"3 of {pictures:,} pictures gave a face")
    assert checked(tmp_path, "posts_schema").passed


def name_of(number: int) -> str:
    return f"{number:016x}".ljust(64, "0")


def face(sha256: str, number: int) -> dict[str, Any]:
    numbers = dict.fromkeys(("x", "y", "w", "h", "square_x", "square_y", "side"), 1)
    face_id = {"face_id": f"{sha256[:16]}-{number}", "sha256": sha256, "phash": "0" * 16}
    return {"board": "demo", "post_id": 1, "pad_frac": 0.0, "sharpness": 1.0} | numbers | face_id


@pytest.mark.parametrize("name", ["posts_schema", "faces_schema", "machine_labels_schema"])
def test_a_missing_table_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    found = checked(tmp_path, name)
    assert not found.passed
    assert str(tmp_path) in found.description
    assert f"Materialise {name.removesuffix('_schema')} again" in found.description


def test_machine_labels_of_other_labels_are_refused(home: Home, tmp_path: Path) -> None:
    labels = labelled(home)
    table = machine_labels_schema(["no_such_label"]).empty_table()
    write_table(home.store, MACHINE_LABELS_PATH, table, declared=table.schema)
    found = checked(tmp_path, "machine_labels_schema")
    assert not found.passed
    assert f"{labels[0]} is missing" in found.description
    right = machine_labels_schema(labels)
    write_table(home.store, MACHINE_LABELS_PATH, pa.table(right.empty_table()), declared=right)
    assert checked(tmp_path, "machine_labels_schema").passed


def test_few_labels_warn_and_say_what_would_give_more(home: Home, tmp_path: Path) -> None:
    labelled(home)
    found = checked(tmp_path, "labels_wanted")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "2 of 23 wanted labels: red_hair, blonde_hair." in found.description
    assert "lower `min_frac` of labels (now 0.05)" in found.description
    labelled(home, count=2)
    found = checked(tmp_path, "labels_wanted")
    assert found.passed
    assert found.description == "2 of 2 wanted labels: red_hair, blonde_hair."


def labelled(home: Home, **config: Any) -> list[str]:
    """Chooses the labels of twelve faces; returns them."""
    from dataset.labels import LabelSettings, choose_labels

    if not home.rows:
        home.store.write_bytes("crops/x.png", png(scenery(0, side=64)))
        fill(home, [["red_hair"] if row % 3 else ["blonde_hair"] for row in range(12)])
    return choose_labels(home.store, LabelSettings(max_frac=1.0, **config)).labels


def test_short_splits_say_how_many_rows_are_wanted_and_whence(home: Home, tmp_path: Path) -> None:
    from dataset.manifest import build_manifest

    labelled(home)
    made = build_manifest(home.store, eval_frac=0.5)
    found = checked(tmp_path, "manifest_rows")
    assert not found.passed
    assert f"{made.train_rows} rows in the train split (limit 256)" in found.description
    assert "crawl more posts, or import pictures of your own" in found.description
