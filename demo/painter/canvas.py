"""Curves, the pen that draws them on a supersampled canvas, and the finished drawing's types."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageChops, ImageDraw

from demo.painter.colours import RGB

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


SUPERSAMPLE = 3  # lines at 2 look stepped; 3 costs a third more time

PAPER: RGB = (252, 251, 247)
GRAPHITE: RGB = (66, 64, 70)

Box = tuple[int, int, int, int]


class Canvas:
    """An RGB picture at SUPERSAMPLE times its final size; coordinates are its own pixels."""

    def __init__(self, image: Image.Image, *, line_art: bool = False) -> None:
        self.image = image
        self.line_art = line_art  # draws contours only: fills turn to paper, shading is left out
        self._draw = ImageDraw.Draw(image)

    def fill(self, outline: Points, colour: RGB) -> None:
        """Fills a closed outline."""
        self._draw.polygon(outline.ravel().tolist(), fill=colour)

    def bounds(self, outline: Points) -> Box | None:
        """The outline's pixel box inside the canvas; None if it is outside."""
        low, high = outline.min(axis=0), outline.max(axis=0)
        left, top = max(0, math.floor(low[0])), max(0, math.floor(low[1]))
        right = min(self.image.width, math.ceil(high[0]) + 1)
        bottom = min(self.image.height, math.ceil(high[1]) + 1)
        return (left, top, right, bottom) if left < right and top < bottom else None

    def blend(self, outline: Points, colour: RGB, opacity: float) -> None:
        """Lays a translucent shape over what is there."""
        box = self.bounds(outline)
        if box is not None:
            mask = _mask(outline, box, round(255 * opacity))
            self.image.paste(colour, box, mask)

    def glow(self, centre: Points, rx: float, ry: float, *, colour: RGB, opacity: float) -> None:
        """Lays a soft spot over what is there; rx and ry are where it has faded out."""
        w, h = max(2, round(2 * rx)), max(2, round(2 * ry))
        spot = _SPOT.resize((w, h), Image.Resampling.BILINEAR)
        mask = spot.point([round(i * opacity) for i in range(256)])
        self.image.paste(colour, (round(centre[0] - rx), round(centre[1] - ry)), mask)

    def finished(self) -> Image.Image:
        """The picture at its final size."""
        return self.image.reduce(SUPERSAMPLE)


def _mask(outline: Points, box: Box, level: int = 255) -> Image.Image:
    mask = Image.new("L", (box[2] - box[0], box[3] - box[1]), 0)
    inside = outline - (box[0], box[1])
    ImageDraw.Draw(mask).polygon(inside.ravel().tolist(), fill=level)
    return mask


def _spot() -> Image.Image:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    fall = np.clip(1.0 - np.sqrt(x * x + y * y), 0.0, 1.0)
    smooth = fall * fall * (3.0 - 2.0 * fall)
    return Image.fromarray((smooth * 255).astype(np.uint8))


_SPOT = _spot()


class Clip:
    """A shape that holds in what is painted through it."""

    def __init__(self, canvas: Canvas, outline: Points) -> None:
        self._canvas = canvas
        self._box = canvas.bounds(outline)
        self._mask = _mask(outline, self._box) if self._box is not None else None

    def fill(self, outline: Points, colour: RGB, opacity: float = 1.0) -> None:
        """Fills the part of the outline inside the clip."""
        self.fill_all([outline], colour, opacity)

    def fill_all(self, outlines: list[Points], colour: RGB, opacity: float = 1.0) -> None:
        """Fills what any of the outlines has inside the clip; where they overlap, only once."""
        bounds = self._canvas.bounds(np.concatenate(outlines))
        if self._box is None or self._mask is None or bounds is None:
            return
        box = (
            max(bounds[0], self._box[0]),
            max(bounds[1], self._box[1]),
            min(bounds[2], self._box[2]),
            min(bounds[3], self._box[3]),
        )
        if box[0] >= box[2] or box[1] >= box[3]:
            return
        shape = Image.new("L", (box[2] - box[0], box[3] - box[1]), 0)
        draw = ImageDraw.Draw(shape)
        for outline in outlines:
            draw.polygon((outline - box[:2]).ravel().tolist(), fill=round(255 * opacity))
        left, top = self._box[:2]
        here = self._mask.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))
        self._canvas.image.paste(colour, box, ImageChops.darker(shape, here))

    def gradient(self, stops: list[tuple[float, RGB]], outline: Points) -> None:
        """Fills the outline inside the clip from top to bottom; stops are (share, colour)."""
        bounds = self._canvas.bounds(outline)
        if self._box is None or self._mask is None or bounds is None:
            return
        top, bottom = float(outline[:, 1].min()), float(outline[:, 1].max())
        rows = (np.arange(self._box[1], self._box[3]) - top) / max(1.0, bottom - top)
        at = [s for s, _ in stops]
        column = np.stack([np.interp(rows, at, [c[k] for _, c in stops]) for k in range(3)], axis=1)
        width = self._box[2] - self._box[0]
        tile = np.repeat(column.astype(np.uint8)[:, None, :], width, axis=1)
        both = ImageChops.darker(_mask(outline, self._box), self._mask)
        self._canvas.image.paste(Image.fromarray(tile), self._box, both)


