"""Cuts a picture into tiles with a margin; beyond the picture, its edge is repeated."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dataset.decode import Picture


@dataclass(frozen=True)
class Tile:
    """A part of a picture, in its pixels; the tiles of a picture neither overlap nor leave gaps."""

    top: int
    left: int
    height: int
    width: int


def tiles(height: int, width: int, side: int) -> Iterator[Tile]:
    """Yields a picture's tiles row by row; those at its right and lower edge may be smaller."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Tile(top, left, min(side, height - top), min(side, width - left))


def count_tiles(height: int, width: int, side: int) -> int:
    """Returns how many tiles `tiles` yields."""
    return -(-height // side) * -(-width // side)


def with_margin(picture: Picture, tile: Tile, margin: int, *, even: bool) -> Picture:
    """Returns the tile's pixels and `margin` more on each side, [H+2m, W+2m, 3].

    What lies beyond the picture is its nearest pixel, as if the whole picture had been padded; no
    more of the picture than the tile is copied. even: one further row or column below or at the
    right where a side would be odd.
    """
    more_h, more_w = (tile.height % 2, tile.width % 2) if even else (0, 0)
    rows = _within(tile.top - margin, tile.height + 2 * margin + more_h, picture.shape[0])
    columns = _within(tile.left - margin, tile.width + 2 * margin + more_w, picture.shape[1])
    return np.asarray(picture[np.ix_(rows, columns)], np.uint8)


def _within(start: int, count: int, length: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Returns `count` indices from `start`, those outside of 0 to length - 1 moved to the edge."""
    return np.clip(np.arange(start, start + count, dtype=np.intp), 0, length - 1)
