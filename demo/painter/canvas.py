"""The supersampled canvas and the pen that draws on it in a figure's own coordinates."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageChops, ImageDraw

from demo.painter.colours import RGB
from demo.painter.curves import Points, points, tapered

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
        """The outline's pixel box inside the canvas; None when it lies outside."""
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
        """Fills the part of the outline that lies inside the clip."""
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
        """Fills a closed outline; in line art it covers what lies behind with paper."""
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
