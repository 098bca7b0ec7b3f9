"""The asset between labels and manifest: nothing to do without untagged faces, else a child."""

from pathlib import Path

import dagster as dg
import pytest

from assets.machine_labels import MachineLabelConfig, child_arguments, machine_labels
from assets.resources import ChildProcess, ComputeResource, StoreResource
from dataset.errors import ConfigError
from dataset.schemas import MACHINE_LABELS_PATH, machine_labels_schema, read_table
from dataset.store import Store
from tests.models.homes import make_home

QUICK = {"width": "0.1", "input_px": "32", "batch": "16", "device": "cpu", "threads": "1"}


def materialised(store: Store, **config: object) -> dg.AssetMaterialization:
    done = dg.materialize(
        [machine_labels],
        resources={
            "store": StoreResource(root=store.root),
            "compute": ComputeResource(),
            "child": ChildProcess(),
        },
        run_config={"ops": {"machine_labels": {"config": config}}},
    )
    (made,) = done.asset_materializations_for_node("machine_labels")
    return made


def test_without_an_untagged_face_an_empty_table_is_written_and_nothing_trained(
    tmp_path: Path,
) -> None:
    store = make_home(tmp_path / "home", tagged=40, untagged=0)
    made = materialised(store)
    assert made.metadata["dagster/row_count"].value == 0
    assert "none was trained" in str(made.metadata["note"].value)
    labels = store.read_json("labels.json")["labels"]
    table = read_table(store, MACHINE_LABELS_PATH, declared=machine_labels_schema(labels))
    assert table.num_rows == 0
    assert not store.exists("taggers")


@pytest.mark.slow
def test_untagged_faces_get_probabilities_from_a_tagger_trained_once(tmp_path: Path) -> None:
    store = make_home(tmp_path / "home", tagged=200, untagged=12)
    config = {"total_kimg": 1.0, "overrides": QUICK, "eval_frac": 0.2}
    made = materialised(store, **config)
    seen = made.metadata
    assert (seen["dagster/row_count"].value, seen["untagged"].value) == (12, 12)
    assert seen["reused"].value is False
    assert 0 < float(str(seen["mean_ap"].value)) <= 1
    assert "| **mean** |" in str(seen["labels"].value)
    assert len(str(seen["chart"].value)) <= 100_000
    again = materialised(store, **config).metadata
    assert again["reused"].value is True
    assert again["digest"].value == seen["digest"].value


def test_half_an_onnx_tagger_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'onnx is "m.onnx" and tags is ""; both or neither'):
        child_arguments(MachineLabelConfig(onnx="m.onnx"), home="var", compute="processes")


def test_an_onnx_tagger_is_handed_on_with_all_that_is_said_of_it() -> None:
    config = MachineLabelConfig(
        onnx="m.onnx", tags="t.csv", input_size=448, layout="nhwc", range="bgr255", logits=True
    )
    command = child_arguments(config, home="var", compute="ray")
    assert command[:7] == ["-m", "models.tag", "label", "--home", "var", "--compute", "ray"]
    options = "--onnx m.onnx --tags t.csv --input-size 448 --layout nhwc --range bgr255 --logits"
    assert command[-11:] == options.split()
