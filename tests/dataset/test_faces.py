"""Shards are cropped once, again only where something changed, and always to the same table."""

import dataclasses
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image, ImageFilter

from dataset import crops, tables, takedown
from dataset.cropping import faces_in
from dataset.crops import CROPS_PATH, Crops
from dataset.digests import pixels_sha256
from dataset.errors import ConfigError, EmptyStageError, SchemaError, StoreError
from dataset.faces import FaceSettings, FacesTable, crop_faces
from dataset.schemas import FACES, read_table
from dataset.store import Store, blob_path
from tests.dataset.home import Home, png, portrait, scenery

SETTINGS = FaceSettings()
COUNT = 12
GROWING = ("crops.lance", "faces.lance")


class Counting(ThreadPoolExecutor):
    """Counts the pictures that are handed to it."""

    def __init__(self) -> None:
        super().__init__(2)
        self.pictures: list[str] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.pictures += args[1]["sha256"].to_pylist()
        return super().submit(fn, *args, **kwargs)


@pytest.fixture
def executor() -> Iterator[Counting]:
    with Counting() as made:
        yield made


def fill(home: Home) -> list[str]:
    """A dozen portraits and two sceneries."""
    blobs = [home.add(png(portrait(seed))) for seed in range(COUNT)]
    for seed in range(2):
        home.add(png(scenery(seed)))
    home.write()
    return blobs


def faces_of(home: Home, made: FacesTable) -> pa.Table:
    return read_table(home.store, made.path, declared=FACES)


def versions_of(home: Home) -> list[str]:
    return [name for path in GROWING for name in home.store.files(f"{path}/_versions")]


def reasons(home: Home, made: FacesTable) -> dict[str, str | None]:
    """The drop_reason of each blob's largest face."""
    rows = faces_of(home, made).to_pylist()
    return {row["sha256"]: row["drop_reason"] for row in reversed(rows)}


def test_table_and_crops_are_as_declared(home: Home, executor: Executor) -> None:
    fill(home)
    made = crop_faces(home.store, SETTINGS, executor)
    assert (made.pictures, made.pictures_without_face) == (COUNT + 2, 2)
    assert (made.rows, made.kept, made.dropped) == (COUNT, COUNT, {})
    assert (made.pictures_reused, made.unreadable) == (0, [])
    rows = faces_of(home, made)
    for row, crop in zip(rows.to_pylist(), Crops(home.store).pixels(rows), strict=True):
        assert row["crop"] == f"crops/{row['face_id'][:2]}/{row['face_id']}.png"
        assert crop.shape == (128, 128, 3)
        assert pixels_sha256(crop) == row["crop_sha256"]
        assert row["side"] >= 1.5 * row["w"] - 1


def test_second_run_crops_and_writes_nothing(home: Home, executor: Counting) -> None:
    fill(home)
    first = crop_faces(home.store, SETTINGS, executor)
    versions = versions_of(home)
    executor.pictures.clear()
    second = crop_faces(home.store, SETTINGS, executor)
    assert executor.pictures == []
    assert second == dataclasses.replace(first, pictures_reused=COUNT + 2, changed=0)
    assert versions == versions_of(home)


def test_new_picture_is_cropped_alone(home: Home, executor: Counting) -> None:
    fill(home)
    crop_faces(home.store, SETTINGS, executor)
    executor.pictures.clear()
    new = home.add(png(portrait(50)))
    home.write()
    made = crop_faces(home.store, SETTINGS, executor)
    assert executor.pictures == [new]
    assert (made.kept, made.pictures_reused) == (COUNT + 1, COUNT + 2)


def test_picture_taken_down_loses_row_and_crop(home: Home, executor: Counting) -> None:
    blobs = fill(home)
    before = crop_faces(home.store, SETTINGS, executor)
    (gone,) = (row for row in faces_of(home, before).to_pylist() if row["sha256"] == blobs[4])
    home.rows[4]["drop_reason"] = "takedown"
    home.write()
    executor.pictures.clear()
    made = crop_faces(home.store, SETTINGS, executor)
    assert executor.pictures == []
    assert blobs[4] not in faces_of(home, made)["sha256"].to_pylist()
    assert made.kept == COUNT - 1
    for path in GROWING:  # nor in an older version
        files = [file for file in home.store.state.local(path).rglob("*") if file.is_file()]
        assert not [file for file in files if gone["face_id"].encode() in file.read_bytes()]
        assert [file for file in files if blobs[5][:16].encode() in file.read_bytes()]


