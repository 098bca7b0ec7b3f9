"""The head without its hair: neck, face, ears, eyes and brows."""

from dataclasses import dataclass

from demo.painter.canvas import (
    GRAPHITE,
    Pen,
    Points,
    bezier,
    ellipse,
    loop,
    mirrored,
    moved,
    points,
    spline,
    tapered,
)
from demo.painter.colours import LASH, RGB, WHITE, Tone, mix, shifted, skin_tone, tone
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


EYE_X, EYE_Y = 0.485, 0.195  # where the cascade was found to want them
EYE_A, EYE_B = 0.285, 0.31  # half-width and half-height


@dataclass(frozen=True)
class EyeShape:
    """The outlines of one eye, in local units."""

    centre: tuple[float, float]
    upper: Points  # from the inner to the outer corner
    lower: Points
    side: int  # +1 is right of the nose
    a: float
    b: float


def eye_shape(who: Character, side: int) -> EyeShape:
    """One eye's outlines; the eye that is turned away is a little narrower."""
    far = 1.0 - 0.10 * max(0.0, who.turn * side)
    cx = side * EYE_X + 0.07 * who.turn
    a, b = EYE_A * far, EYE_B * who.eye_height
    cy = EYE_Y
    rise = who.eye_slant
    inner, outer = (
        (cx - side * a * 0.86, cy + 0.3 * b + rise * 0.4),
        (cx + side * a, cy + 0.02 * b - rise),
    )
    upper = bezier(
        [
            inner,
            (cx - side * a * 0.72, cy - b * 1.02 + rise * 0.2),
            (cx + side * a * 0.62, cy - b * 1.28 - rise),
            outer,
        ],
        18,
    )
    lower = bezier(
        [
            outer,
            (cx + side * a * 0.9, cy + b * 1.12 - rise * 0.4),
            (cx - side * a * 0.5, cy + b * 1.2),
            inner,
        ],
        18,
    )
    return EyeShape((cx, cy), upper, lower, side, a, b)


def paint_eyes(pen: Pen, who: Character) -> None:
    """Both eyes, open or shut as the character has them."""
    for side in (-1, 1):
        shape = eye_shape(who, side)
        if who.eyes_shut == "both" or (who.eyes_shut == "one" and side == who.side):
            _shut(pen, shape, who)
        else:
            _open(pen, shape, who)


def _lash_colour(who: Character) -> RGB:
    return mix(LASH, tone(who.hair_rgb).ink, 0.35)


def _open(pen: Pen, shape: EyeShape, who: Character) -> None:
    white = points([*shape.upper, *shape.lower])
    pen.fill(white, (250, 250, 253))
    if pen.canvas.line_art:
        _line_iris(pen, shape)
    else:
        _iris(pen, shape, white, who.eye_rgb)
    _lashes(pen, shape, _lash_colour(who), who)


def _iris_place(shape: EyeShape) -> tuple[float, float, float, float]:
    cx, cy = shape.centre
    return cx - shape.side * 0.012, cy + 0.015, shape.a * 0.73, shape.b * 0.93


def _line_iris(pen: Pen, shape: EyeShape) -> None:
    x, y, rx, ry = _iris_place(shape)
    ring = ellipse(x, y, rx, ry)
    pen.ink([*ring, ring[0]], LASH, 0.8, start=1, end=1)
    pen.canvas.fill(pen.px(ellipse(x, y - 0.06, rx * 0.62, ry * 0.6)), (88, 86, 92))
    pen.fill(ellipse(x - 0.07, y - 0.12, 0.055, 0.07), WHITE)


