"""The detector interface, and the detection windows of a sliding search.

Windows are float arrays [N, 3]: centre x, centre y, side, in pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

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


Windows = npt.NDArray[np.float64]  # [N, 3]

NEAR = 0.35  # centres at most this part of the smaller side apart ...
SIMILAR = 1.5  # ... and sides at most this ratio: two windows on the same face


@dataclass(frozen=True)
class Cluster:
    """Windows that agree on one face: their mean, and how many they are."""

    x: float
    y: float
    side: float
    hits: int


def no_windows() -> Windows:
    """Returns an empty list of windows."""
    return np.zeros((0, 3))


def agreeing(windows: Windows, x: float, y: float, side: float) -> Windows:
    """Returns those of `windows` that lie on the same face as a window of `side` about x, y."""
    distance = np.hypot(windows[:, 0] - x, windows[:, 1] - y)
    smaller, larger = np.minimum(windows[:, 2], side), np.maximum(windows[:, 2], side)
    return windows[(distance < NEAR * smaller) & (larger < SIMILAR * smaller)]


def clustered(windows: Windows) -> list[Cluster]:
    """Groups windows about those that most others agree with, the largest groups first.

    Each window is counted in one group only.
    """
    left = windows
    groups: list[Cluster] = []
    x, y, side = left[:, 0], left[:, 1], left[:, 2]
    smaller = np.minimum(side[:, None], side)
    larger = np.maximum(side[:, None], side)
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    near = (distance < NEAR * smaller) & (larger < SIMILAR * smaller)
    free = np.ones(len(left), bool)
    while free.any():
        counts = np.where(free, (near & free).sum(axis=1), 0)
        members = near[int(counts.argmax())] & free
        groups.append(mean_of(windows[members]))
        free &= ~members
    return groups


def mean_of(windows: Windows) -> Cluster:
    """Returns the mean of at least one window."""
    x, y, side = windows.mean(axis=0).tolist()
    return Cluster(x, y, side, len(windows))


def mirrored(windows: Windows, width: float) -> Windows:
    """Maps windows of a picture turned left to right, `width` wide, back to the picture."""
    turned = windows * np.array([-1.0, 1.0, 1.0]) + np.array([width, 0.0, 0.0])
    return np.asarray(turned, np.float64)


def moved(windows: Windows, x: float, y: float, *, scale: float) -> Windows:
    """Maps windows of a part that was cut out at x, y and then resized by `scale` back."""
    return np.asarray(windows / scale + np.array([x, y, 0.0]), np.float64)
