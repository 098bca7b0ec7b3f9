"""Repetitions are found exactly, in bounded memory; copies of a picture are, wherever the box."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset import duplicates
from dataset.cropping import FaceSettings
from dataset.decode import decode
from dataset.duplicates import (
    THUMB_BYTES,
    Copies,
    Hashes,
    HashIndex,
    Rule,
    coarse,
    repeats,
    thumb_distance,
)
from dataset.merging import overlap
from dataset.schemas import FACES, read_table
from tests.dataset.home import Home, cropped, png, portrait
from tests.hypothesis_profiles import examples

hash_lists = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6).flatmap(
    lambda seeds: st.lists(
        st.tuples(st.sampled_from(seeds), st.sets(st.integers(0, 63), max_size=12)), max_size=14
    ).map(lambda more: seeds + [seed ^ sum(1 << bit for bit in bits) for seed, bits in more])
)


def always(pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.ones(len(pairs), bool)


def bits(one: int, two: int) -> int:
    return (one ^ two).bit_count()


@given(hash_lists, hash_lists, st.integers(0, 11), st.sampled_from([0, 100]))
@settings(deadline=None)
def test_pairs_are_all_pairs_within_the_distance_each_once(
    held: list[int], queries: list[int], distance: int, scanned: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_SCANNED", scanned)
        index = HashIndex(np.array(held, np.uint64))
        parts = [part.tolist() for part in index.near(np.array(queries, np.uint64), distance)]
    found = sorted(pair for part in parts for pair in part)
    assert found == [
        [one, two]
        for one in range(len(held))
        for two in range(len(queries))
        if bits(held[one], queries[two]) <= distance
    ]


@given(hash_lists, st.integers(0, 11), st.sampled_from([1, 2, 5, 256]), st.integers(0, 6))
@settings(deadline=None)
def test_a_row_repeats_exactly_when_an_earlier_kept_one_is_near(
    values: list[int], distance: int, block: int, standing: int
) -> None:
    kept: list[int] = []
    expected = []
    for row, value in enumerate(values):
        near = any(bits(value, values[other]) <= distance for other in kept)
        repeated = row >= standing and near
        expected.append(repeated)
        if not repeated:
            kept.append(row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_BLOCK", block)
        patch.setattr(duplicates, "_GROWTH", 2)
        patch.setattr(duplicates, "_SCANNED", block)
        patch.setattr(duplicates, "_PAIRS_AT_ONCE", 5)
        rule = Rule(np.array(values, np.uint64), distance, always)
        found = repeats([rule], standing=min(standing, len(values)))
    assert (found >= 0).tolist() == expected
    for later, earlier in enumerate(found.tolist()):
        assert earlier < 0 or (
            found[earlier] < 0 and bits(values[earlier], values[later]) <= distance
        )


def test_either_rule_drops() -> None:
    far = np.array([0, 2**64 - 1, 2**32 - 1], np.uint64)
    near = np.array([7, 2**64 - 8, 7], np.uint64)
    assert repeats([Rule(far, 4, always), Rule(near, 4, always)]).tolist() == [-1, -1, 0]


def test_equal_hashes_do_not_fill_the_memory() -> None:
    hashes: Hashes = np.zeros(30_000, np.uint64)

    def never_but_first(pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        assert len(pairs) <= 2**17
        return np.asarray((pairs[:, 0] % 100 == 0) & (pairs[:, 1] % 100 != 0), bool)

    tracemalloc.start()
    found = repeats([Rule(hashes, 10, never_but_first)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found >= 0).sum() == 29_700
    assert peak < 40 * 2**20  # all pairs would be 7 GB


def test_no_hash_is_no_repetition() -> None:
    assert repeats([Rule(np.empty(0, np.uint64), 8, always)]).shape == (0,)


def test_distance_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="distance is 12; 0 to 11 wanted"):
        list(HashIndex(np.zeros(1, np.uint64)).near(np.zeros(1, np.uint64), 12))


@given(st.integers(0, 2**32 - 1), st.floats(0, 60))
@settings(deadline=None, max_examples=examples(30))
def test_copies_on_disk_are_compared_as_those_in_memory(seed: int, rms_max: float) -> None:
    rng = np.random.default_rng(seed)
    thumbs = rng.integers(0, 255, (1, THUMB_BYTES), np.uint8).repeat(12, axis=0)
    noise = rng.integers(0, 1 + 8 * np.arange(12)[:, None], thumbs.shape)
    thumbs = np.clip(thumbs + noise, 0, 255).astype(np.uint8)
    thumbs[5:7] = thumbs[5:7].reshape(2, -1, 3).mean(axis=2).astype(np.uint8).repeat(3, axis=1)
    pairs = np.array([[one, two] for one in range(12) for two in range(12)])
    found = Copies(coarse(thumbs), lambda rows: thumbs[rows]).alike(pairs, rms_max)
    expected = thumb_distance(thumbs[pairs[:, 0]], thumbs[pairs[:, 1]]) <= rms_max
    assert found.tolist() == expected.tolist()


def test_overlap_of_boxes() -> None:
    one = np.array([[0, 0, 0.5, 0.5]] * 3, np.float32)
    two = np.array([[0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    assert overlap(one, two).tolist() == pytest.approx([1, 1 / 3, 0])


def jpeg(picture: Image.Image, scale: float) -> bytes:
    size = (round(picture.width * scale), round(picture.height * scale))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=72)
    return buffer.getvalue()


def dropped_as(home: Home, made_settings: FaceSettings) -> dict[str, list[str | None]]:
    """The drop_reasons of each blob's faces."""
    made = cropped(home.store, made_settings)
    found: dict[str, list[str | None]] = {}
    for row in read_table(home.store, made.path, declared=FACES).to_pylist():
        found.setdefault(row["sha256"], []).append(row["drop_reason"])
    return found


