"""The bare head: neck, ears, face, blush, nose and mouth."""

from demo.painter.canvas import Pen
from demo.painter.colours import RGB, Tone, mix, skin_tone
from demo.painter.curves import Points, bezier, ellipse, loop, mirrored, moved, points, spline
from demo.painter.traits import Character

LIP: RGB = (150, 62, 70)


def face_outline(who: Character) -> Points:
    """The face's closed outline: a round skull that runs to a small chin at `chin`."""
    c, j = who.chin, who.jaw
    half = [
        (0.0, -1.02),
        (0.55, -0.92),
        (0.9, -0.5),
        (0.985, -0.05),
        (0.94, 0.3),
        (j + 0.04, 0.62 * c),
        (0.42, 0.88 * c),
        (0.13, 0.99 * c),
        (0.0, c),
    ]
    return loop(mirrored(half), 5)


def paint_neck(pen: Pen, who: Character) -> None:
    """The neck, in the chin's shadow; it is drawn before the clothes and the face."""
    skin = skin_tone(who.skin)
    half = [(0.3, 0.6), (0.285, 1.0), (0.31, 1.3), (0.48, 1.5), (0.95, 1.66)]
    right = spline(half, 5)
    left = right * (-1.0, 1.0)
    pen.fill([*right, (0.95, 2.5), (-0.95, 2.5), *left[::-1]], skin.base)
    shadow = [
        *right[:16],
        *spline([(0.31, 1.28), (0.02, 1.52), (-0.31, 1.24)], 5),
        *left[:16][::-1],
    ]
    pen.shade(shadow, skin.shade)
    pen.ink(right[4:], skin.ink, 0.9, start=0.8, end=0.2)
    pen.ink(left[4:], skin.ink, 0.9, start=0.8, end=0.2)
    for side in (-1, 1):
        bone = bezier(
            [(side * 0.13, 1.75), (side * 0.3, 1.68), (side * 0.5, 1.7), (side * 0.8, 1.66)], 10
        )
        pen.ink(bone, skin.deep, 0.7)


def paint_ears(pen: Pen, who: Character) -> None:
    """Human ears; most hair hides them."""
    skin = skin_tone(who.skin)
    for side in (-1, 1):
        x = side * 0.97 - 0.03 * who.turn
        ear = loop(
            points([(0, -0.02), (0.12, -0.06), (0.17, 0.1), (0.09, 0.32), (-0.03, 0.38)])
            * (side, 1)
            + (x, 0.08),
            5,
        )
        pen.fill(ear, skin.base)
        pen.shade(ellipse(x + side * 0.06, 0.2, 0.045, 0.1, n=12), skin.shade)
        pen.ink(ear[:20], skin.ink, 0.8)


def paint_face(pen: Pen, who: Character) -> None:
    """The face without eyes: skin, side shade, blush, contour, nose and mouth."""
    skin = skin_tone(who.skin)
    outline = face_outline(who)
    pen.fill(outline, skin.base)
    if not pen.canvas.line_art:
        _modelling(pen, who, skin, outline)
    jaw = outline[14:-14]
    pen.ink(jaw, skin.ink, 1.0, start=0.3, end=0.3)
    _nose(pen, who, skin)
    _mouth(pen, who, skin)


def _modelling(pen: Pen, who: Character, skin: Tone, outline: Points) -> None:
    clip = pen.clip(outline)
    away = who.side
    rim = [
        (away * 1.1, -0.6),
        (away * 0.9, 0.1),
        (away * (who.jaw - 0.06), 0.62),
        (away * 0.1, 1.02),
        (away * 1.1, 1.2),
    ]
    clip.fill(pen.px(spline(rim, 6)), skin.shade, 0.45)
    strength = 0.16 + 0.42 * max(0.0, who.blush - 0.25)
    for side in (-1, 1):
        x = side * 0.6 + 0.06 * who.turn
        pen.glow((x, 0.56), (0.27, 0.16), (250, 96, 104), opacity=strength)
        if who.blush > 0.7:
            for k in (-1, 0, 1):
                dash = [(x + 0.075 * k + 0.025, 0.51), (x + 0.075 * k - 0.025, 0.58)]
                pen.ink(dash, mix(skin.base, (226, 74, 86), 0.62), 0.6)


def _nose(pen: Pen, who: Character, skin: Tone) -> None:
    x = 0.1 * who.turn
    pen.shade([(x + 0.012, 0.47), (x + 0.05, 0.545), (x - 0.015, 0.55)], skin.shade)
    pen.ink(
        [(x - 0.005, 0.475), (x + 0.014, 0.52), (x - 0.012, 0.545)],
        skin.ink,
        0.75,
        start=0.3,
        end=0.7,
    )


def _mouth(pen: Pen, who: Character, skin: Tone) -> None:
    x, y, c = 0.085 * who.turn, 0.735, mix(LIP, skin.ink, 0.4)
    if who.mouth in {"smile", "closed_mouth", "frown"}:
        bow = {"smile": 0.055, "closed_mouth": 0.012, "frown": -0.045}[who.mouth]
        w = 0.17 if who.mouth == "smile" else 0.12
        curve = spline(
            [
                (x - w, y - bow),
                (x - w * 0.5, y + bow * 0.45),
                (x, y + bow * 0.55),
                (x + w * 0.5, y + bow * 0.45),
                (x + w, y - bow),
            ],
            5,
        )
        pen.ink(curve, c, 0.95, start=0.35, end=0.35)
        pen.ink([(x - 0.06, y + 0.105), (x + 0.06, y + 0.105)], skin.shade, 0.8, start=0, end=0)
    elif who.mouth == ":o":
        ring = ellipse(x, y + 0.015, 0.06, 0.075)
        pen.fill(ring, (176, 66, 78))
        pen.ink([*ring, ring[0]], c, 0.7, start=1, end=1)
    else:
        _open_mouth(pen, (x, y), c, grin=who.mouth == "grin")


def _open_mouth(pen: Pen, at: tuple[float, float], ink: RGB, *, grin: bool) -> None:
    x, y = at
    w, drop = (0.21, 0.14) if grin else (0.165, 0.21)
    upper = bezier(
        [(x - w, y - 0.06), (x - w * 0.4, y - 0.02), (x + w * 0.4, y - 0.02), (x + w, y - 0.06)], 12
    )
    lower = bezier(
        [(x + w, y - 0.06), (x + w * 0.75, y + drop), (x - w * 0.75, y + drop), (x - w, y - 0.06)],
        16,
    )
    shape = points([*upper, *lower])
    pen.fill(shape, (255, 250, 248) if grin else (168, 56, 70))
    if not grin and not pen.canvas.line_art:
        clip = pen.clip(shape)
        clip.fill(pen.px(ellipse(x, y + drop * 0.72, w * 0.62, drop * 0.42)), (238, 128, 128))
        clip.fill(pen.px([*upper, *moved(upper[::-1], 0.0, 0.035)]), (255, 250, 248))
    pen.ink(upper, ink, 0.85, start=0.7, end=0.7)
    pen.ink(lower, ink, 0.8, start=0.5, end=0.5)
