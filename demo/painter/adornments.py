"""What is worn on the head: animal ears, hats, clips, flowers, bows, bands and glasses."""

from math import cos, pi, sin

from demo.painter.canvas import Pen, Points, bezier, ellipse, lock, loop, moved, points, spline
from demo.painter.colours import RGB, Tone, mix, tone
from demo.painter.head import EYE_Y, eye_shape
from demo.painter.traits import Character


def _bordered(pen: Pen, outline: Points, colours: Tone, width: float = 0.8) -> None:
    pen.fill(outline, colours.base)
    pen.ink([*outline, outline[0]], colours.ink, width, start=0.8, end=0.8)


def paint_animal_ears(pen: Pen, who: Character) -> None:
    """Ears of a cat, a fox or a rabbit, set into the hair."""
    hair = tone(who.hair_rgb)
    inner = tone(mix((255, 176, 186), who.skin, 0.3))
    for side in (-1, 1):
        outer, pink = _EARS[who.ears]
        shape = spline(points(outer) * (side, 1), 6)
        pen.fill(shape, hair.base)
        pen.shade(spline(points(pink) * (side, 1), 6), inner.base)
        pen.ink(shape, hair.ink, 1.1, start=0.5, end=0.5)
        foot, top = points(pink)[0], points(pink)[2]
        for lean, reach in ((0.5, 0.5), (0.12, 0.66)):
            aim = foot + (top - foot) * reach
            end = (float(aim[0] + 0.12 * lean), float(aim[1]))
            tuft = lock(
                points([foot, moved(foot, 0.02, -0.1), (end[0] - 0.08, end[1] + 0.1), end])
                * (side, 1),
                0.085,
                root=0.9,
                n=10,
            )
            pen.fill(tuft.outline, hair.light)


_EARS = {
    "cat_ears": (
        [(0.32, -1.2), (0.52, -1.62), (0.88, -1.92), (1.04, -1.5), (1.04, -0.85)],
        [(0.5, -1.14), (0.62, -1.5), (0.84, -1.72), (0.92, -1.42), (0.93, -0.95)],
    ),
    "fox_ears": (
        [(0.22, -1.22), (0.42, -1.75), (0.86, -2.1), (1.1, -1.6), (1.1, -0.82)],
        [(0.42, -1.15), (0.56, -1.6), (0.84, -1.88), (0.96, -1.5), (0.98, -0.92)],
    ),
    "rabbit_ears": (
        [(0.22, -1.15), (0.2, -1.9), (0.42, -2.6), (0.68, -2.62), (0.76, -2.0), (0.66, -1.1)],
        [(0.34, -1.15), (0.33, -1.9), (0.46, -2.4), (0.58, -2.42), (0.63, -1.95), (0.54, -1.1)],
    ),
}


def paint_ornament(pen: Pen, who: Character) -> None:
    """The clip, flower, bow or band in the hair."""
    at = (who.side * 0.74, -0.62)
    colours = tone(who.accent)
    match who.ornament:
        case "hairclip":
            for dy in (0.0, 0.13):
                bar = points([(-0.2, -0.035), (0.2, -0.035), (0.2, 0.035), (-0.2, 0.035)])
                _bordered(pen, bar * (1, 1) + (at[0], at[1] + dy), colours)
        case "x_hair_ornament":
            for s in (-1, 1):
                bar = points(
                    [
                        (-0.17, -0.17 * s - 0.05),
                        (-0.17, -0.17 * s + 0.05),
                        (0.17, 0.17 * s + 0.05),
                        (0.17, 0.17 * s - 0.05),
                    ]
                )
                _bordered(pen, bar + at, colours)
        case "star_hair_ornament":
            _bordered(pen, star(at, 0.24), colours)
        case "heart_hair_ornament":
            _bordered(pen, heart(at, 0.21), colours)
        case "hair_flower":
            _flower(pen, at, colours)
        case "hair_bow":
            _bow(pen, (who.side * -0.56, -1.2), 0.56, colours)
        case "hair_ribbon":
            for side in (-1, 1):
                _bow(pen, (side * 0.98, -0.78), 0.34, colours)
        case "hairband":
            _band(pen, colours)
        case _:
            pass


def star(at: tuple[float, float], r: float) -> Points:
    """A five-pointed star."""
    return points(
        [
            (
                at[0] + r * (1 if k % 2 == 0 else 0.48) * sin(k * pi / 5),
                at[1] - r * (1 if k % 2 == 0 else 0.48) * cos(k * pi / 5),
            )
            for k in range(10)
        ]
    )


def heart(at: tuple[float, float], r: float) -> Points:
    """A heart."""
    half = spline(points([(0, -0.45), (0.5, -0.95), (1.0, -0.45), (0.6, 0.35), (0.0, 1.0)]), 5)
    return points([*half, *(half[-2:0:-1] * (-1, 1))]) * r + at


def _flower(pen: Pen, at: tuple[float, float], colours: Tone) -> None:
    for k in range(5):
        a = 2 * pi * k / 5 - pi / 2
        _bordered(
            pen,
            ellipse(at[0] + 0.15 * cos(a), at[1] + 0.15 * sin(a), 0.12, 0.12, n=16),
            colours,
            0.6,
        )
    for k in range(5):
        a = 2 * pi * k / 5 - pi / 2
        pen.shade(
            ellipse(at[0] + 0.1 * cos(a), at[1] + 0.1 * sin(a), 0.07, 0.07, n=12), colours.light
        )
    pen.fill(ellipse(at[0], at[1], 0.065, 0.065, n=14), (252, 214, 92))