def files_with(home: Home, *texts: str) -> set[str]:
    """The files of the tables, hidden ones too, that hold any of the texts."""
    paths = [path for table in GROWING for path in home.store.state.local(table).rglob("*")]
    contents = {path.name: path.read_bytes() for path in paths if path.is_file()}
    return {name for name, one in contents.items() if any(text.encode() in one for text in texts)}


@pytest.mark.parametrize("case", ["fragment of its own", "killed", "other settings"])
def test_nothing_of_a_dropped_picture_stays_in_the_files(
    home: Home, executor: Counting, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(home)
    crop_faces(home.store, SETTINGS, executor)
    gone = home.add(png(portrait(50)))
    home.write()
    crop_faces(home.store, SETTINGS, executor)
    assert files_with(home, gone, gone[:16])
    home.rows[-1]["drop_reason"] = "rating"
    home.write()
    if case == "killed":
        with monkeypatch.context() as patch:
            patch.setattr(tables, "purge", lambda *_args, **_options: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                crop_faces(home.store, SETTINGS, executor)
    settings = FaceSettings(crop_px=64) if case == "other settings" else SETTINGS
    made = crop_faces(home.store, settings, executor)
    assert files_with(home, gone, gone[:16]) == set()
    assert made.kept == COUNT


def test_other_settings_crop_everything_again(home: Home, executor: Counting) -> None:
    fill(home)
    before = crop_faces(home.store, SETTINGS, executor)
    executor.pictures.clear()
    made = crop_faces(home.store, FaceSettings(crop_px=64), executor)
    assert len(executor.pictures) == COUNT + 2
    assert made.digest != before.digest
    assert Crops(home.store).pixels(faces_of(home, made))[0].shape == (64, 64, 3)


def test_settings_of_the_merge_crop_nothing_again(home: Home, executor: Counting) -> None:
    fill(home)
    crop_faces(home.store, SETTINGS, executor)
    made = crop_faces(home.store, FaceSettings(phash_distance=3), executor)
    assert made.pictures_reused == COUNT + 2


def test_table_does_not_depend_on_workers_or_order(home: Home, tmp_path: Path) -> None:
    fill(home)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        by_two = crop_faces(home.store, SETTINGS, pool)
    other = Home(Store(str(tmp_path / "other")))
    fill(other)
    other.write(other.rows[::-1])
    with ThreadPoolExecutor(1) as pool:
        by_one = crop_faces(other.store, SETTINGS, pool)
    assert by_one == by_two
    assert faces_of(home, by_two).equals(faces_of(other, by_one))


def test_what_was_cropped_before_a_failure_stands(
    home: Home, executor: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = sorted(fill(home))[-1]

    def failing(content: bytes, sha256: str, settings: FaceSettings, *, where: str) -> Any:
        if sha256 == last:
            raise StoreError("crops: the disk is full")
        return faces_in(content, sha256, settings, where=where)

    monkeypatch.setattr(crops, "faces_in", failing)
    monkeypatch.setattr(crops, "BATCH", 1)
    with pytest.raises(StoreError, match="the disk is full"):
        crop_faces(home.store, SETTINGS, executor)
    assert not home.store.exists("faces.lance")
    done = {
        name
        for part in tables.scan(home.store, CROPS_PATH, columns=["sha256"], rows=9)
        for name in part["sha256"].to_pylist()
    }
    assert len(done) >= COUNT - 3
    monkeypatch.undo()
    monkeypatch.setenv("OMOKAGE_PROGRESS", "off")
    executor.pictures.clear()
    made = crop_faces(home.store, SETTINGS, executor)
    assert not done & set(executor.pictures)
    assert made.kept == COUNT


def test_a_build_that_ended_while_the_table_of_crops_was_made_is_begun_again(
    home: Home, executor: Executor
) -> None:
    fill(home)
    tables.write(home.store, CROPS_PATH, (), schema=crops.CROPS)
    shutil.rmtree(home.store.state.local(f"{CROPS_PATH}/_versions"))  # before it was committed
    assert not tables.exists(home.store, CROPS_PATH)
    nobody = takedown.Pictures(files={"00" * 32: "demo/1"})
    assert takedown.find(home.store, nobody, named=()) == []
    assert crop_faces(home.store, SETTINGS, executor).kept == COUNT
    assert tables.exists(home.store, CROPS_PATH)


def test_one_blob_in_several_posts_is_used_once_by_the_first(
    home: Home, executor: Executor
) -> None:
    content = png(portrait(1))
    for board, post_id in (("b", 1), ("a", 9), ("a", 10)):
        home.add(content, board=board, post_id=post_id)
    home.add(content, board="a", post_id=2, drop_reason="rating")
    home.write()
    made = crop_faces(home.store, SETTINGS, executor)
    (row,) = faces_of(home, made).to_pylist()
    assert (row["board"], row["post_id"], made.pictures) == ("a", 9, 1)


def test_near_duplicate_of_an_earlier_post_is_dropped(home: Home, executor: Executor) -> None:
    picture = portrait(1)
    later = home.add(png(picture), board="b", post_id=1)
    earlier = home.add(png(picture.point(lambda value: value - value % 3)), board="a", post_id=7)
    other = home.add(png(portrait(2)), board="c", post_id=1)
    home.write()
    made = crop_faces(home.store, SETTINGS, executor)
    found = reasons(home, made)
    assert found == {later: "near_duplicate", earlier: None, other: None}
    dropped = faces_of(home, made).filter(pc.equal(faces_of(home, made)["sha256"], later))
    assert dropped["crop"].to_pylist() == dropped["crop_sha256"].to_pylist() == [None]


def test_two_faces_on_a_solo_post_are_both_dropped(home: Home, executor: Executor) -> None:
    pair = Image.new("RGB", (480, 240))
    pair.paste(portrait(1), (0, 0))
    pair.paste(portrait(2), (240, 0))
    solo = home.add(png(pair), tags=["solo", "long_hair"])
    pair.paste(portrait(3), (0, 0))
    pair.paste(portrait(4), (240, 0))
    both = home.add(png(pair), tags=["multiple_girls"])
    home.write()
    made = crop_faces(home.store, SETTINGS, executor)
    assert made.dropped == {"several_faces_on_solo": 2}
    assert made.kept == 2
    assert reasons(home, made) == {solo: "several_faces_on_solo", both: None}


def test_small_and_blurred_faces_are_dropped_by_name(home: Home, executor: Executor) -> None:
    small = home.add(png(portrait(1, side=60)))
    blurred = home.add(png(portrait(2).filter(ImageFilter.GaussianBlur(9))))
    home.add(png(portrait(4)))
    home.write()
    made = crop_faces(home.store, FaceSettings(cropped=True), executor)
    assert made.dropped == {"blurred": 1, "too_small": 1}
    found = reasons(home, made)
    assert (found[small], found[blurred]) == ("too_small", "blurred")


def test_face_that_leaves_its_picture_is_dropped_as_padded(home: Home, executor: Executor) -> None:
    tight = home.add(png(portrait(4).crop((30, 0, 220, 240))))
    home.add(png(portrait(5)))
    home.write()
    made = crop_faces(home.store, FaceSettings(pad_frac_max=0.0), executor)
    assert reasons(home, made)[tight] == "padded"
    within = crop_faces(home.store, FaceSettings(pad_frac_max=0.25), executor)
    assert within.kept == 2
    (row,) = (row for row in faces_of(home, within).to_pylist() if row["sha256"] == tight)
    assert 0 < row["pad_frac"] <= 0.25


def test_cropped_pictures_are_taken_whole(home: Home, executor: Executor) -> None:
    home.add(png(portrait(1, side=96)))
    home.add(png(scenery(0).resize((200, 100))))
    home.write()
    made = crop_faces(home.store, FaceSettings(cropped=True, min_sharpness=0), executor)
    rows = sorted(faces_of(home, made).to_pylist(), key=lambda row: int(row["w"]))
    assert [(row["w"], row["h"], row["side"], row["square_x"]) for row in rows] == [
        (96, 96, 96, 0),
        (200, 100, 100, 50),
    ]
    crops_of = Crops(home.store).pixels(pa.Table.from_pylist(rows))
    sides = [crop.shape[0] for crop in crops_of]
    assert sides == [96, 100]  # never enlarged
    assert made.pictures_without_face == 0


def test_rejected_faces_are_dropped_by_hand(home: Home, executor: Executor) -> None:
    blobs = fill(home)
    listed = f"# not a face\n\ncrops/{blobs[0][:2]}/{blobs[0][:16]}-0.png  # a clock\n"
    home.store.write_bytes("rejects.txt", f"{listed}{blobs[1][:16]}-0\n".encode())
    made = crop_faces(home.store, SETTINGS, executor)
    assert made.dropped == {"rejected": 2}
    assert reasons(home, made)[blobs[0]] == "rejected"


def test_damaged_reject_list_is_refused_with_its_line(home: Home, executor: Executor) -> None:
    fill(home)
    home.store.write_bytes("rejects.txt", b"0123456789abcdef-0\nthat one\n")
    with pytest.raises(ConfigError, match='line 2: "that one" is no face_id'):
        crop_faces(home.store, SETTINGS, executor)


def test_unreadable_pictures_are_named_and_tried_again(home: Home, executor: Executor) -> None:
    blobs = fill(home)
    bad = home.add(b"no picture")
    home.write()
    lost = home.store.read_bytes(blob_path(blobs[0], "png"))
    home.store.remove(blob_path(blobs[0], "png"))
    made = crop_faces(home.store, SETTINGS, executor)
    assert made.kept == COUNT - 1
    assert len(made.unreadable) == 2
    said = "\n".join(made.unreadable)
    assert f"{blob_path(bad, 'png')}: not a picture that can be opened" in said
    assert f"{blob_path(blobs[0], 'png')} is not there; crawl again" in said
    home.store.write_bytes(blob_path(blobs[0], "png"), lost)
    assert crop_faces(home.store, SETTINGS, executor).kept == COUNT


def test_blobs_that_are_not_mounted_cost_no_crop(home: Home, executor: Executor) -> None:
    fill(home)
    crop_faces(home.store, SETTINGS, executor)
    versions = versions_of(home)
    blobs, away = home.store.state.local("blobs"), home.store.state.local("away")
    blobs.rename(away)
    # Nothing is to be cropped: nothing is missed.
    assert crop_faces(home.store, SETTINGS, executor).pictures_reused == COUNT + 2
    other = FaceSettings(crop_px=64)
    with pytest.raises(StoreError, match=f"blobs: {COUNT + 2} of {COUNT + 2} pictures"):
        crop_faces(home.store, other, executor)
    assert versions == versions_of(home)
    away.rename(blobs)
    assert crop_faces(home.store, other, executor).kept == COUNT


def test_no_face_at_all_says_what_to_check(home: Home, executor: Executor) -> None:
    home.add(png(scenery(0)))
    home.add(b"no picture")
    home.write()
    with pytest.raises(EmptyStageError) as caught:
        crop_faces(home.store, SETTINGS, executor)
    said = str(caught.value)
    assert said.startswith(
        "No face is left of 2 pictures: 1 without a face, 1 unreadable. "
        "The first unreadable: blobs/"
    )
    assert "Is this a board of portraits?" in said
    assert "set `cropped`" in said


def test_posts_without_pictures_are_an_empty_stage(home: Home, executor: Executor) -> None:
    home.add(png(portrait(1)), drop_reason="rating")
    home.write()
    with pytest.raises(EmptyStageError, match="none of 1 posts has a stored picture"):
        crop_faces(home.store, SETTINGS, executor)


def test_post_with_an_impossible_blob_name_is_refused(home: Home, executor: Executor) -> None:
    home.add(png(portrait(1)))
    home.rows[0]["sha256"] = "../../etc/passwd"
    home.write()
    with pytest.raises(SchemaError, match=r'demo 1: sha256 is "\.\./\.\./etc/passwd"'):
        crop_faces(home.store, SETTINGS, executor)


def test_damaged_table_of_crops_is_refused_by_name(home: Home, executor: Executor) -> None:
    fill(home)
    crop_faces(home.store, SETTINGS, executor)
    for file in home.store.state.local(f"{CROPS_PATH}/data").iterdir():
        file.write_bytes(b"no table")
    with pytest.raises(SchemaError, match=r"crops\.lance cannot be read"):
        crop_faces(home.store, SETTINGS, executor)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"min_side_px": 8}, "min_side_px is 8; 24 to 4096 wanted"),
        ({"pad_frac_max": 2.0}, "pad_frac_max is 2.0; 0 to 1 wanted"),
        ({"phash_distance": 40}, "phash_distance is 40; 0 to 11 wanted"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FaceSettings(**values)


def test_portraits_of_one_kind_are_not_taken_for_duplicates(home: Home, executor: Executor) -> None:
    for seed in range(0, 60, 6):  # the same hair and eyes
        home.add(png(portrait(seed)))
    home.write()
    made = crop_faces(home.store, SETTINGS, executor)
    assert made.dropped == {}
    assert np.unique(faces_of(home, made)["crop_sha256"].to_numpy()).size == made.kept
