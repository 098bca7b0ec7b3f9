"""Windows: grouped without losing any, and mapped back from mirrored and cut out parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dataset.detection import (
    NEAR,
    Found,
    Windows,
    agreeing,
    box_within,
    clustered,
    mirrored,
    moved,
    one_a_face,
    scaled,
)
from dataset.geometry import Box

NUMBER = st.floats(0, 500, allow_nan=False, width=32)
WINDOWS = st.lists(st.tuples(NUMBER, NUMBER, st.floats(24, 200, width=32)), max_size=30).map(
    lambda rows: np.array(rows, np.float64).reshape(-1, 3)
)
SCALE = st.floats(0.05, 4)
EDGE = st.floats(-300, 900)


@given(WINDOWS)
def test_each_window_is_counted_in_one_group_and_the_largest_come_first(windows: Windows) -> None:
    groups = clustered(windows)
    hits = [group.hits for group in groups]
    assert sum(hits) == len(windows)
    assert hits == sorted(hits, reverse=True)
    for group in groups:
        assert windows[:, 0].min() - 1e-6 <= group.x <= windows[:, 0].max() + 1e-6
        assert windows[:, 2].min() - 1e-6 <= group.side <= windows[:, 2].max() + 1e-6


def test_windows_on_two_faces_make_two_groups() -> None:
    rng = np.random.default_rng(0)
    one = np.array([100, 100, 60]) + rng.uniform(-5, 5, (6, 3))
    two = np.array([300, 120, 80]) + rng.uniform(-5, 5, (4, 3))
    first, second = clustered(np.concatenate([two, one]))
    assert (first.hits, second.hits) == (6, 4)
    assert (first.x, first.y, first.side) == pytest.approx(tuple(one.mean(axis=0)))
    assert (second.x, second.y, second.side) == pytest.approx(tuple(two.mean(axis=0)))


@given(WINDOWS, NUMBER, NUMBER, st.floats(24, 200))
def test_windows_that_agree_are_near_and_of_like_side(
    windows: Windows, x: float, y: float, side: float
) -> None:
    near = agreeing(windows, x, y, side)
    assert (np.hypot(near[:, 0] - x, near[:, 1] - y) < NEAR * np.minimum(near[:, 2], side)).all()
    same = np.array([[x, y, side]])
    assert len(agreeing(np.concatenate([windows, same]), x, y, side)) == len(near) + 1


@given(arrays.arrays(bool, (20, 30)), st.integers(0, 29), st.integers(0, 19))
def test_mirrored_window_lies_where_the_pixel_was(mask: np.ndarray, x: int, y: int) -> None:
    turned = mask[:, ::-1]
    back = mirrored(np.array([[x + 0.5, y + 0.5, 1.0]]), mask.shape[1])[0]
    assert turned[y, x] == mask[int(back[1]), int(back[0])]


@given(WINDOWS, NUMBER, NUMBER, SCALE)
def test_windows_of_a_resized_part_come_back_to_the_picture(
    windows: Windows, x: float, y: float, scale: float
) -> None:
    seen = (windows - np.array([x, y, 0])) * scale
    np.testing.assert_allclose(moved(seen, x, y, scale=scale), windows, atol=1e-6)


@given(EDGE, EDGE, st.floats(0, 600), st.floats(0, 600))
def test_box_lies_within_the_picture_and_has_a_pixel(
    left: float, top: float, across: float, down: float
) -> None:
    box = box_within(left, top, left + across, top + down, width=400, height=300)
    assert 0 <= box.x < box.x + box.w <= 400
    assert 0 <= box.y < box.y + box.h <= 300


def test_box_of_a_reduced_picture_is_scaled_to_the_whole() -> None:
    assert scaled(Box(10, 20, 30, 40), 2, 2, width=200, height=200) == Box(20, 40, 60, 80)
    assert scaled(Box(90, 0, 11, 50), 2, 2, width=201, height=99) == Box(180, 0, 21, 99)


def test_the_surer_of_two_boxes_on_one_face_stays_and_the_largest_come_first() -> None:
    sure, double = Found(Box(10, 10, 40, 40), 0.9), Found(Box(12, 14, 60, 60), 0.6)
    other = Found(Box(200, 10, 80, 80), 0.5)
    assert one_a_face([double, other, sure]) == [other, sure]
