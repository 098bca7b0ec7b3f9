"""Curves as arrays of points [N,2]: Béziers, splines, tapered strokes and pointed locks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


def points(rows: ArrayLike) -> Points:
    """Any list of (x, y) as an array [N,2]."""
    return np.asarray(rows, dtype=np.float64)


def moved(shape: ArrayLike, dx: float, dy: float) -> Points:
    """The same points, shifted."""
    return np.add(points(shape), (dx, dy), dtype=np.float64)


@lru_cache(maxsize=64)
def _bezier_basis(n: int) -> Points:
    t = np.linspace(0.0, 1.0, n)
    s = 1.0 - t
    return np.stack([s**3, 3 * s * s * t, 3 * s * t * t, t**3], axis=1)


@lru_cache(maxsize=64)
def _catmull_basis(n: int) -> Points:
    t = np.linspace(0.0, 1.0, n, endpoint=False)
    return 0.5 * np.stack(
        [
            -t + 2 * t**2 - t**3,
            2 - 5 * t**2 + 3 * t**3,
            t + 4 * t**2 - 3 * t**3,
            -(t**2) + t**3,
        ],
        axis=1,
    )


def bezier(control: ArrayLike, n: int = 16) -> Points:
    """A cubic Bézier through four control points, n points long."""
    return _bezier_basis(n) @ points(control)


def spline(knots: ArrayLike, n: int = 8) -> Points:
    """A Catmull-Rom spline through all knots, n points a span, open at its ends."""
    k = points(knots)
    padded = np.concatenate([2 * k[:1] - k[1:2], k, 2 * k[-1:] - k[-2:-1]])
    spans = np.stack([padded[:-3], padded[1:-2], padded[2:-1], padded[3:]], axis=1)
    inner = (_catmull_basis(n) @ spans).reshape(-1, 2)
    return np.concatenate([inner, k[-1:]])


def loop(knots: ArrayLike, n: int = 8) -> Points:
    """A closed Catmull-Rom spline through all knots, n points a span."""
    k = points(knots)
    spans = np.stack([np.roll(k, 1, 0), k, np.roll(k, -1, 0), np.roll(k, -2, 0)], axis=1)
    return (_catmull_basis(n) @ spans).reshape(-1, 2)


def mirrored(half: ArrayLike) -> Points:
    """A right half, given from top to bottom on the axis x = 0, with its left half added."""
    right = points(half)
    left = right[-2:0:-1] * (-1.0, 1.0)
    return np.concatenate([right, left])


def ellipse(cx: float, cy: float, rx: float, ry: float, *, n: int = 28) -> Points:
    """An upright ellipse about (cx, cy)."""
    return _circle(n) * (rx, ry) + (cx, cy)


@lru_cache(maxsize=16)
def _circle(n: int) -> Points:
    a = np.linspace(0.0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(a), np.sin(a)], axis=1)


def normals(path: Points) -> Points:
    """Unit normals [N,2] of an open path, to its left as seen with y pointing down."""
    d = np.empty_like(path)
    d[1:-1] = path[2:] - path[:-2]
    d[0] = path[1] - path[0]
    d[-1] = path[-1] - path[-2]
    length = np.sqrt((d * d).sum(axis=1, keepdims=True))
    length[length == 0.0] = 1.0
    d /= length
    return np.stack([d[:, 1], -d[:, 0]], axis=1)


def tapered(path: Points, width: float, start: float = 0.0, *, end: float = 0.0) -> Points:
    """The outline of a brush stroke along a path.

    width is the stroke's full width in its middle; start and end are the shares of it that are
    left at either end.
    """
    n = len(path)
    t = np.linspace(0.0, 1.0, n)
    swell = np.interp(t, (0.0, 0.35, 0.65, 1.0), (start, 1.0, 1.0, end))
    off = normals(path) * (0.5 * width * swell)[:, None]
    return np.concatenate([path + off, (path - off)[::-1]])


@dataclass(frozen=True)
class Lock:
    """A lock of hair: a spine that runs from root to tip and the half-width along it."""

    spine: Points  # [N,2]
    side: Points  # [N,2], unit normal times half-width

    def edge(self, u: float) -> Points:
        """The line at u across the lock: -1 is its right edge, 0 the spine, +1 its left edge."""
        return self.spine + self.side * u

    @property
    def outline(self) -> Points:
        """The closed outline [2N,2]."""
        return np.concatenate([self.edge(1.0), self.edge(-1.0)[::-1]])

    def strip(self, u0: float, u1: float, span: tuple[float, float] = (0.0, 1.0)) -> Points:
        """The part between u0 and u1 across and span along (shares of the length)."""
        n = len(self.spine)
        a, b = int(span[0] * (n - 1)), int(np.ceil(span[1] * (n - 1))) + 1
        return np.concatenate([self.edge(u0)[a:b], self.edge(u1)[a:b][::-1]])

    def wedge(self, u0: float, u1: float, span: tuple[float, float]) -> Points:
        """Like strip, but it grows from nothing at u0 to its full breadth over half its length."""
        n = len(self.spine)
        a, b = int(span[0] * (n - 1)), int(np.ceil(span[1] * (n - 1))) + 1
        grown = np.clip(np.linspace(0.0, 2.0, b - a), 0.0, 1.0)[:, None]
        inner = self.spine[a:b] + self.side[a:b] * (u0 + (u1 - u0) * grown)
        return np.concatenate([self.edge(u0)[a:b], inner[::-1]])

    def at(self, u: float, t: float) -> Points:
        """One point [2], at u across and t along."""
        x = t * (len(self.spine) - 1)
        i = min(int(x), len(self.spine) - 2)
        f = x - i
        row = (self.spine + self.side * u)[i : i + 2]
        return np.asarray(row[0] * (1 - f) + row[1] * f, dtype=np.float64)

    def zigzag(self, t: float, thick: float, teeth: Sequence[float]) -> Points:
        """A jagged band across the lock about t: the piece of the ring of light it carries."""
        us = np.linspace(-0.92, 0.92, len(teeth))
        upper = [self.at(float(u), t - thick * k) for u, k in zip(us, teeth, strict=True)]
        lower = [self.at(float(u), t + thick * k) for u, k in zip(us, reversed(teeth), strict=True)]
        return points(upper + lower[::-1])


def lock(
    control: ArrayLike, width: float, *, root: float = 0.6, sharp: float = 2.2, n: int = 18
) -> Lock:
    """A pointed lock along the cubic Bézier of four control points.

    width is the greatest half-width, root the share of it at the root; a higher sharp keeps the
    lock broad for longer before its tip.
    """
    spine = bezier(control, n)
    t = np.linspace(0.0, 1.0, n)
    swell = np.interp(t, (0.0, 0.45, 1.0), (root, 1.0, 1.0)) * (1.0 - t**sharp)
    return Lock(spine, normals(spine) * (width * swell)[:, None])
