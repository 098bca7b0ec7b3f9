"""One whole character, layer upon layer from the back hair to the hat."""

from demo.painter import adornments, eyes, hair, head
from demo.painter.body import paint_body
from demo.painter.canvas import SUPERSAMPLE, Canvas, Pen
from demo.painter.colours import skin_tone
from demo.painter.curves import Points
from demo.painter.drawing import Face
from demo.painter.traits import Placement

LINE = 0.024
NECK = (0.0, 1.05)  # the head turns about it


def paint_figure(canvas: Canvas, placed: Placement) -> Face:
    """Draws a character where it stands; returns its face's box in final pixels."""
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
    eyes.paint_eyes(tilted, who)
    if who.glasses:
        adornments.paint_glasses(tilted, who)
    if who.style == "braid":
        hair.paint_braid(tilted, who)
    hair.paint_front(tilted, who)
    eyes.paint_brows(tilted, who)
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
