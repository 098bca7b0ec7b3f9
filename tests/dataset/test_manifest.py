"""A manifest is named by its content; packed, it is the crops as they were cut."""

import dataclasses
import datetime
import multiprocessing
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset import tables
from dataset.crops import CROPS_PATH, Crops
from dataset.errors import ConfigError, EmptyStageError, OmokageError, SchemaError, StoreError
from dataset.geometry import resized
from dataset.labels import LabelSettings, choose_labels
from dataset.manifest import Manifest, build_manifest, load_manifest, read_split, split_of
from dataset.packed import pack
from dataset.schemas import FACES, FACES_PATH, POSTS, POSTS_PATH, read_table, write_table
from dataset.store import Store
from tests.dataset.home import Home, cropped, png, portrait, portrait_tags, rows_of

COUNT = 14


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home as it is before the manifest; copied for each test."""
    home = Home(Store(str(tmp_path_factory.mktemp("template"))))
    for seed in range(COUNT):
        home.add(png(portrait(seed)), tags=portrait_tags(seed))
    home.write()
    cropped(home.store)
    choose_labels(home.store, LabelSettings())
    return home


@pytest.fixture(scope="module")
def built_in(template: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Another copy, for a test of many examples that builds in it."""
    copied = tmp_path_factory.mktemp("built") / "home"
    shutil.copytree(template.store.root, copied)
    return Home(Store(str(copied)), list(template.rows))


@pytest.fixture
def ready(template: Home, tmp_path: Path) -> Home:
    shutil.copytree(template.store.root, tmp_path / "ready")
    return Home(Store(str(tmp_path / "ready")), list(template.rows))


def build(home: Home) -> Manifest:
    return build_manifest(home.store, eval_frac=0.4)


def test_rows_bear_the_labels_of_their_post(ready: Home) -> None:
    made = build(ready)
    truth = {row["sha256"]: row["tags_general"] for row in ready.rows}
    rows = rows_of(ready.store, made)
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
    cropped(ready.store, threads=3)
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
        ready.store.state.local(f"{made.folder}/{name}")
        for name in ("train.parquet", "manifest.json")
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


def test_split_has_the_requested_part() -> None:
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
    table = read_split(ready.store, made, "train")
    rows, crops = table.to_pylist(), Crops(ready.store).pixels(table)
    assert packed.images.shape == (made.train_rows, 3, 128, 128)
    assert packed.face_ids == [row["face_id"] for row in rows]
    for image, labels, row, crop in zip(packed.images, packed.labels, rows, crops, strict=True):
        assert (image.transpose(1, 2, 0) == crop).all()
        assert labels.tolist() == [int(row[label]) for label in made.labels]


def test_packed_once_then_mapped(ready: Home) -> None:
    made = build(ready)
    first = pack(ready.store, made, "eval", resolution_px=32)
    assert isinstance(first.images, np.memmap)
    assert first.path == ready.store.state.local(f"packed/{made.digest}/eval-32.npy")
    ready.store.remove(CROPS_PATH)
    again = pack(ready.store, made, "eval", resolution_px=32)
    assert (again.images == first.images).all()


def test_packed_may_lie_elsewhere(ready: Home, tmp_path: Path) -> None:
    made = build(ready)
    apart = Store(ready.store.root, scratch=tmp_path / "near")
    packed = pack(apart, made, "eval", resolution_px=32)
    assert packed.path.is_relative_to(tmp_path / "near")
    assert not ready.store.exists("packed")


def without(home: Home, *rows: dict[str, Any]) -> None:
    for row in rows:
        tables.delete(home.store, CROPS_PATH, f"face_id = '{row['face_id']}'")


def test_missing_or_changed_crop_is_named(ready: Home) -> None:
    made = build(ready)
    row = read_split(ready.store, made, "train").to_pylist()[0]
    schema = tables.schema_of(ready.store, CROPS_PATH)
    (rows,) = tables.scan(ready.store, CROPS_PATH, columns=schema.names, rows=99)
    other = [
        one | {"png": png(Image.new("RGB", (128, 128)))} if one["crop"] == row["crop"] else one
        for one in rows.to_pylist()
    ]
    changed = pa.RecordBatch.from_pylist(other, schema=schema)
    tables.write(ready.store, CROPS_PATH, [changed], schema=schema)
    with pytest.raises(OmokageError, match=rf"{row['crop']}: its pixels have the sha256"):
        pack(ready.store, made, "train", resolution_px=32)
    without(ready, row)
    with pytest.raises(StoreError, match=rf"crops\.lance has no {row['crop']}"):
        pack(ready.store, made, "train", resolution_px=32)
    assert not any(name.endswith(".npy") for name in ready.store.files("packed"))


