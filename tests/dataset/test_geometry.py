"""Squares hold their box, stay inside where they fit, and say how much they make up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.geometry import Box, Square, centre_square, cut, square_around

SIDES = st.integers(1, 600)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, int, int]:
    width, height = draw(SIDES), draw(SIDES)
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    box = Box(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))
    return box, width, height


def test_box_in_the_middle_grows_about_its_centre() -> None:
    square = square_around(Box(100, 120, 40, 60), width=400, height=400)
    assert square == Square(x=75, y=105, side=90, pad_frac=0.0)


def test_box_at_the_border_is_shifted_not_padded() -> None:
    square = square_around(Box(0, 340, 60, 60), width=400, height=400)
    assert square == Square(x=0, y=310, side=90, pad_frac=0.0)


def test_square_larger_than_the_picture_says_how_much_is_made_up() -> None:
    square = square_around(Box(0, 100, 100, 100), width=100, height=400)
    assert (square.x, square.side) == (-25, 150)
    assert square.pad_frac == pytest.approx(1 / 3)


@given(boxes(), st.floats(1, 3))
def test_square_lies_inside_wherever_it_fits(case: tuple[Box, int, int], expand: float) -> None:
    box, width, height = case
    square = square_around(box, expand=expand, width=width, height=height)
    assert square.side == max(1, round(max(box.w, box.h) * expand))
    for start, length in ((square.x, width), (square.y, height)):
        if square.side <= length:
            assert 0 <= start <= length - square.side
        else:
            assert start <= 0
            assert start + square.side >= length
    assert (square.pad_frac > 0) == (square.side > min(width, height))
    assert 0 <= square.pad_frac < 1


@given(boxes(), st.integers(1, 64))
def test_cut_gives_the_requested_size_for_every_square(
    case: tuple[Box, int, int], side_px: int
) -> None:
    box, width, height = case
    image = np.full((height, width, 3), 77, np.uint8)
    made = cut(image, square_around(box, width=width, height=height), side_px=side_px)
    assert made.shape == (side_px, side_px, 3)
    assert (made == 77).all()  # a reflection of one colour is that colour


def test_cut_inside_takes_the_very_pixels() -> None:
    image = np.arange(20 * 30 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 30, 3)
    made = cut(image, Square(5, 7, 10, 0.0), side_px=10)
    assert (made == image[7:17, 5:15]).all()


def test_what_lies_outside_is_the_reflection() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, :, 0] = np.arange(6) * 10
    made = cut(image, Square(0, -1, 6, 1 / 3), side_px=6)
    assert (made[:, :, 0] == np.arange(6) * 10).all()
    left = cut(image, Square(-2, 0, 4, 0.5), side_px=4)
    assert left[0, :, 0].tolist() == [20, 10, 0, 10]


def test_centre_square_is_the_middle_of_the_longer_side() -> None:
    assert centre_square(width=100, height=60) == Square(20, 0, 60, 0.0)
