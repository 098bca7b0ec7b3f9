"""Shoulders, arms and clothes."""

import numpy as np

from demo.painter.canvas import Pen
from demo.painter.colours import Tone, mix, skin_tone, tone
from demo.painter.curves import Points, bezier, ellipse, points, spline
from demo.painter.traits import Character

SHOULDER = [
    (0.5, 1.46),
    (0.95, 1.6),
    (1.36, 1.74),
    (1.62, 2.05),
    (1.74, 2.7),
    (1.8, 3.6),
    (1.84, 5.0),
    (1.8, 8.0),
]
FLANK = [(1.2, 2.35), (1.12, 3.0), (0.98, 3.9), (1.1, 4.9), (1.5, 6.2), (1.9, 8.0)]


def paint_body(pen: Pen, who: Character) -> None:
    """The body in its clothes; the neck has been painted before it."""
    cloth = tone(who.cloth)
    right = spline(SHOULDER, 6)
    _trunk(pen, right, cloth)
    match who.outfit:
        case "serafuku":
            _serafuku(pen, who)
        case "collared_shirt":
            _shirt(pen, who)
        case "hoodie":
            _hoodie(pen, who, cloth)
        case "kimono":
            _kimono(pen, who, cloth)
        case "sweater":
            _sweater(pen, cloth)
        case _:
            _dress(pen, who, cloth)


def _trunk(pen: Pen, right: Points, cloth: Tone) -> None:
    left = right * (-1.0, 1.0)
    pen.fill([(0.0, 1.98), *right, *left[::-1]], cloth.base)
    flank = spline(FLANK, 5)
    for side in (-1, 1):
        arm = points([*right[18:], *flank[::-1]]) * (side, 1)
        pen.shade(arm, cloth.shade if side > 0 else mix(cloth.base, cloth.shade, 0.35))
        gap = points([*flank[3:], *(flank[3:][::-1] + (0.11, 0.1))]) * (side, 1)
        pen.shade(gap, cloth.deep)
        pen.ink(flank * (side, 1), cloth.ink, 0.9, start=0.0, end=0.6)
        pen.ink(right * (side, 1), cloth.ink, 1.1, start=0.4, end=0.8)
        for y in (2.7, 3.6):
            fold = bezier(
                [
                    (side * 1.62, y),
                    (side * 1.5, y + 0.12),
                    (side * 1.42, y + 0.3),
                    (side * 1.42, y + 0.42),
                ],
                8,
            )
            pen.ink(fold, cloth.deep, 0.9)


def _neckline(depth: float, wide: float) -> Points:
    top = float(np.interp(wide, (0.3, 0.48, 0.95), (1.3, 1.5, 1.64)))
    half = spline([(wide, top), (wide * 0.72, top + (1.4 + depth - top) * 0.55), (0.0, 1.4 + depth)], 6)
    return points([*half, *(half[::-1] * (-1, 1))])


def _skin_v(pen: Pen, who: Character, depth: float, wide: float) -> None:
    skin = skin_tone(who.skin)
    line = _neckline(depth, wide)
    pen.fill(line, skin.base)
    pen.shade([(0.3, 1.2), (0.32, 1.36), (0.05, 1.56), (-0.3, 1.36), (-0.3, 1.2)], skin.shade)
    for side in (-1, 1):
        pen.ink(
            bezier(
                [(side * 0.1, 1.74), (side * 0.2, 1.68), (side * 0.3, 1.66), (side * 0.42, 1.64)], 8
            ),
            skin.deep,
            0.7,
        )