@dataclass(frozen=True)
class Pen:
    """Draws in local units: the origin is the face's centre, 1 is its half-width, y points down."""

    canvas: Canvas
    origin: tuple[float, float]  # canvas pixels
    unit: float  # canvas pixels a unit
    angle: float = 0.0  # radians, clockwise
    pivot: tuple[float, float] = (0.0, 0.0)  # local point that the angle turns about
    line: float = 0.024  # a plain contour's width, in units

    def turned(self, degrees: float, pivot: tuple[float, float]) -> "Pen":
        """The same pen, turned clockwise about a local point."""
        return replace(self, angle=math.radians(degrees), pivot=pivot)

    def px(self, local: ArrayLike) -> Points:
        """Local points [N,2] in canvas pixels."""
        p = points(local)
        if self.angle:
            c, s = math.cos(self.angle), math.sin(self.angle)
            p = (p - self.pivot) @ np.array([[c, s], [-s, c]]) + self.pivot
        return p * self.unit + self.origin

    def fill(self, outline: ArrayLike, colour: RGB) -> None:
        """Fills a closed outline; in line art it covers what is behind with paper."""
        self.canvas.fill(self.px(outline), PAPER if self.canvas.line_art else colour)

    def shade(self, outline: ArrayLike, colour: RGB, opacity: float = 1.0) -> None:
        """Fills a closed outline that only models light; left out in line art."""
        if self.canvas.line_art:
            return
        if opacity >= 1.0:
            self.canvas.fill(self.px(outline), colour)
        else:
            self.canvas.blend(self.px(outline), colour, opacity)

    def ink(
        self,
        path: ArrayLike,
        colour: RGB,
        width: float = 1.0,
        *,
        start: float = 0.2,
        end: float = 0.2,
    ) -> None:
        """A brush stroke; width in plain contours, start and end the shares left at its ends."""
        px = self.px(path)
        thick = max(1.6, self.line * self.unit * width)
        self.canvas.fill(
            tapered(px, thick, start, end=end), GRAPHITE if self.canvas.line_art else colour
        )

    def glow(
        self, at: tuple[float, float], radii: tuple[float, float], colour: RGB, *, opacity: float
    ) -> None:
        """A soft spot of light or blush."""
        if not self.canvas.line_art:
            rx, ry = radii[0] * self.unit, radii[1] * self.unit
            self.canvas.glow(self.px([at])[0], rx, ry, colour=colour, opacity=opacity)

    def clip(self, outline: ArrayLike) -> Clip:
        """A clip in this pen's canvas; what is painted through it takes canvas pixels."""
        return Clip(self.canvas, self.px(outline))


@dataclass(frozen=True)
class Face:
    """A drawn face's box (forehead to chin, cheek to cheek), in pixels of the final picture."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True)
class Portrayed:
    """One drawn character: its appearance tags, sorted, and its face."""

    tags: tuple[str, ...]
    face: Face


@dataclass(frozen=True)
class Drawing:
    """A picture (RGB) with the truth about it; tags are general tags, sorted."""

    image: Image.Image
    tags: tuple[str, ...]
    characters: tuple[Portrayed, ...]
    faces: tuple[Face, ...]