def _iris(pen: Pen, shape: EyeShape, white: Points, colour: RGB) -> None:
    x, y, rx, ry = _iris_place(shape)
    clip = pen.clip(white)
    rim = mix(shifted(colour, saturation=0.15, value=0.34), (36, 14, 48), 0.3)
    dark = mix(shifted(colour, hue=0.02, saturation=0.1, value=0.42), (40, 20, 70), 0.25)
    bright = mix(shifted(colour, hue=-0.02, saturation=-0.12, value=1.3), WHITE, 0.12)
    clip.fill(pen.px(ellipse(x, y, rx, ry)), rim)
    clip.gradient(
        [(0.0, dark), (0.3, mix(dark, colour, 0.4)), (0.56, colour), (1.0, bright)],
        pen.px(ellipse(x, y, rx * 0.9, ry * 0.93)),
    )
    # a pale crescent in the iris's lower part makes it look like glass
    clip.fill(pen.px(ellipse(x, y + ry * 0.5, rx * 0.62, ry * 0.36)), mix(bright, WHITE, 0.35), 0.6)
    clip.fill(pen.px(ellipse(x, y - ry * 0.06, rx * 0.43, ry * 0.44)), mix(rim, (20, 8, 30), 0.4))
    clip.fill(pen.px(ellipse(x, y + ry * 0.22, rx * 0.26, ry * 0.16)), colour, 0.55)
    lid = points([*shape.upper, *moved(shape.upper[::-1], 0.0, 0.085)])
    clip.fill(pen.px(lid), mix(rim, (70, 60, 110), 0.4), 0.5)
    light = -1  # both eyes mirror one lamp, up on the left
    clip.fill(pen.px(ellipse(x + light * rx * 0.42, y - ry * 0.42, rx * 0.36, ry * 0.3)), WHITE)
    clip.fill(pen.px(ellipse(x - light * rx * 0.46, y + ry * 0.4, rx * 0.19, ry * 0.15)), WHITE)
    clip.fill(pen.px(ellipse(x - light * rx * 0.1, y + ry * 0.68, rx * 0.1, ry * 0.07)), WHITE, 0.8)


def _lashes(pen: Pen, shape: EyeShape, colour: RGB, who: Character) -> None:
    side = shape.side
    out = shape.upper[-1]
    wing = points([*shape.upper, (out[0] + side * 0.055, out[1] - 0.035)])
    body = tapered(pen.px(wing), 0.105 * pen.unit, 0.34, end=0.3)
    pen.canvas.fill(body, colour if not pen.canvas.line_art else GRAPHITE)
    for back, reach, lift in ((3, 0.1, 0.01), (1, 0.085, -0.045)):
        base = shape.upper[-1 - back]
        tip = moved(base, side * reach, -0.03 - lift)
        nib = [moved(base, -side * 0.04, -0.03), tip, moved(base, side * 0.03, 0.05)]
        pen.canvas.fill(pen.px(nib), colour if not pen.canvas.line_art else GRAPHITE)
    crease = moved(shape.upper[4:16], 0.0, -0.095)
    pen.ink(crease, mix(colour, who.skin, 0.35), 0.65, start=0.0, end=0.3)
    pen.ink(shape.lower[1:12], mix(colour, who.skin, 0.12), 0.95, start=0.9, end=0.0)


def _shut(pen: Pen, shape: EyeShape, who: Character) -> None:
    (cx, cy), side, a, b = shape.centre, shape.side, shape.a, shape.b
    happy = who.mouth in {"smile", "open_mouth", "grin"}
    depth = -0.62 * b if happy else 0.42 * b
    y = cy + 0.28 * b
    lid = bezier(
        [
            (cx - side * a * 0.92, y),
            (cx - side * a * 0.5, y + depth),
            (cx + side * a * 0.55, y + depth),
            (cx + side * a, y - 0.01),
        ],
        18,
    )
    colour = _lash_colour(who)
    pen.ink(lid, colour, 3.0, start=0.25, end=0.3)
    for k, reach in ((-2, 0.075), (-5, 0.06)):
        base = lid[k]
        pen.ink([base, moved(base, side * reach, 0.045)], colour, 1.4, start=1.0, end=0.0)
    pen.ink(moved(lid[4:15], 0.0, -0.16), mix(colour, who.skin, 0.45), 0.65, start=0.0, end=0.2)


def paint_brows(pen: Pen, who: Character) -> None:
    """Brows, seen through the fringe as the manner is."""
    colour = mix(tone(who.hair_rgb).ink, who.hair_rgb, 0.22)
    for side in (-1, 1):
        cx = side * EYE_X + 0.07 * who.turn
        y = EYE_Y - EYE_B - 0.235
        arc = spline(
            [
                (cx - side * 0.2, y + 0.02 + who.brow),
                (cx + side * 0.05, y - 0.045),
                (cx + side * 0.25, y + 0.03 - who.brow * 0.4),
            ],
            8,
        )
        pen.ink(arc, colour, 1.5, start=0.55, end=0.0)
