"""An exported training set has the manifest's rows and crops, whatever reads it."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dataset import export
from dataset.crops import Crops
from dataset.decode import decode
from dataset.digests import pixels_sha256
from dataset.errors import UsageError
from dataset.export import FORMATS, export_set
from dataset.labels import LabelSettings, choose_labels
from dataset.manifest import SPLITS, Manifest, build_manifest
from dataset.store import LocalFolder
from tests.dataset.home import Home, cropped, png, portrait, portrait_tags, rows_of

COUNT = 16


@pytest.fixture
def made(home: Home) -> Manifest:
    for seed in range(COUNT):
        home.add(png(portrait(seed)), tags=portrait_tags(seed))
    home.write()
    cropped(home.store)
    choose_labels(home.store, LabelSettings(max_frac=1.0))
    return build_manifest(home.store, eval_frac=0.4)


def parquet_rows(folder: Path) -> list[dict[str, Any]]:
    return [
        row for split in SPLITS for row in pq.read_table(folder / f"{split}.parquet").to_pylist()
    ]


def tar_rows(folder: Path, labels: list[str]) -> list[dict[str, Any]]:
    rows = []
    for path in sorted(folder.glob("*.tar"), key=lambda path: path.name[:2] != "tr"):
        with tarfile.open(path) as tar:
            members = {one.name: tar.extractfile(one) for one in tar.getmembers()}
            content = {name: one.read() for name, one in members.items() if one is not None}
        for name in (name for name in content if name.endswith(".json")):
            facts = json.loads(content[name])
            has = facts.pop("labels")
            picture = content[name.replace(".json", ".png")]
            rows.append({**facts, **{one: one in has for one in labels}, "png": picture})
    return rows


@pytest.mark.parametrize("form", FORMATS)
def test_rows_and_pixels_are_those_of_the_manifest(
    home: Home, made: Manifest, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_ROWS_A_TAR", 4)
    monkeypatch.setattr(export, "_ROWS_AT_ONCE", 3)
    names = export_set(home.store, made, LocalFolder(tmp_path / "set"), form=form)
    folder = tmp_path / "set"
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    rows = parquet_rows(folder) if form == "parquet" else tar_rows(folder, made.labels)
    for row in rows:
        assert pixels_sha256(decode(row.pop("png"), where="png")) == row["crop_sha256"]
    assert rows == rows_of(home.store, made)
    note = json.loads((folder / "dataset.json").read_text())
    assert (note["digest"], note["labels"], note["format"]) == (made.digest, made.labels, form)


def test_a_stopped_export_goes_on_and_gives_the_same_bytes(
    home: Home, made: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_ROWS_A_TAR", 4)
    whole, stopped = LocalFolder(tmp_path / "whole"), LocalFolder(tmp_path / "stopped")
    export_set(home.store, made, whole, form="webdataset")
    reads = 0

    def stopping(crops: Crops, rows: Any) -> list[bytes]:
        nonlocal reads
        reads += 1
        if reads == 3:
            raise KeyboardInterrupt
        return read(crops, rows)

    read = Crops.read
    with monkeypatch.context() as patch:
        patch.setattr(Crops, "read", stopping)
        with pytest.raises(KeyboardInterrupt):
            export_set(home.store, made, stopped, form="webdataset")
        assert "dataset.json" not in stopped.names("")
        assert len([name for name in stopped.names("") if name.endswith(".tar")]) == 2
        export_set(home.store, made, stopped, form="webdataset")
    assert stopped.names("") == whole.names("")
    for name in whole.names(""):
        assert stopped.read_bytes(name) == whole.read_bytes(name)
    assert reads == 3 + len(whole.names("")) - 1 - 2


def test_a_folder_with_anything_else_is_refused(home: Home, made: Manifest, tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path / "set")
    folder.write_bytes("mine.txt", b"mine")
    with pytest.raises(UsageError, match=r"holds mine\.txt already; an empty folder wanted"):
        export_set(home.store, made, folder, form="parquet")
    folder.remove("mine.txt")
    folder.write_json(".begun.json", {"manifest": "0" * 64, "format": "parquet"})
    with pytest.raises(UsageError, match="the beginning of another export"):
        export_set(home.store, made, folder, form="parquet")
    assert np.array_equal(folder.names(""), [".begun.json"])
