"""A home that version 0.1.0 (commit e1fea30) made opens, resumes and draws as it did there.

`tests/homes/e1fea30.tar.xz` holds 60 posts of coloured squares with their blobs, crops, tables and
manifest, half a training of the smallest dcgan64, and the grid that e1fea30 drew from it.
"""

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from PIL import Image

from assets.faces import faces
from assets.labels import labels
from assets.machine_labels import machine_labels
from assets.manifest import manifest
from assets.resources import ChildProcess, ComputeResource, StoreResource
from crawlers.ledger import Ledger
from crawlers.ledger_file import MARKER
from dataset import crops
from dataset.errors import StoreError
from dataset.faces import FaceSettings
from dataset.schemas import FACES, read_table, row_count
from dataset.store import Store
from models import sample, train
from pipeline.cli import cli
from tests.dataset.home import cropped

ARCHIVE = Path(__file__).resolve().parents[1] / "homes" / "e1fea30.tar.xz"
MANIFEST = "f1c9677139b7d65fbc0efd75e6e739b40596539cd7447e866ef3ed69ae51bf0c"
TRAINING = "generators/stored"
FORMER = ("faces", "faces.parquet", "crops")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_a_stored_home_shows_its_status(home: Path) -> None:
    shown = CliRunner().invoke(cli, ["status", "--home", str(home)])
    assert shown.exit_code == 0, shown.output
    assert "ledger     60 posts kept\n" in shown.output
    assert "posts      60 rows" in shown.output
    assert f"manifest   {MANIFEST}" in shown.output


def test_an_evaluation_of_the_old_protocol_is_shown_with_a_mark(home: Path) -> None:
    store, evaluation = Store(str(home)), {"metric": "fd_x", "fd_x": 857.0, "sigma": 0.0}
    current = {"id": "one", "images_seen": 1000, "evaluation": "generators/one.json"}
    store.write_json("generators/current.json", current)
    store.write_json("generators/one.json", evaluation)
    shown = CliRunner().invoke(cli, ["status", "--home", str(home)]).output
    assert "evaluation fd_x 857.00 (old protocol: against real faces of 128 px)" in shown
    store.write_json("generators/one.json", evaluation | {"resolution_px": 64})
    assert "old protocol" not in CliRunner().invoke(cli, ["status", "--home", str(home)]).output


def test_a_generator_of_an_earlier_manifest_is_shown_as_such(home: Path) -> None:
    store, current = Store(str(home)), {"id": "one", "images_seen": 1000, "manifest": MANIFEST}
    store.write_json("generators/current.json", current)
    shown = CliRunner().invoke(cli, ["status", "--home", str(home)]).output
    assert "generator  one, 1 kimg\n" in shown
    assert re.search(r"^evaluation none yet: .* run --home ", shown, re.MULTILINE)
    store.write_json("generators/current.json", current | {"manifest": "0" * 64})
    shown = CliRunner().invoke(cli, ["status", "--home", str(home)]).output
    assert "generator  one, 1 kimg; of an earlier manifest: " in shown


def test_a_stored_ledger_opens_with_every_blob(home: Path) -> None:
    with Ledger.of(Store(str(home))) as ledger:
        assert len(list(ledger.blobs())) == 60
    assert (home / MARKER).is_file()  # that version knew none: its blobs fit


def test_a_stored_home_without_its_blobs_is_no_empty_one(home: Path) -> None:
    (home / "blobs").rename(home / "unplugged")
    with pytest.raises(StoreError, match="blobs: 60 of the 60 blobs"):
        Ledger.of(Store(str(home)))
    assert not (home / "blobs").exists()


def test_a_stored_home_is_built_on_without_cropping_anything_again(home: Path) -> None:
    result = dg.materialize(
        [faces, labels, machine_labels, manifest],
        resources={
            "store": StoreResource(root=str(home)),
            "compute": ComputeResource(),
            "child": ChildProcess(),
        },
        run_config={
            "ops": {
                "faces": {"config": {"cropped": True, "mode": "fast"}},
                "manifest": {"config": {"eval_frac": 0.2}},
            }
        },
    )
    (made,) = result.asset_materializations_for_node("faces")
    assert made.metadata["pictures_reused"].value == made.metadata["pictures"].value == 60
    # The files of before are taken over: the crops once, the tables whole.
    assert not [name for name in FORMER if (home / name).exists()]
    (made,) = result.asset_materializations_for_node("manifest")
    assert made.metadata["digest"].value == MANIFEST


def test_a_killed_takeover_of_a_stored_home_goes_on_where_it_was(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings, taken = Store(home), FaceSettings(cropped=True, mode="fast"), 0

    def killed_at_the_thirtieth(store: Store, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        nonlocal taken
        taken += 1
        if taken == 30:
            raise KeyboardInterrupt
        return with_crops(store, rows)

    with_crops = crops._with_crops
    monkeypatch.setattr(crops, "_with_crops", killed_at_the_thirtieth)
    with pytest.raises(KeyboardInterrupt):
        cropped(store, settings)
    in_before = row_count(store, crops.CROPS_PATH)
    assert 0 < in_before < 30
    made = cropped(store, settings)
    assert taken == 30 + 60 - in_before  # what was in stayed
    assert made.pictures_reused == made.pictures == 60
    rows = read_table(store, made.path, declared=FACES)
    assert rows.num_rows == len(set(rows["face_id"].to_pylist())) == made.rows
    assert len(crops.Crops(store).pixels(rows.filter(pc.is_valid(rows["crop"])))) == made.kept


def test_a_stored_generator_draws_what_it_drew(home: Path) -> None:
    drawn = home / "drawn.png"
    arguments = ["--generator", str(home / TRAINING), "--n", "4", "--seed", "5"]
    assert sample.main(["grid", *arguments, "--out", str(drawn)]) == 0
    before = np.asarray(Image.open(home / "expected.png"), dtype=np.int16)
    now = np.asarray(Image.open(drawn), dtype=np.int16)
    # Other processors round differently; on one machine the bytes are equal.
    assert np.abs(now - before).max() <= 2


def test_a_stored_training_resumes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["total_kimg=0.064", "snapshot_kimg=0.032", "g_width=0.03", "d_width=0.03"]
    overrides = [part for setting in settings for part in ("--set", setting)]
    arguments = ["--home", str(home), "--out", TRAINING, "--preset", "dcgan64-smoke", *overrides]
    assert train.main(arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["images_seen"] == 64
    assert result["manifest_digest"] == MANIFEST
    checkpoints = sorted(path.name for path in (home / TRAINING / "checkpoints").iterdir())
    assert checkpoints == ["0000000032", "0000000064"]  # the stored one was not trained again
