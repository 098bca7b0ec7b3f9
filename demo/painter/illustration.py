"""Whole pictures of characters: coloured illustrations, comics and sketches."""

from dataclasses import replace
from random import Random

from PIL import Image, ImageDraw

from demo.painter import adornments, hair, head
from demo.painter.body import paint_body
from demo.painter.canvas import (
    PAPER,
    SUPERSAMPLE,
    Canvas,
    Drawing,
    Face,
    Pen,
    Points,
    Portrayed,
    ellipse,
    points,
)
from demo.painter.colours import skin_tone
from demo.painter.scenery import backdrop
from demo.painter.traits import (
    EYE_COLOURS,
    HAIR_COLOURS,
    MOUTHS,
    Character,
    Picture,
    Placement,
    pick,
    sample_character,
    sample_picture,
)

LINE = 0.024
NECK = (0.0, 1.05)  # the head turns about it


def paint_figure(canvas: Canvas, placed: Placement) -> Face:
    """Draws a character at its placement; returns its face's box in final pixels."""
    who = placed.character
    pen = Pen(
        canvas,
        origin=(placed.x * SUPERSAMPLE, placed.y * SUPERSAMPLE),
        unit=placed.half * SUPERSAMPLE,
        # thinner on large faces, so that a pen's width does not scale with the figure alone
        line=LINE * (100.0 / placed.half) ** 0.25,
    )
    tilted = pen.turned(who.tilt, NECK)
    hair.paint_back(tilted, who)
    head.paint_neck(pen, who)
    paint_body(pen, who)
    hair.paint_front_strands(tilted, who)
    hair.paint_tails(tilted, who)
    head.paint_ears(tilted, who)
    head.paint_face(tilted, who)
    outline = head.face_outline(who)
    hair.paint_fringe_shadow(tilted, who, outline, skin_tone(who.skin).shade)
    head.paint_eyes(tilted, who)
    if who.glasses:
        adornments.paint_glasses(tilted, who)
    if who.style == "braid":
        hair.paint_braid(tilted, who)
    hair.paint_front(tilted, who)
    head.paint_brows(tilted, who)
    _crown(tilted, placed)
    return _box(tilted, outline, canvas)


def _crown(pen: Pen, placed: Placement) -> None:
    who = placed.character
    if who.ears != "none":
        adornments.paint_animal_ears(pen, who)
    if who.ahoge:
        hair.paint_ahoge(pen, who)
    if who.hat != "none":
        adornments.paint_hat(pen, who)
    if who.ornament != "none":
        adornments.paint_ornament(pen, who)


def _box(pen: Pen, outline: Points, canvas: Canvas) -> Face:
    px = pen.px(outline) / SUPERSAMPLE
    width, height = canvas.image.width // SUPERSAMPLE, canvas.image.height // SUPERSAMPLE
    left, top = (max(0, int(v)) for v in px.min(axis=0))
    right, bottom = px.max(axis=0)
    return Face(left, top, min(width, int(right) + 1) - left, min(height, int(bottom) + 1) - top)


def draw(seed: int) -> Drawing:
    """A coloured picture of a character (about one in fifteen shows two), the same for one seed."""
    return paint(sample_picture(Random(f"character {seed}")))


def paint(picture: Picture) -> Drawing:
    """Draws a picture with given traits."""
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
