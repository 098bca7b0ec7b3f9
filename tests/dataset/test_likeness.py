"""Pairs are found exactly; the same picture is alike, another face is not."""

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset import likeness
from dataset.decode import Picture, decode
from dataset.likeness import phash, sharpness, similar_pairs, thumb, thumb_distance
from tests.dataset.home import portrait


def alike(one: Picture, two: Picture) -> tuple[int, float]:
    thumbs = np.stack([np.frombuffer(thumb(crop), np.uint8) for crop in (one, two)])
    bits = (phash(one) ^ phash(two)).bit_count()
    return bits, float(thumb_distance(thumbs, np.array([[0, 1]]))[0])


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 63), max_size=12)), max_size=12),
    st.integers(0, 11),
)
def test_pairs_are_all_pairs_within_the_distance(
    seeds: list[int], changed: list[tuple[int, set[int]]], distance: int
) -> None:
    values = seeds + [
        seeds[seed % len(seeds)] ^ sum(1 << bit for bit in bits) for seed, bits in changed
    ]
    found = similar_pairs(np.array(values, np.uint64), distance).tolist()
    expected = [
        [one, two]
        for one in range(len(values))
        for two in range(one + 1, len(values))
        if (values[one] ^ values[two]).bit_count() <= distance
    ]
    assert found == expected


def test_pairs_do_not_depend_on_how_many_are_compared_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**12, 300).astype(np.uint64)
    whole = similar_pairs(hashes, 4)
    monkeypatch.setattr(likeness, "_PAIRS_AT_ONCE", 50)
    assert (similar_pairs(hashes, 4) == whole).all()


def test_no_hash_gives_no_pair() -> None:
    assert similar_pairs(np.empty(0, np.uint64), 8).shape == (0, 2)


def test_distance_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="distance is 12; 0 to 11 wanted"):
        similar_pairs(np.zeros(1, np.uint64), 12)


def test_the_same_picture_coded_again_is_alike() -> None:
    crop = np.array(portrait(1, side=128))
    _, jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 60])
    bits, colours = alike(crop, np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8))
    assert bits <= 4
    assert colours < 4


def test_the_same_drawing_in_other_colours_is_not_alike() -> None:
    crop = np.array(portrait(1, side=128))
    bits, colours = alike(crop, np.ascontiguousarray(crop[:, :, ::-1]))
    assert bits <= 12  # the hash sees nothing but brightness ...
    assert colours > 25  # ... so the colours decide


def test_a_smear_is_less_sharp() -> None:
    crop = np.array(portrait(1, side=128))
    assert sharpness(cv2.GaussianBlur(crop, (0, 0), 4).astype(np.uint8)) < 30 < sharpness(crop)


def test_real_distinct_faces_are_not_taken_for_the_same(real_data: Path) -> None:
    with zipfile.ZipFile(real_data / "faces_labelled.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:2000]
        crops = [decode(archive.read(name), where=name) for name in names]
    hashes = np.array([phash(crop) for crop in crops], np.uint64)
    thumbs = np.stack([np.frombuffer(thumb(crop), np.uint8) for crop in crops])
    pairs = similar_pairs(hashes, 10)
    same = pairs[thumb_distance(thumbs, pairs) <= 15]
    assert len(np.unique(same[:, 1])) <= 0.01 * len(crops)