def test_copies_of_a_picture_are_found_whatever_the_box(home: Home) -> None:
    pictures = [portrait(seed, side=300) for seed in range(6)]
    originals = [home.add(png(picture)) for picture in pictures]
    copies = [
        home.add(jpeg(picture, scale), board="z")
        for scale, picture in zip((0.5, 0.63, 0.71, 0.83, 1.0, 1.2), pictures, strict=True)
    ]
    home.write()
    found = dropped_as(home, FaceSettings())
    assert [found[sha256] for sha256 in originals] == [[None]] * 6
    assert [found[sha256] for sha256 in copies] == [["near_duplicate"]] * 6
    by_the_whole = dropped_as(home, FaceSettings(phash_distance=0, thumb_rms_max=0))
    assert by_the_whole == found


def test_another_face_on_the_same_background_is_kept(home: Home) -> None:
    def scene(seed: int) -> bytes:
        backdrop = Image.new("RGB", (1200, 900), (90, 120, 150))
        backdrop.paste(portrait(seed), (480, 330))
        return png(backdrop)

    both = [home.add(scene(seed)) for seed in (0, 1)]  # blonde hair, then blue
    home.write()
    assert list(dropped_as(home, FaceSettings()).values()) == [[None]] * len(both)


def test_the_real_copies_are_found(real_data: Path, home: Home) -> None:
    files = sorted((real_data / "media_faults").glob("dupes__*"))
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for file in files:
        picture = Image.fromarray(decode(file.read_bytes(), where=file.name))
        # Those without alpha that are not named whitebg lie on black.
        kinds[picture.getpixel((0, 0)) == (255, 255, 255)].append(
            home.add(png(picture) + b" " * len(home.rows))
        )
    assert sorted(map(len, kinds.values())) == [3, 5]
    home.write()
    found = dropped_as(home, FaceSettings(cropped=True, min_side_px=24, min_sharpness=0))
    for of_kind in kinds.values():
        assert sorted(str(found[sha256][0]) for sha256 in of_kind) == [
            "None", *["near_duplicate"] * (len(of_kind) - 1)
        ]  # fmt: skip


@pytest.mark.slow
def test_few_of_the_real_faces_are_merged(real_data: Path, home: Home) -> None:
    with zipfile.ZipFile(real_data / "faces_labelled.zip") as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith(".jpg")][:1500]
        for name in names:
            home.add(archive.read(name))
    home.write()
    made = cropped(home.store, FaceSettings(cropped=True))
    assert made.dropped.get("near_duplicate", 0) <= 0.01 * len(names)
