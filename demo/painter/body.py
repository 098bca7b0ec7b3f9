"""Shoulders, arms and clothes."""

import numpy as np

from demo.painter.canvas import Pen, Points, bezier, ellipse, loop, moved, points, spline
from demo.painter.colours import Tone, mix, tone
from demo.painter.traits import Character

SHOULDER = [
    (0.46, 1.46),
    (0.84, 1.62),
    (1.18, 1.79),
    (1.42, 2.12),
    (1.54, 2.75),
    (1.64, 3.6),
    (1.74, 5.0),
    (1.74, 8.0),
]
FLANK = [(1.08, 2.4), (1.02, 3.0), (0.9, 3.9), (1.02, 4.9), (1.4, 6.2), (1.8, 8.0)]

# How deep a garment opens below the pit of the neck, and how wide at its top.
NECKLINE = {
    "serafuku": (0.95, 0.56),
    "collared_shirt": (0.42, 0.44),
    "hoodie": (0.3, 0.42),
    "kimono": (0.6, 0.5),
    "dress": (0.34, 0.44),
    "sweater": (0.3, 0.42),
}


def paint_body(pen: Pen, who: Character) -> None:
    """The body in its clothes; the neck has been painted before it."""
    cloth = tone(who.cloth)
    _trunk(pen, NECKLINE[who.outfit], cloth)
    match who.outfit:
        case "serafuku":
            _serafuku(pen, who)
        case "collared_shirt":
            _shirt(pen, who)
        case "hoodie":
            _hoodie(pen, cloth)
        case "kimono":
            _kimono(pen, who, cloth)
        case "sweater":
            _sweater(pen, cloth)
        case _:
            _dress(pen, who, cloth)


def _neckline(depth: float, wide: float) -> Points:
    top = float(np.interp(wide, (0.3, 0.46, 0.84), (1.3, 1.46, 1.62)))
    low = 1.4 + depth
    return spline([(0.0, low), (wide * 0.72, top + (low - top) * 0.5), (wide, top)], 6)


def _trunk(pen: Pen, neckline: tuple[float, float], cloth: Tone) -> None:
    right = spline(SHOULDER, 6)
    opening = _neckline(*neckline)
    half = points([*opening, *right[right[:, 0] > neckline[1]]])
    pen.fill([*half, *(half[::-1] * (-1.0, 1.0))], cloth.base)
    flank = spline(FLANK, 5)
    for side in (-1, 1):
        arm = points([*right[18:], *flank[::-1]]) * (side, 1)
        pen.shade(arm, cloth.shade if side > 0 else mix(cloth.base, cloth.shade, 0.35))
        gap = points([*flank[3:], *moved(flank[3:][::-1], 0.11, 0.1)]) * (side, 1)
        pen.shade(gap, cloth.deep)
        pen.ink(flank * (side, 1), cloth.ink, 0.9, start=0.0, end=0.6)
        pen.ink(right * (side, 1), cloth.ink, 1.1, start=0.4, end=0.8)
        for y in (2.7, 3.6):
            fold = bezier(
                [
                    (side * 1.46, y),
                    (side * 1.34, y + 0.12),
                    (side * 1.26, y + 0.3),
                    (side * 1.26, y + 0.42),
                ],
                8,
            )
            pen.ink(fold, cloth.deep, 0.9)


def _serafuku(pen: Pen, who: Character) -> None:
    collar, scarf = tone(mix(who.trim, (48, 62, 124), 0.62)), tone(who.accent)
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


def _hoodie(pen: Pen, cloth: Tone) -> None:
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
        pen.fill(hood, cloth.base)  # a paler hood reads as a second face to the cascade
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
        pen.ink(cord, cloth.deep, 1.3, start=1, end=1)
        pen.fill(ellipse(side * 0.25, 2.88, 0.05, 0.07, n=12), cloth.deep)
    pen.ink([(0, 2.12), (0, 6.5)], cloth.deep, 1.0, start=0.6, end=0.6)


