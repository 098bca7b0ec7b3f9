"""Finished illustrations of one or two characters."""

from random import Random

from demo.painter.backdrop import backdrop
from demo.painter.canvas import Canvas
from demo.painter.drawing import Drawing, Portrayed
from demo.painter.figure import paint_figure
from demo.painter.traits import Picture, sample_picture


def draw(seed: int) -> Drawing:
    """A coloured picture of a character (about one in fifteen shows two), the same for one seed."""
    return paint(sample_picture(Random(f"character {seed}")))


def paint(picture: Picture) -> Drawing:
    """Draws a picture whose traits stand."""
    size = (picture.width, picture.height)
    canvas = Canvas(backdrop(picture.backdrop, size, picture.palette, Random(picture.jitter)))
    portrayed = tuple(
        Portrayed(placed.character.tags, paint_figure(canvas, placed))
        for placed in picture.placements
    )
    return Drawing(
        image=canvas.finished(),
        tags=picture.tags,
        characters=portrayed,
        faces=tuple(p.face for p in portrayed),
    )