def _serafuku(pen: Pen, who: Character) -> None:
    collar, scarf = tone(mix(who.trim, (60, 70, 120), 0.35)), tone(who.accent)
    _skin_v(pen, who, 0.95, 0.56)
    for side in (-1, 1):
        flap = points(
            [
                (0.5, 1.34),
                (0.66, 1.42),
                (1.3, 1.78),
                (1.06, 2.35),
                (0.06, 2.62),
                (0.0, 2.4),
                (0.3, 2.0),
            ]
        ) * (side, 1)
        pen.fill(flap, collar.base)
        pen.ink([*flap, flap[0]], collar.ink, 0.9, start=0.8, end=0.8)
        stripe = points([(1.2, 1.8), (0.99, 2.27), (0.12, 2.5)]) * (side, 1)
        pen.ink(stripe, (250, 250, 252), 1.2, start=0.9, end=0.9)
    for side in (-1, 1):
        wing = spline(
            points([(0.0, 2.5), (0.3, 2.44), (0.56, 2.62), (0.46, 3.0), (0.16, 2.78), (0.0, 2.62)])
            * (side, 1),
            5,
        )
        pen.fill(wing, scarf.base)
        pen.shade(
            points([(0.04, 2.56), (0.4, 2.66), (0.44, 2.92), (0.2, 2.76)]) * (side, 1), scarf.shade
        )
        pen.ink(wing, scarf.ink, 0.9, start=0.7, end=0.7)
    knot = ellipse(0.0, 2.56, 0.13, 0.15, n=16)
    pen.fill(knot, scarf.light)
    pen.ink([*knot, knot[0]], scarf.ink, 0.8, start=0.8, end=0.8)


def _shirt(pen: Pen, who: Character) -> None:
    white, tie = tone((248, 248, 252)), tone(who.accent)
    _skin_v(pen, who, 0.42, 0.44)
    vest = tone(who.cloth)
    pen.ink([(0, 2.0), (0, 6.0)], vest.deep, 0.9, start=0.4, end=0.6)
    for y in (2.9, 3.6, 4.3):
        pen.fill(ellipse(0.09, y, 0.05, 0.05, n=12), vest.glint)
    for side in (-1, 1):
        flap = points([(0.36, 1.28), (0.62, 1.44), (0.74, 1.98), (0.42, 2.12), (0.03, 1.86)]) * (
            side,
            1,
        )
        pen.fill(flap, white.base)
        pen.shade(
            points([(0.74, 1.98), (0.42, 2.12), (0.03, 1.86), (0.42, 1.98)]) * (side, 1),
            white.shade,
        )
        pen.ink([*flap, flap[0]], white.ink, 0.8, start=0.8, end=0.8)
    strip = points([(-0.12, 1.96), (0.12, 1.96), (0.2, 2.9), (0.0, 3.14), (-0.2, 2.9)])
    pen.fill(strip, tie.base)
    pen.shade([(0.02, 2.1), (0.12, 2.1), (0.2, 2.9), (0.0, 3.14)], tie.shade)
    pen.ink([*strip, strip[0]], tie.ink, 0.8, start=0.8, end=0.8)
    knot = points([(-0.15, 1.82), (0.15, 1.82), (0.1, 2.08), (-0.1, 2.08)])
    pen.fill(knot, tie.base)
    pen.ink([*knot, knot[0]], tie.ink, 0.8, start=0.8, end=0.8)


def _hoodie(pen: Pen, who: Character, cloth: Tone) -> None:
    _skin_v(pen, who, 0.3, 0.42)
    for side in (-1, 1):
        hood = spline(
            points(
                [
                    (0.34, 1.3),
                    (0.7, 1.22),
                    (1.06, 1.5),
                    (0.94, 1.92),
                    (0.4, 2.16),
                    (0.0, 2.12),
                    (0.12, 1.9),
                    (0.36, 1.7),
                    (0.34, 1.3),
                ]
            )
            * (side, 1),
            5,
        )
        pen.fill(hood, cloth.light)
        pen.shade(
            spline(
                points([(0.94, 1.92), (0.4, 2.16), (0.0, 2.12), (0.5, 1.98), (0.94, 1.6)])
                * (side, 1),
                5,
            ),
            cloth.shade,
        )
        pen.ink(hood, cloth.ink, 0.9, start=0.7, end=0.7)
        cord = bezier(
            [(side * 0.22, 2.05), (side * 0.27, 2.3), (side * 0.2, 2.6), (side * 0.25, 2.85)], 8
        )
        pen.ink(cord, (250, 248, 240), 1.5, start=1, end=1)
        pen.fill(ellipse(side * 0.25, 2.88, 0.05, 0.07, n=12), (236, 230, 220))
    pen.ink([(0, 2.12), (0, 6.5)], cloth.deep, 1.0, start=0.6, end=0.6)


