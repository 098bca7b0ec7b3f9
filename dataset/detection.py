"""What finds faces: the interface that every detector has, and what it gives."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from dataset.decode import Picture
from dataset.geometry import Box


@dataclass(frozen=True)
class Found:
    """One found face: its box in the picture's pixels, and how sure the detector is (0-1)."""

    box: Box
    score: float


class Detector(Protocol):
    """Finds faces. One detector is not safe to share between threads."""

    @property
    def reducible_by(self) -> int:
        """How far a picture may come reduced (1, 2, 4 or 8) without a face being lost."""
        ...

    def find(self, picture: Picture, *, reduced_by: float = 1.0) -> list[Found]:
        """Returns the faces on an RGB picture [H, W, 3], the largest first, in its own pixels.

        `reduced_by` says how many pixels of the whole picture one of its pixels spans.
        """
        ...


def one_a_face(found: Iterable[Found]) -> list[Found]:
    """Leaves out each face whose middle is in a surer one, or the other way round.

    A large face may be found twice, the second time too low and too large: on 22 of 1,000 drawn
    portraits, and on each of them the surer box was the right one. Returns the largest first.
    """
    kept: list[Found] = []
    for one in sorted(found, key=_surest_first):
        if not any(_holds(other.box, one.box) or _holds(one.box, other.box) for other in kept):
            kept.append(one)
    return sorted(kept, key=_largest_first)


def box_within(
    left: float, top: float, right: float, bottom: float, *, width: int, height: int
) -> Box:
    """Returns the box of these edges, rounded and cut off at the picture's borders.

    It has at least one pixel, wherever the edges lie.
    """
    x, y = _clipped(left, width - 1), _clipped(top, height - 1)
    return Box(x, y, max(1, _clipped(right, width) - x), max(1, _clipped(bottom, height) - y))


def scaled(box: Box, across: float, down: float, *, width: int, height: int) -> Box:
    """Returns a box of a reduced picture in pixels of the whole, `width` by `height`."""
    return box_within(
        box.x * across,
        box.y * down,
        (box.x + box.w) * across,
        (box.y + box.h) * down,
        width=width,
        height=height,
    )


def _clipped(value: float, highest: int) -> int:
    return min(max(round(value), 0), highest)


def _holds(box: Box, other: Box) -> bool:
    """Tells whether the middle of `other` lies in `box`."""
    x, y = other.x + other.w / 2, other.y + other.h / 2
    return box.x <= x <= box.x + box.w and box.y <= y <= box.y + box.h


def _surest_first(found: Found) -> tuple[float, int, int, int]:
    return (-found.score, *_largest_first(found))


def _largest_first(found: Found) -> tuple[int, int, int]:
    box = found.box
    return (-box.w * box.h, box.y, box.x)