def _dress(pen: Pen, who: Character, cloth: Tone) -> None:
    white, trim = tone((250, 248, 252)), tone(who.accent)
    for side in (-1, 1):
        flap = loop(
            points(
                [
                    (0.34, 1.32),
                    (0.62, 1.46),
                    (0.86, 1.72),
                    (0.78, 2.06),
                    (0.36, 2.14),
                    (0.0, 1.86),
                    (0.22, 1.6),
                ]
            )
            * (side, 1),
            5,
        )
        pen.fill(flap, white.base)
        pen.shade(
            spline(
                points(
                    [
                        (0.84, 1.86),
                        (0.72, 2.08),
                        (0.36, 2.14),
                        (0.04, 1.9),
                        (0.36, 2.02),
                        (0.7, 1.98),
                    ]
                )
                * (side, 1),
                4,
            ),
            white.shade,
        )
        pen.ink([*flap, flap[0]], white.ink, 0.8, start=0.8, end=0.8)
    for side in (-1, 1):
        tail = points([(0.0, 1.96), (0.12, 1.98), (0.34, 2.72), (0.2, 2.66), (0.14, 2.8)]) * (
            side,
            1,
        )
        pen.fill(tail, trim.shade)
        pen.ink([*tail, tail[0]], trim.ink, 0.7, start=0.8, end=0.8)
        wing = loop(
            points([(0.03, 1.95), (0.2, 1.78), (0.44, 1.76), (0.45, 2.14), (0.2, 2.1)]) * (side, 1),
            4,
        )
        pen.fill(wing, trim.base)
        pen.shade(
            points([(0.06, 1.97), (0.3, 1.92), (0.4, 2.08), (0.2, 2.06)]) * (side, 1), trim.shade
        )
        pen.ink([*wing, wing[0]], trim.ink, 0.8, start=0.8, end=0.8)
    knot = ellipse(0, 1.95, 0.09, 0.11, n=14)
    pen.fill(knot, trim.light)
    pen.ink([*knot, knot[0]], trim.ink, 0.7, start=0.8, end=0.8)
    for x in (-0.5, 0.5):
        pen.ink(bezier([(x, 2.4), (x * 1.1, 2.9), (x * 1.1, 3.3), (x, 3.7)], 8), cloth.shade, 1.0)
    sash = points([(-0.94, 3.7), (0.94, 3.7), (0.92, 3.98), (-0.92, 3.98)])
    pen.fill(sash, trim.base)
    pen.ink(sash[:2], trim.ink, 0.8, start=0.8, end=0.8)
    pen.ink(sash[2:], trim.ink, 0.8, start=0.8, end=0.8)


def _kimono(pen: Pen, who: Character, cloth: Tone) -> None:
    under, sash = tone((250, 246, 244)), tone(who.accent)
    for wide, colours in ((0.0, under), (0.12, cloth)):
        for side in (-1, 1):
            band = points(
                [
                    (0.36 + 0.6 * wide, 1.37),
                    (0.5 + 0.8 * wide, 1.5),
                    (0.46 + wide, 1.9),
                    (-0.36, 3.3),
                    (-0.62, 3.3),
                    (0.2 + wide, 1.9),
                ]
            ) * (side, 1)
            pen.fill(band, colours.light if colours is cloth else colours.base)
            pen.ink(band[1:4], colours.ink, 0.8)
            pen.ink([band[0], band[5], band[4]], colours.ink, 0.8)
    pen.fill([(-1.0, 3.2), (1.0, 3.2), (0.96, 4.4), (-0.96, 4.4)], sash.base)
    pen.shade([(-0.95, 3.7), (0.95, 3.7), (0.93, 3.88), (-0.93, 3.88)], sash.light)
    for x, y, r in (
        (-1.26, 2.5, 0.15),
        (1.28, 3.1, 0.17),
        (0.85, 2.3, 0.12),
        (-1.36, 3.8, 0.17),
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
