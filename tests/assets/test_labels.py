"""What the materialisations of labels and manifest tell, for a small home."""

from typing import Any

import dagster as dg
import pytest

from assets.labels import labels
from assets.machine_labels import machine_labels
from assets.manifest import manifest
from assets.reporting import MAX_BYTES
from assets.resources import ChildProcess, ComputeResource, StoreResource
from dataset.schemas import manifest_schema
from dataset.store import Store
from tests.dataset.home import Home, png, scenery
from tests.dataset.test_labels import fill


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Metadata of both assets, for twelve faces with tags and none without."""
    root = tmp_path_factory.mktemp("assets")
    home = Home(Store(str(root)))
    home.store.write_bytes("crops/x.png", png(scenery(0, side=64)))
    fill(home, [["red_hair", "smile"] if row % 3 else ["blond_hair"] for row in range(12)])
    config = {"manifest": {"config": {"eval_frac": 0.5}}, "labels": {"config": {"max_frac": 1.0}}}
    made = dg.materialize(
        [labels, machine_labels, manifest],
        resources={
            "store": StoreResource(root=str(root)),
            "compute": ComputeResource(),
            "child": ChildProcess(environment={}),
        },
        run_config={"ops": config},
    )
    found = {}
    for name in ("labels", "manifest"):
        (event,) = made.asset_materializations_for_node(name)
        found[name] = {key: value.value for key, value in event.metadata.items()}
    return found


def test_labels_show_a_chart_what_was_chosen_and_what_was_cut(
    facts: dict[str, dict[str, Any]],
) -> None:
    shown = facts["labels"]
    assert "| red_hair | hair_colour | 8 | 66.7% |" in shown["chosen"]
    assert "| blond_hair | alias | on 33.3% of the crops; an alias; it counts as" in shown["cut"]
    assert "| smile | left_out |" in shown["cut"]
    assert (shown["crops"], shown["untagged_crops"], shown["left_right_labels"]) == (12, 0, "none")
    pictures = [value for value in shown.values() if "data:image" in str(value)]
    assert 0 < sum(map(len, pictures)) <= MAX_BYTES


def test_manifest_shows_rows_columns_and_where_they_come_from(
    facts: dict[str, dict[str, Any]],
) -> None:
    shown = facts["manifest"]
    names = manifest_schema(["red_hair", "blonde_hair"]).names
    assert shown["dagster/row_count"] == shown["train_rows"] + shown["eval_rows"] == 12
    assert [column.name for column in shown["dagster/column_schema"].columns] == names
    lineage = shown["dagster/column_lineage"].deps_by_column
    assert set(lineage) == set(names)
    whence = {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage["red_hair"]}
    assert whence == {
        ("labels", "labels"),
        ("posts", "tags_general"),
        ("machine_labels", "red_hair"),
    }
    assert lineage["crop"] == [dg.TableColumnDep(dg.AssetKey("faces"), "crop")]
    assert "| red_hair | 8 | 66.7% |" in shown["rows_by_label"]
    assert shown["machine_labelled_rows"] == shown["untagged_faces_left_out"] == 0
