"""Kept pictures stay within their bytes, the latest used ones stay longest."""

import numpy as np
import pytest

from studio.recipe import Recipe
from studio.service import ImageCache


def recipe(seed: int) -> Recipe:
    return Recipe("avatar-generator/1", seed)


def picture(value: int, side: int = 4) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((side, side, 3), value, np.uint8)  # 48 bytes


def test_what_was_used_the_longest_ago_goes_first() -> None:
    kept = ImageCache(2 * 48)
    kept.put(recipe(1), picture(1))
    kept.put(recipe(2), picture(2))
    assert kept.get(recipe(1)) is not None
    kept.put(recipe(3), picture(3))
    found = [kept.get(recipe(seed)) for seed in (1, 2, 3)]
    assert [one if one is None else int(one[0, 0, 0]) for one in found] == [1, None, 3]
    assert kept.size_bytes == 2 * 48


def test_a_picture_that_is_put_twice_counts_once() -> None:
    kept = ImageCache(2 * 48)
    for _ in range(5):
        kept.put(recipe(1), picture(1))
    assert kept.size_bytes == 48


def test_a_picture_that_is_too_large_is_not_kept() -> None:
    kept = ImageCache(48)
    kept.put(recipe(1), picture(1, side=8))
    assert (kept.get(recipe(1)), kept.size_bytes) == (None, 0)


def test_a_kept_picture_cannot_be_written_to() -> None:
    kept, given = ImageCache(48), picture(1)
    kept.put(recipe(1), given)
    with pytest.raises(ValueError, match="read-only"):
        given[0] = 0
