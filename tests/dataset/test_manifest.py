"""A manifest is named by its content; packed, it is the crops as they were cut."""

import dataclasses
import datetime
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset.decode import decode
from dataset.errors import ConfigError, EmptyStageError, OmokageError, SchemaError, StoreError
from dataset.faces import FaceSettings, crop_shards
from dataset.labels import LabelSettings, choose_labels
from dataset.manifest import Manifest, build_manifest, load_manifest, read_split, split_of
from dataset.packed import pack
from dataset.store import Store
from tests.dataset.home import Home, png, portrait, portrait_tags

COUNT = 14


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home as it is before the manifest; copied for each test."""
    home = Home(Store(str(tmp_path_factory.mktemp("template"))))
    for seed in range(COUNT):
        home.add(png(portrait(seed)), tags=portrait_tags(seed))
    home.write()
    with ThreadPoolExecutor(1) as executor:
        crop_shards(home.store, FaceSettings(), executor)
    choose_labels(home.store, LabelSettings())
    return home


@pytest.fixture
def ready(template: Home, tmp_path: Path) -> Home:
    shutil.copytree(template.store.root, tmp_path / "ready")
    return Home(Store(str(tmp_path / "ready")), list(template.rows))


def build(home: Home) -> Manifest:
    return build_manifest(home.store, eval_frac=0.4)


def test_rows_bear_the_labels_of_their_post(ready: Home) -> None:
    made = build(ready)
    truth = {row["sha256"]: row["tags_general"] for row in ready.rows}
    rows = [
        row
        for split in ("train", "eval")
        for row in read_split(ready.store, made, split).to_pylist()
    ]
    assert len(rows) == made.train_rows + made.eval_rows == COUNT
    assert made.crop_px == 128
    for row in rows:
        assert [label for label in made.labels if row[label]] == [
            label for label in made.labels if label in truth[row["sha256"]]
        ]
    assert made.counts == {label: sum(row[label] for row in rows) for label in made.labels}


def test_current_is_what_was_built_last(ready: Home) -> None:
    first = build_manifest(ready.store, eval_frac=0.4)
    second = build_manifest(ready.store, eval_frac=0.6)
    assert first.digest != second.digest
    assert load_manifest(ready.store, None) == second
    assert load_manifest(ready.store, first.digest) == first


def test_digest_does_not_depend_on_when_and_where(ready: Home, tmp_path: Path) -> None:
    first = build(ready)
    later = [
        {**row, "fetched_at": row["fetched_at"] + datetime.timedelta(days=3)} for row in ready.rows
    ]
    ready.write(later[::-1])
    shutil.copytree(ready.store.root, tmp_path / "elsewhere")
    with ThreadPoolExecutor(3) as executor:
        crop_shards(ready.store, FaceSettings(), executor)
    assert build(ready) == first
    assert build(Home(Store(str(tmp_path / "elsewhere")))) == first


def test_another_tag_gives_another_digest(ready: Home) -> None:
    first = build(ready)
    assert "red_hair" in first.labels
    row = next(row for row in ready.rows if "red_hair" not in row["tags_general"])
    changed = {**row, "tags_general": [*row["tags_general"], "red_hair"]}
    ready.write([changed if other is row else other for other in ready.rows])
    assert build(ready).digest != first.digest


def test_the_same_manifest_is_not_written_again(ready: Home) -> None:
    made = build(ready)
    files = [
        ready.store.local(f"{made.folder}/{name}") for name in ("train.parquet", "manifest.json")
    ]
    before = [file.stat().st_mtime_ns for file in files]
    build(ready)
    assert [file.stat().st_mtime_ns for file in files] == before


def test_an_unfinished_manifest_is_finished(ready: Home) -> None:
    made = build(ready)
    for name in ("manifest.json", "eval.parquet"):
        ready.store.remove(f"{made.folder}/{name}")
    assert build(ready) == made
    assert read_split(ready.store, made, "eval").num_rows == made.eval_rows


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1), st.floats(0.01, 0.99))
def test_a_blob_stands_in_one_split_and_stays_in_eval_as_it_grows(
    blobs: list[bytes], eval_frac: float
) -> None:
    for blob in blobs:
        small, large = (split_of(blob.hex(), part) for part in (eval_frac / 2, eval_frac))
        assert small in ("train", "eval")
        assert not (small == "eval" and large == "train")


def test_split_has_the_asked_part() -> None:
    blobs = np.random.default_rng(0).bytes(32 * 4000).hex()
    splits = [split_of(blobs[start : start + 64], 0.1) for start in range(0, len(blobs), 64)]
    assert splits.count("eval") / len(splits) == pytest.approx(0.1, abs=0.02)


def test_an_empty_split_is_an_empty_stage(ready: Home) -> None:
    with pytest.raises(
        EmptyStageError, match=r"14 crops in train and 0 in eval \(eval_frac 1e-06\)"
    ):
        build_manifest(ready.store, eval_frac=1e-6)


def test_impossible_part_is_refused(ready: Home) -> None:
    with pytest.raises(ConfigError, match="eval_frac is 1; a part between 0 and 1 wanted"):
        build_manifest(ready.store, eval_frac=1.0)


def test_missing_manifests_are_named(ready: Home) -> None:
    with pytest.raises(OmokageError, match=r"current\.json is not there: no manifest was built"):
        load_manifest(ready.store, None)
    with pytest.raises(OmokageError, match=r"manifest/0{64}/manifest\.json is not there"):
        load_manifest(ready.store, "0" * 64)
    with pytest.raises(OmokageError, match='"latest" is no manifest digest; 64 hex digits wanted'):
        load_manifest(ready.store, "latest")


def test_foreign_manifest_is_refused(ready: Home) -> None:
    made = build(ready)
    path = f"{made.folder}/manifest.json"
    content = ready.store.read_json(path)
    ready.store.write_json(path, {**content, "digest": "0" * 64})
    with pytest.raises(SchemaError, match=f"says it is 0{{64}}; {made.digest} wanted"):
        load_manifest(ready.store, made.digest)
    ready.store.write_json(path, {**content, "colour": 1})
    with pytest.raises(SchemaError, match="no manifest of this version"):
        load_manifest(ready.store, made.digest)


def test_split_of_another_manifest_is_refused(ready: Home) -> None:
    made = build(ready)
    with pytest.raises(OmokageError, match='"test" is no split; train or eval wanted'):
        read_split(ready.store, made, "test")
    with pytest.raises(SchemaError, match="rows, the manifest says 99"):
        read_split(ready.store, dataclasses.replace(made, train_rows=99), "train")
    fewer = [label for label in made.labels if label != "red_hair"]
    with pytest.raises(SchemaError, match=r"red_hair is unknown"):
        read_split(ready.store, dataclasses.replace(made, labels=fewer), "train")


def test_packed_pictures_are_the_crops_in_the_rows_order(ready: Home) -> None:
    made = build(ready)
    packed = pack(ready.store, made, "train", resolution_px=128)
    rows = read_split(ready.store, made, "train").to_pylist()
    assert packed.images.shape == (made.train_rows, 3, 128, 128)
    assert packed.face_ids == [row["face_id"] for row in rows]
    for image, labels, row in zip(packed.images, packed.labels, rows, strict=True):
        crop = decode(ready.store.read_bytes(row["crop"]), where=row["crop"])
        assert (image.transpose(1, 2, 0) == crop).all()
        assert labels.tolist() == [int(row[label]) for label in made.labels]


def test_packed_once_then_mapped(ready: Home) -> None:
    made = build(ready)
    first = pack(ready.store, made, "eval", resolution_px=32)
    assert isinstance(first.images, np.memmap)
    assert first.path == ready.store.local(f"packed/{made.digest}/eval-32.npy")
    shutil.rmtree(ready.store.local("crops"))
    again = pack(ready.store, made, "eval", resolution_px=32)
    assert (again.images == first.images).all()


def test_packed_may_lie_elsewhere(ready: Home, tmp_path: Path) -> None:
    made = build(ready)
    packed = pack(ready.store, made, "eval", resolution_px=32, into=Store(str(tmp_path / "near")))
    assert packed.path.is_relative_to(tmp_path / "near")
    assert not ready.store.exists("packed")


def test_missing_or_changed_crop_is_named(ready: Home) -> None:
    made = build(ready)
    crop = read_split(ready.store, made, "train")["crop"][0].as_py()
    ready.store.write_bytes(crop, png(Image.new("RGB", (128, 128))))
    with pytest.raises(OmokageError, match=rf"{crop}: its pixels have the sha256 .*remove it"):
        pack(ready.store, made, "train", resolution_px=32)
    ready.store.remove(crop)
    with pytest.raises(StoreError, match=rf"{crop} is not there"):
        pack(ready.store, made, "train", resolution_px=32)
    assert ready.store.files("packed") == []


def test_foreign_pack_is_refused(ready: Home) -> None:
    made = build(ready)
    path = pack(ready.store, made, "eval", resolution_px=32).path
    np.save(path, np.zeros((1, 3, 32, 32), np.uint8))
    with pytest.raises(OmokageError, match=r"eval-32\.npy is uint8 \[1, 3, 32, 32\]; uint8 \["):
        pack(ready.store, made, "eval", resolution_px=32)


def test_all_stages_work_on_an_object_store(tmp_path: Path) -> None:
    home = Home(Store(f"memory://{tmp_path.name}"))
    for seed in range(COUNT):
        home.add(png(portrait(seed)), tags=portrait_tags(seed))
    home.write()
    for reused in (0, 16):
        with ThreadPoolExecutor(1) as executor:
            assert crop_shards(home.store, FaceSettings(), executor).shards_reused == reused
    choose_labels(home.store, LabelSettings())
    made = build(home)
    assert load_manifest(home.store, None) == made
    with pytest.raises(StoreError, match="a local folder is needed here"):
        pack(home.store, made, "train", resolution_px=32)
    packed = pack(home.store, made, "train", resolution_px=32, into=Store(str(tmp_path)))
    assert len(packed.images) == made.train_rows
