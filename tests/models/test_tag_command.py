import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.facetags import MachineLabels
from dataset.manifest import build_manifest, read_split
from dataset.schemas import MACHINE_LABELS_PATH, machine_labels_schema, read_table
from dataset.store import Store
from models import tag
from models.tagger import data
from models.tagger.data import faces_of
from tests.models.drawn_heads import LABELS, drawn_heads
from tests.models.homes import make_home

QUICK = ["--set", "width=0.1", "--set", "input_px=32", "--set", "total_kimg=2", "--set", "batch=16"]
QUICK += ["--set", "device=cpu", "--set", "threads=1", "--eval-frac", "0.2"]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOKAGE_PROGRESS", "off")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_home(tmp_path_factory.mktemp("tagged") / "home", tagged=240, untagged=30)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command in this process; returns its code, last line of JSON (or None), stderr."""

    def run_it(*arguments: str) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = tag.main(list(arguments))
        out, err = capsys.readouterr()
        return code, json.loads(out.splitlines()[-1]) if out else None, err

    return run_it


def test_faces_are_parted_by_whether_their_posts_have_tags(store: Store) -> None:
    faces = faces_of(store)
    assert (faces.tagged.num_rows, faces.untagged.num_rows) == (240, 30)
    assert set(faces.labels) == set(LABELS)
    assert faces.truths.shape == (240, len(LABELS))
    assert faces.tagged["face_id"].to_pylist() == sorted(faces.tagged["face_id"].to_pylist())
    held_out = faces.in_split("eval", 0.2)
    assert 20 < held_out.sum() < 80
    assert (faces.in_split("train", 0.2) == ~held_out).all()


@pytest.mark.ci
def test_label_trains_once_writes_the_table_and_the_manifest_takes_it(
    tmp_path: Path, run: Any
) -> None:
    store = make_home(tmp_path / "home", tagged=240, untagged=30)  # in which nothing is trained yet
    home = store.root
    code, summary, err = run("label", "--home", home, *QUICK)
    assert code == 0, err
    counts = {name: summary[name] for name in ("rows", "tagged", "untagged", "reused")}
    assert counts == {"rows": 30, "tagged": 240, "untagged": 30, "reused": False}
    assert "| **mean** |" in err
    assert summary["scores"]["mean_ap"] > summary["scores"]["mean_frequency"] + 0.1
    folder = store.state.local(summary["folder"])
    assert {path.name for path in folder.iterdir()} >= {
        "tagger.safetensors", "tagger.json", "scores.json", "scores.md"
    }  # fmt: skip
    table = read_table(
        store, MACHINE_LABELS_PATH, declared=machine_labels_schema(list(faces_of(store).labels))
    )
    assert table["tagger"].unique().to_pylist() == [summary["tagger"]]
    assert table["face_id"].to_pylist() == faces_of(store).untagged["face_id"].to_pylist()
    written = (store.state.local(MACHINE_LABELS_PATH)).stat().st_mtime_ns

    again, rerun, err = run("label", "--home", home, *QUICK)
    assert (again, rerun["reused"]) == (0, True)
    assert "already trained" in err
    assert "already labelled" in err
    assert store.state.local(MACHINE_LABELS_PATH).stat().st_mtime_ns == written
    same = ("table_digest", "tagger", "counts", "without", "scores")
    assert {name: rerun[name] for name in same} == {name: summary[name] for name in same}

    manifest = build_manifest(store, eval_frac=0.2, machine_labels=MACHINE_LABELS_PATH)
    rows = [
        row for part in ("train", "eval") for row in read_split(store, manifest, part).to_pylist()
    ]
    by_machine = {row["face_id"]: row for row in rows if row["labels_by"] == "machine"}
    assert len(by_machine) == 30
    machine = MachineLabels(MACHINE_LABELS_PATH, manifest.labels)
    for said in table.to_pylist():
        row = by_machine[said["face_id"]]
        assert [row[name] for name in manifest.labels] == [
            said[name] >= np.float32(machine.threshold) for name in manifest.labels
        ]


def test_labels_made_elsewhere_are_those_of_this_process(
    store: Store, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "_CROPS_PER_BATCH", 8)
    tables = []
    for compute in ("processes", "tests.dataset.test_compute:make_executor"):
        store.remove("machine_labels.json")
        code, made, err = run("label", "--home", store.root, "--compute", compute, *QUICK)
        assert (code, made["rows"], made["reused"]) == (0, 30, False), err
        tables.append(store.read_bytes(MACHINE_LABELS_PATH))
    assert tables[0] == tables[1]