def _bow(pen: Pen, at: tuple[float, float], size: float, colours: Tone) -> None:
    for side in (-1, 1):
        wing = loop(
            points([(0.05, 0), (0.5, -0.42), (0.98, -0.5), (1.0, 0.1), (0.85, 0.42), (0.4, 0.22)])
            * (size * side, size)
            + at,
            5,
        )
        _bordered(pen, wing, colours, 1.0)
        fold = (
            points([(0.1, 0.02), (0.62, -0.1), (0.8, 0.3), (0.45, 0.16)]) * (size * side, size) + at
        )
        pen.shade(fold, colours.shade)
    _bordered(pen, ellipse(at[0], at[1], 0.17 * size, 0.22 * size, n=16), colours, 0.8)


def _band(pen: Pen, colours: Tone) -> None:
    outer = spline([(-1.15, -0.5), (-0.9, -1.04), (0, -1.24), (0.9, -1.04), (1.15, -0.5)], 8)
    inner = spline([(-1.1, -0.42), (-0.85, -0.9), (0, -1.08), (0.85, -0.9), (1.1, -0.42)], 8)
    pen.fill([*outer, *inner[::-1]], colours.base)
    pen.shade([*outer[4:14], *inner[4:14][::-1]], colours.light)
    for line in (outer, inner):
        pen.ink(line, colours.ink, 0.9, start=0.6, end=0.6)


_RIM = [(-0.36, 0.06), (-0.31, 0.32), (0.0, 0.39), (0.31, 0.32), (0.36, 0.06)]


def paint_glasses(pen: Pen, who: Character) -> None:
    """Half-rimmed glasses: a rim above the lids hides the eyes from the cascade."""
    rim: RGB = mix((96, 62, 72), who.accent, 0.3)
    inner_edges = []
    for side in (-1, 1):
        cx = eye_shape(who, side).centre[0]
        lower = spline(
            moved(_RIM, cx, EYE_Y + 0.03),
            6,
        )
        pen.ink(lower, rim, 0.75, start=0.7, end=0.7)
        inner_edges.append(cx - side * 0.36)
        pen.ink(
            [(cx + side * 0.36, EYE_Y + 0.09), (side * 1.0, EYE_Y - 0.02)],
            rim,
            0.9,
            start=1,
            end=0.6,
        )
    a, b, y = *inner_edges, EYE_Y + 0.09
    bridge = bezier([(a, y), (a + 0.05, y - 0.06), (b - 0.05, y - 0.06), (b, y)], 8)
    pen.ink(bridge, rim, 0.7, start=1, end=1)


def paint_hat(pen: Pen, who: Character) -> None:
    """A hat that sits above the fringe."""
    colours = tone(who.cloth if who.hat != "straw_hat" else (240, 208, 134))
    trim = tone(who.accent)
    match who.hat:
        case "beret":
            s = who.side
            body = loop(
                [
                    (-1.12, -0.92),
                    (-1.2 - 0.1 * s, -1.25),
                    (-0.7, -1.62),
                    (0.1 * s, -1.72),
                    (0.7, -1.62),
                    (1.2 - 0.1 * s, -1.25),
                    (1.12, -0.92),
                    (0.6, -0.98),
                    (0, -1.02),
                    (-0.6, -0.98),
                ],
                5,
            )
            _bordered(pen, body, colours, 1.1)
            pen.ink(spline([(-0.9, -1.2), (-0.3, -1.34), (0.4, -1.36)], 6), colours.shade, 1.6)
            _bordered(pen, ellipse(0.0, -1.75, 0.07, 0.1, n=14), colours)
        case "nurse_cap":
            body = points([(-0.72, -1.0), (-0.86, -1.6), (0.86, -1.6), (0.72, -1.0), (0.0, -1.1)])
            _bordered(pen, body, tone((246, 246, 250)), 1.0)
            for w, h in ((0.05, 0.17), (0.17, 0.05)):
                bar = moved([(-w, -h), (w, -h), (w, h), (-w, h)], 0.0, -1.35)
                pen.fill(bar, (228, 84, 104))
        case "straw_hat" | "witch_hat":
            _brimmed(pen, who, colours, trim)
        case _:
            pass


def _brimmed(pen: Pen, who: Character, colours: Tone, trim: Tone) -> None:
    s = who.side
    if who.hat == "witch_hat":
        crown = spline(
            [
                (-0.95, -0.98),
                (-0.6, -1.5),
                (-0.2, -1.95),
                (s * 0.45, -2.25),
                (0.25, -1.85),
                (0.6, -1.5),
                (0.95, -0.98),
            ],
            6,
        )
    else:
        crown = spline(
            [
                (-0.92, -0.98),
                (-0.86, -1.4),
                (-0.5, -1.66),
                (0, -1.72),
                (0.5, -1.66),
                (0.86, -1.4),
                (0.92, -0.98),
            ],
            6,
        )
    brim = loop(
        [
            (-1.75, -0.82),
            (-1.0, -1.08),
            (0, -1.16),
            (1.0, -1.08),
            (1.75, -0.82),
            (1.1, -0.8),
            (0, -0.86),
            (-1.1, -0.8),
        ],
        6,
    )
    _bordered(pen, crown, colours, 1.1)
    pen.fill(
        [(-0.93, -1.0), (-0.85, -1.22), (0, -1.34), (0.85, -1.22), (0.93, -1.0), (0, -1.1)],
        trim.base,
    )
    _bordered(pen, brim, colours, 1.1)
    pen.shade(loop([(-1.6, -0.83), (0, -0.96), (1.6, -0.83), (0, -0.86)], 5), colours.shade)