@pytest.mark.parametrize("damage", ["other", "shorter", "one_byte", "no_seal", "torn_seal"])
def test_damaged_pack_is_packed_again(ready: Home, damage: str) -> None:
    made = build(ready)
    path = pack(ready.store, made, "eval", resolution_px=32).path
    whole, seal = path.read_bytes(), path.with_name("eval-32.npy.json")
    if damage == "other":
        np.save(path, np.zeros((1, 3, 32, 32), np.uint8))
    elif damage == "shorter":
        path.write_bytes(whole[:-1])
    elif damage == "one_byte":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        os.utime(path, ns=(0, 0))
    elif damage == "no_seal":
        seal.unlink()
    else:
        seal.write_bytes(seal.read_bytes()[:20])
    pack(ready.store, made, "eval", resolution_px=32)
    assert path.read_bytes() == whole


def test_touched_pack_is_read_and_stays(ready: Home) -> None:
    made = build(ready)
    path = pack(ready.store, made, "eval", resolution_px=32).path
    os.utime(path, ns=(0, 0))
    ready.store.remove(CROPS_PATH)  # so it could not be packed again
    for _ in range(2):
        assert len(pack(ready.store, made, "eval", resolution_px=32).images) == made.eval_rows


def test_interrupted_pack_resumes_where_it_stopped(
    ready: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataset.packed._ROWS_AT_ONCE", 2)
    made = build(ready)
    table = read_split(ready.store, made, "train")
    rows, crops = table.to_pylist(), Crops(ready.store).pixels(table)
    interrupt_pack(ready, made, rows[5])
    without(ready, *rows[:4])  # these are safely in it: they are not read again
    images = pack(ready.store, made, "train", resolution_px=32).images
    for image, crop in zip(images, crops, strict=True):
        assert (image.transpose(1, 2, 0) == resized(crop, 32)).all()
    assert not [name for name in ready.store.files("packed") if ".part" in name]


def interrupt_pack(home: Home, made: Manifest, stop: dict[str, Any]) -> None:
    """Packs up to a crop that is away meanwhile."""
    table, away = home.store.state.local(CROPS_PATH), home.store.state.local("away")
    shutil.copytree(table, away)
    without(home, stop)
    with pytest.raises(StoreError, match=r"crops\.lance has no"):
        pack(home.store, made, "train", resolution_px=32)
    shutil.rmtree(table)
    away.rename(table)


def test_damaged_part_is_begun_again(ready: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataset.packed._ROWS_AT_ONCE", 2)
    made = build(ready)
    table = read_split(ready.store, made, "train")
    interrupt_pack(ready, made, table.to_pylist()[5])
    part = ready.store.state.local(f"packed/{made.digest}/train-32.npy.part")
    content = part.read_bytes()
    part.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    images = pack(ready.store, made, "train", resolution_px=32).images
    (crop,) = Crops(ready.store).pixels(table.slice(0, 1))
    assert (images[0].transpose(1, 2, 0) == resized(crop, 32)).all()


def test_two_processes_pack_once(ready: Home) -> None:
    made = build(ready)
    call = (ready.store, made, "train")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        packing = [executor.submit(pack, *call, resolution_px=32) for _ in range(2)]
        both = [np.array(one.result().images) for one in packing]
    assert (both[0] == both[1]).all()
    assert (pack(*call, resolution_px=32).images == both[0]).all()
    names = {name.rsplit("/", 1)[1] for name in ready.store.files("packed")}
    assert names == {"train-32.npy", "train-32.npy.json", "train-32.npy.lock"}


def alter(home: Home, path: str, column: str, value: object) -> None:
    """Changes a cell of the first row of a table, as a hand or a failing disk would."""
    table = pq.read_table(home.store.state.local(path))
    cells = [value, *table[column].to_pylist()[1:]]
    field = table.schema.field(column)
    place = table.schema.get_field_index(column)
    changed = table.set_column(place, field, pa.array(cells, field.type))
    pq.write_table(changed, home.store.state.local(path))


def test_altered_manifest_is_refused_and_built_again(ready: Home) -> None:
    made = build(ready)
    path = f"{made.folder}/train.parquet"
    label = made.labels[0]
    before = read_split(ready.store, made, "train")
    alter(ready, path, label, not before[label][0].as_py())
    with pytest.raises(SchemaError, match=r"train\.parquet was altered: its rows have the digest"):
        read_split(ready.store, made, "train")
    assert build(ready) == made
    assert read_split(ready.store, made, "train").equals(before)
    ready.store.write_bytes(path, b"torn")
    with pytest.raises(SchemaError, match=r"train\.parquet is not a Parquet file"):
        read_split(ready.store, made, "train")
    assert build(ready) == made
    content = ready.store.read_json(f"{made.folder}/manifest.json")
    ready.store.write_json(f"{made.folder}/manifest.json", {**content, "labels": ["ahoge"]})
    with pytest.raises(SchemaError, match=r"manifest\.json was altered: its labels and splits"):
        load_manifest(ready.store, made.digest)
    build(ready)
    assert load_manifest(ready.store, None) == made


def test_face_that_stands_twice_is_named(ready: Home) -> None:
    table = read_table(ready.store, FACES_PATH, declared=FACES)
    double = pa.concat_tables([table, table.slice(3, 1)])
    write_table(ready.store, FACES_PATH, double, declared=FACES)
    with pytest.raises(
        SchemaError, match=rf"faces that stand twice.*\n  {table['face_id'][3].as_py()}"
    ):
        build(ready)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(random=st.randoms(use_true_random=False), group=st.integers(1, 9), copies=st.integers(0, 3))
def test_digest_is_the_same_whatever_the_order_chunks_and_copies(
    built_in: Home, random: Random, group: int, copies: int
) -> None:
    """Rows in any order, in row groups of any size, pictures posted again elsewhere."""
    made = build(built_in)
    again = [
        {**random.choice(built_in.rows), "board": "elsewhere", "post_id": number}
        for number in range(copies)
    ]
    posts = random.sample([*built_in.rows, *again], COUNT + copies)
    faces = read_table(built_in.store, FACES_PATH, declared=FACES)
    order = pa.array(random.sample(range(faces.num_rows), faces.num_rows))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        Path(folder, CROPS_PATH).symlink_to(built_in.store.state.local(CROPS_PATH))
        shutil.copy(built_in.store.state.local("labels.json"), folder)
        table = pa.Table.from_pylist(posts, schema=POSTS)
        parts = table.to_batches(max_chunksize=group)
        tables.write(store, POSTS_PATH, parts, schema=POSTS)
        parts = faces.take(order).to_batches(max_chunksize=group)
        tables.write(store, FACES_PATH, parts, schema=FACES)
        other = build(Home(store))
        assert other == made
        for split in ("train", "eval"):
            rows = read_split(built_in.store, made, split)
            assert read_split(store, other, split).equals(rows)
            assert rows["face_id"].to_pylist() == sorted(rows["face_id"].to_pylist())


def test_dropped_faces_stand_in_no_split(ready: Home) -> None:
    """So a near-duplicate of a face in train cannot be judged in eval."""
    faces = read_table(ready.store, FACES_PATH, declared=FACES).to_pylist()
    dropped = [row | {"drop_reason": "near_duplicate"} for row in faces[::7]]
    table = pa.Table.from_pylist([*dropped, *(row for row in faces if faces.index(row) % 7)], FACES)
    write_table(ready.store, FACES_PATH, table, declared=FACES)
    made = build(ready)
    ids = [row["face_id"] for row in rows_of(ready.store, made)]
    assert len(ids) == COUNT - len(dropped)
    assert not set(ids) & {row["face_id"] for row in dropped}


def test_one_picture_and_one_post_stand_in_one_split(ready: Home) -> None:
    faces = read_table(ready.store, FACES_PATH, declared=FACES).to_pylist()
    second = [{**row, "face_id": row["face_id"][:-1] + "7"} for row in faces]
    table = pa.Table.from_pylist([*faces, *second], schema=FACES)
    write_table(ready.store, FACES_PATH, table, declared=FACES)
    made = build(ready)
    parts = [read_split(ready.store, made, split) for split in ("train", "eval")]
    assert sum(part.num_rows for part in parts) == 2 * COUNT
    for name in ("sha256", "post_id"):
        train, evaluation = (set(part[name].to_pylist()) for part in parts)
        assert not train & evaluation