def test_a_changed_table_is_made_again(store: Store, run: Any) -> None:
    run("label", "--home", store.root, *QUICK)
    whole = store.read_bytes(MACHINE_LABELS_PATH)
    record = store.read_json("machine_labels.json")
    store.write_json("machine_labels.json", record | {"digest": "0" * 64})
    code, made, _ = run("label", "--home", store.root, *QUICK)
    assert (code, made["reused"]) == (0, False)
    assert store.read_bytes(MACHINE_LABELS_PATH) == whole


def test_train_evaluate_and_apply_agree(store: Store, run: Any, tmp_path: Path) -> None:
    _, trained, _ = run("train", "--home", store.root, *QUICK)
    model = str(store.state.local(trained["folder"]))
    of_model = ["--model", model, "--device", "cpu"]
    code, measured, err = run(
        "evaluate", "--home", store.root, *of_model, "--eval-frac", "0.2", "--out", "seen"
    )
    assert code == 0, err
    assert measured["scores"] == trained["scores"]
    assert store.read_json("seen/scores.json") == trained["scores"]
    code, applied, _ = run("apply", "--home", store.root, *of_model, "--threshold", "0.5")
    assert (code, applied["rows"], applied["tagger"]) == (0, 30, trained["tagger"])

    images, _ = drawn_heads(3, seed=9)
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    Image.new("RGB", (60, 40), "white").save(tmp_path / "in" / "wide.png")
    code, line, err = run("apply", *of_model, str(tmp_path / "0.png"), "--json")
    assert (code, err) == (0, "")
    assert set(line["probabilities"]) == set(LABELS)
    sure = {name for name, said in line["probabilities"].items() if said >= 0.25}
    assert set(line["labels"]) == sure
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    code, line, err = run("apply", *of_model, str(tmp_path), "--json")
    assert (code, Path(line["file"]).name) == (1, "wide.png")
    assert "broken.jpg: " in err


def test_nothing_is_trained_where_every_face_has_tags(tmp_path: Path, run: Any) -> None:
    store = make_home(tmp_path / "home", tagged=40, untagged=0)
    code, summary, _ = run("label", "--home", store.root, *QUICK)
    assert (code, summary["rows"], summary["tagger"]) == (0, 0, None)
    assert not store.exists("taggers")


def test_too_few_tagged_faces_say_so(tmp_path: Path, run: Any) -> None:
    store = make_home(tmp_path / "home", tagged=12, untagged=3)
    code, _, err = run("label", "--home", store.root, *QUICK)
    assert code == 7
    assert "faces of the train split have tags, 16 or more are wanted" in err
    assert not store.exists(MACHINE_LABELS_PATH)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["apply", "--json"], 2, "pictures or --home are wanted"),
        (["apply", "nowhere.png", "--model", "m"], 2, "nowhere.png is not there"),
        (["apply", "--home", "HOME"], 2, "a tagger is wanted: --model DIR, or --onnx FILE"),
        (["label", "--home", "HOME", "--onnx", "m.onnx"], 2, "--onnx wants --tags too"),
        (["evaluate", "--home", "HOME", "--model", "nowhere"], 5, "tagger.json is not there"),
        (["train", "--home", "HOME", "--set", "bach=3"], 3, 'did you mean "batch"?'),
    ],
)
def test_a_fault_is_one_message_and_an_exit_code(
    store: Store, run: Any, arguments: list[str], code: int, message: str
) -> None:
    given = [store.root if one == "HOME" else one for one in arguments]
    found, _, err = run(*given)
    assert found == code
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.slow
def test_a_terminated_training_leaves_nothing_half_made(store: Store) -> None:
    long = [*QUICK, "--set", "total_kimg=100000", "--set", "max_passes=10000"]
    child = subprocess.Popen(
        [sys.executable, "-m", "models.tag", "train", "--home", store.root, *long],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMOKAGE_PROGRESS": ""},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("crops"):  # what comes next is the training
            break
    before = set(store.files("taggers"))
    child.send_signal(signal.SIGTERM)
    stderr = child.communicate(timeout=600)[1]
    assert child.returncode == 128 + signal.SIGTERM
    assert "the same command begins again" in stderr
    assert set(store.files("taggers")) == before
