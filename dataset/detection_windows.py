"""Square windows of a sliding search: clustered, counted, and mapped back from what was searched.

Windows are float arrays [N, 3]: centre x, centre y, side, in pixels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