def _dress(pen: Pen, who: Character, cloth: Tone) -> None:
    skin, trim = skin_tone(who.skin), tone(who.accent)
    _skin_v(pen, who, 0.75, 0.82)
    for side in (-1, 1):
        strap = points([(0.62, 1.5), (0.82, 1.52), (0.78, 2.0), (0.55, 2.0)]) * (side, 1)
        pen.fill(strap, cloth.base)
        pen.ink(strap[:2][::-1], cloth.ink, 0.7)
    line = _neckline(0.72, 0.8)[4:-4]
    for k in range(0, len(line) - 1):
        x, y = line[k]
        pen.fill(ellipse(float(x), float(y) + 0.02, 0.1, 0.09, n=12), (252, 250, 252))
    pen.ink(line + (0, 0.1), skin.deep, 0.6)
    bow = points([(0.02, 2.34), (0.34, 2.16), (0.36, 2.5)])
    for side in (-1, 1):
        wing = bow * (side, 1)
        pen.fill(wing, trim.base)
        pen.ink([*wing, wing[0]], trim.ink, 0.8, start=0.8, end=0.8)
    pen.fill(ellipse(0, 2.33, 0.08, 0.09, n=14), trim.light)
    waist = points([(-1.05, 3.75), (1.05, 3.75), (1.02, 4.02), (-1.02, 4.02)])
    pen.fill(waist, trim.base)


def _kimono(pen: Pen, who: Character, cloth: Tone) -> None:
    _skin_v(pen, who, 0.6, 0.5)
    under, sash = tone((250, 246, 244)), tone(who.accent)
    for wide, colours in ((0.0, under), (0.12, cloth)):
        for side in (-1, 1):
            band = points(
                [
                    (0.4 + wide, 1.26),
                    (0.62 + wide, 1.36),
                    (0.46 + wide, 1.9),
                    (-0.36, 3.3),
                    (-0.62, 3.3),
                    (0.2 + wide, 1.9),
                ]
            ) * (side, 1)
            pen.fill(band, colours.light if colours is cloth else colours.base)
            pen.ink(band[1:4], colours.ink, 0.8)
            pen.ink([band[0], band[5], band[4]], colours.ink, 0.8)
    pen.fill([(-1.08, 3.2), (1.08, 3.2), (1.02, 4.4), (-1.02, 4.4)], sash.base)
    pen.shade([(-1.05, 3.7), (1.05, 3.7), (1.04, 3.88), (-1.04, 3.88)], sash.light)
    for x, y, r in (
        (-1.4, 2.5, 0.16),
        (1.45, 3.1, 0.18),
        (0.85, 2.3, 0.12),
        (-1.5, 3.8, 0.18),
        (-0.75, 2.75, 0.1),
    ):
        for dx, dy in ((0, -1), (0.95, -0.3), (0.6, 0.8), (-0.6, 0.8), (-0.95, -0.3)):
            pen.shade(
                ellipse(x + dx * r * 0.6, y + dy * r * 0.6, r * 0.5, r * 0.5, n=10), cloth.glint
            )


def _sweater(pen: Pen, cloth: Tone) -> None:
    neck = spline(
        [
            (-0.42, 1.2),
            (-0.5, 1.5),
            (-0.46, 1.72),
            (0, 1.86),
            (0.46, 1.72),
            (0.5, 1.5),
            (0.42, 1.2),
            (0, 1.34),
            (-0.42, 1.2),
        ],
        5,
    )
    pen.fill(neck, cloth.light)
    for k in range(-3, 4):
        pen.ink([(k * 0.13, 1.34), (k * 0.135, 1.76)], cloth.shade, 0.8)
        pen.ink([(k * 0.32, 2.2), (k * 0.3, 6.0)], cloth.shade, 0.9, start=0.3, end=0.8)
    pen.ink(neck, cloth.ink, 0.9, start=0.8, end=0.8)
