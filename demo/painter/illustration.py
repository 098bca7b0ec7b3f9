"""Finished illustrations of one or two characters."""

from random import Random

from PIL import Image

from demo.painter.backdrop import backdrop
from demo.painter.canvas import Canvas
from demo.painter.curves import points
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
        image=_lit(canvas.finished()),
        tags=picture.tags,
        characters=portrayed,
        faces=tuple(p.face for p in portrayed),
    )


def _lit(image: Image.Image) -> Image.Image:
    """Lays the lamp's warm light over the upper left and a cool dusk over the lower right."""
    light = Canvas(image)
    w, h = image.size
    light.glow(points((0.12 * w, 0.02 * h)), 0.95 * w, 0.8 * h, colour=(255, 244, 214), opacity=0.2)
    light.glow(points((w, 1.05 * h)), 0.9 * w, 0.6 * h, colour=(86, 60, 150), opacity=0.2)
    return image
