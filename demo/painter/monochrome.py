"""What a crawler should leave out: four-panel comics in grey and sketches in line."""

from dataclasses import replace
from random import Random

from PIL import Image, ImageDraw

from demo.painter.canvas import PAPER, SUPERSAMPLE, Canvas
from demo.painter.curves import ellipse, points
from demo.painter.drawing import Drawing, Face, Portrayed
from demo.painter.figure import paint_figure
from demo.painter.traits import (
    EYE_COLOURS,
    HAIR_COLOURS,
    MOUTHS,
    Character,
    Placement,
    pick,
    sample_character,
)

PANEL = (440, 250)
GUTTER = 14


def _without_colours(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(t for t in tags if t not in HAIR_COLOURS and t not in EYE_COLOURS)


def draw_comic(seed: int) -> Drawing:
    """Four panels with one character, in grey, the same for one seed."""
    rng = Random(f"comic {seed}")
    who = sample_character(rng)
    page = Image.new("L", (PANEL[0] + 2 * GUTTER, 4 * (PANEL[1] + GUTTER) + GUTTER), 255)
    frame = ImageDraw.Draw(page)
    portrayed = []
    for k in range(4):
        left, top = GUTTER, GUTTER + k * (PANEL[1] + GUTTER)
        panel, face = _panel(replace(who, mouth=pick(rng, MOUTHS)), rng)
        page.paste(panel.convert("L"), (left, top))
        frame.rectangle(
            (left - 2, top - 2, left + PANEL[0] + 1, top + PANEL[1] + 1), outline=20, width=3
        )
        there = Face(face.x + left, face.y + top, face.w, face.h)
        portrayed.append(Portrayed(_without_colours(who.tags), there))
    tags = {"1girl", "4koma", "comic", "greyscale", "monochrome", "speech_bubble"}
    return Drawing(
        image=page.convert("RGB"),
        tags=tuple(sorted({*tags, *_without_colours(who.tags), *who.other_tags})),
        characters=tuple(portrayed),
        faces=tuple(p.face for p in portrayed),
    )


def _panel(who: Character, rng: Random) -> tuple[Image.Image, Face]:
    w, h = PANEL
    tint = rng.choice((255, 244, 226, 206))
    canvas = Canvas(Image.new("RGB", (w * SUPERSAMPLE, h * SUPERSAMPLE), (tint, tint, tint)))
    side = rng.choice((-1, 1))
    half = rng.uniform(50.0, 64.0)
    face = paint_figure(canvas, Placement(who, w * (0.5 + 0.2 * side), h * 0.56, half))
    _speech(canvas, rng, (w * (0.5 - 0.3 * side), h * 0.26))
    return canvas.finished(), face


def _speech(canvas: Canvas, rng: Random, at: tuple[float, float]) -> None:
    s = SUPERSAMPLE
    x, y, rx, ry = at[0] * s, at[1] * s, 68 * s, 46 * s
    tail = points(
        [(x - 14 * s, y + ry * 0.8), (x + 14 * s, y + ry * 0.8), (x + 30 * s, y + ry * 1.45)]
    )
    canvas.fill(tail, (30, 30, 30))
    canvas.fill(ellipse(x, y, rx + 2 * s, ry + 2 * s, n=40), (30, 30, 30))
    canvas.fill(tail * 1.0 + (-1 * s, -4 * s), (255, 255, 255))
    canvas.fill(ellipse(x, y, rx, ry, n=40), (255, 255, 255))
    for row in range(-1, 2):
        cursor = x - 42 * s
        while cursor < x + 40 * s:  # strokes that read as lettering from afar
            step = rng.uniform(5, 12) * s
            top = y + row * 20 * s - 4 * s
            canvas.fill(
                points(
                    [
                        (cursor, top),
                        (cursor + step, top),
                        (cursor + step, top + 6 * s),
                        (cursor, top + 6 * s),
                    ]
                ),
                (40, 40, 40),
            )
            cursor += step + 4 * s


def draw_sketch(seed: int) -> Drawing:
    """A line drawing without colour, the same for one seed."""
    rng = Random(f"sketch {seed}")
    who = sample_character(rng)
    size = (rng.randint(500, 640), rng.randint(600, 780))
    canvas = Canvas(
        Image.new("RGB", (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE), PAPER), line_art=True
    )
    half = rng.uniform(85.0, 115.0)
    face = paint_figure(
        canvas, Placement(who, size[0] * 0.5, max(half * 2.9, size[1] * 0.42), half)
    )
    kept = _without_colours(who.tags)
    tags = {"1girl", "lineart", "monochrome", "sketch", "solo", "white_background"}
    return Drawing(
        image=canvas.finished(),
        tags=tuple(sorted({*tags, *kept, *who.other_tags})),
        characters=(Portrayed(kept, face),),
        faces=(face,),
    )
