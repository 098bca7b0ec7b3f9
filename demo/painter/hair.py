"""Hair in layers: what falls behind the head, the cap, the side locks and the fringe."""

from random import Random

from demo.painter.canvas import Lock, Pen, Points, bezier, lock, moved, points, spline
from demo.painter.colours import RGB, Tone, tone
from demo.painter.traits import Character

FALL = {"short_hair": 1.12, "medium_hair": 1.75, "long_hair": 3.6, "very_long_hair": 5.4}
CROWN = -1.3


def _lines(pen: Pen, piece: Lock, ink: RGB, span: tuple[float, float] = (0.0, 1.0)) -> None:
    n = len(piece.spine)
    a, b = int(span[0] * n), max(int(span[1] * n), int(span[0] * n) + 3)
    pen.ink(piece.edge(1.0)[a:b], ink, 1.0, start=0.0 if a else 0.6, end=0.35)
    pen.ink(piece.edge(-1.0)[a:b], ink, 1.0, start=0.0 if a else 0.6, end=0.35)


def paint_lock(
    pen: Pen,
    piece: Lock,
    colours: Tone,
    *,
    lit: int,
    span: tuple[float, float] = (0.0, 1.0),
    dim: bool = False,
) -> None:
    """One lock with its shadow side, its inner strand and its contour; lit is -1 or 1."""
    pen.fill(piece.outline, colours.shade if dim else colours.base)
    dark = colours.deep if dim else colours.shade
    pen.shade(piece.wedge(-0.98 * lit, -0.2 * lit, (max(0.15, span[0]), 1.0)), dark)
    pen.ink(piece.edge(0.3 * lit)[6:-4], dark, 0.8, start=0.0, end=0.0)
    _lines(pen, piece, colours.ink, span)


def paint_back(pen: Pen, who: Character) -> None:
    """The hair behind neck and shoulders, darker towards the middle."""
    rng, colours = Random(who.jitter), tone(who.hair_rgb)
    tied = who.style in {"twintails", "ponytail", "braid"}
    fall = 1.0 if tied else FALL[who.length]
    wide = 1.17 if tied else (1.26 if fall < 2 else 1.42)
    skull = spline(
        [
            (-wide, fall * 0.55),
            (-1.22, -0.2),
            (-0.85, -1.05),
            (0, CROWN - 0.02),
            (0.85, -1.05),
            (1.22, -0.2),
            (wide, fall * 0.55),
        ],
        6,
    )
    pen.fill(skull, colours.deep)
    wave = rng.uniform(-0.16, 0.16)
    count = 7
    order = sorted(range(count), key=lambda k: abs(k - (count - 1) / 2))
    for k in order:
        u = 2.0 * k / (count - 1) - 1.0
        edge = abs(u)
        tip_y = fall * (1.0 - 0.06 * (1 - edge)) + rng.uniform(-0.1, 0.1) * (1 + 0.4 * fall)
        curl = -0.22 * u if fall < 2 else 0.1 * u + rng.uniform(-0.12, 0.12)
        piece = lock(
            [
                (u * 0.8, -0.9),
                (u * (wide + 0.14), -0.5 + 0.06 * fall),
                (u * (wide + 0.12) + wave, fall * 0.6),
                (u * wide * 1.02 + curl, tip_y),
            ],
            0.36 if edge > 0.6 else 0.4,
            root=0.2 if edge > 0.6 else 0.5,
            sharp=2.6 if fall < 2 else 5.0,
            n=22,
        )
        if edge > 0.6:
            paint_lock(pen, piece, colours, lit=who.side, span=(0.05, 1.0), dim=tied)
        else:
            pen.fill(piece.outline, colours.deep if edge < 0.5 else colours.shade)
            _lines(pen, piece, colours.ink, (0.4, 1.0))


def paint_front_strands(pen: Pen, who: Character) -> None:
    """Long loose hair that falls over the shoulders; it is drawn between clothes and face."""
    if who.style != "loose" or who.length not in {"long_hair", "very_long_hair"}:
        return
    rng, colours = Random(who.jitter + 3), tone(who.hair_rgb)
    for side in (-1, 1):
        drop = rng.uniform(2.5, 3.3)
        for shift, share, wide in ((0.2, 0.9, 0.2), (0.0, 1.0, 0.22)):
            piece = lock(
                [
                    (side * 0.95, -0.2),
                    (side * (1.22 + shift), 0.7),
                    (side * (0.8 + shift), drop * 0.6),
                    (side * (0.98 + shift), drop * share),
                ],
                wide,
                root=0.7,
                sharp=3.2,
                n=24,
            )
            paint_lock(pen, piece, colours, lit=who.side)


def paint_tails(pen: Pen, who: Character) -> None:
    """Twintails, a ponytail or a braid, with the tie that holds it."""
    if who.style == "twintails":
        for side in (-1, 1):
            _tail(pen, who, side, root=(side * 1.14, -0.68), high=True)
    elif who.style == "ponytail":
        _tail(pen, who, who.side, root=(who.side * 0.86, -1.14), high=True)


def _tail(pen: Pen, who: Character, side: int, *, root: tuple[float, float], high: bool) -> None:
    rng, colours = Random(who.jitter + side), tone(who.hair_rgb)
    length = {"short_hair": 1.15, "medium_hair": 1.7, "long_hair": 2.9, "very_long_hair": 4.4}[
        who.length
    ]
    x, y = root
    swing = rng.uniform(0.55, 0.85)
    for k, (out, drop, wide) in enumerate(
        ((0.15, 0.92, 0.26), (0.75, 0.86, 0.26), (0.42, 1.0, 0.36))
    ):
        tip = (x + side * (swing * out + 0.3), y + length * drop)
        piece = lock(
            [
                (x, y),
                (x + side * (0.55 + 0.35 * out), y - 0.22),
                (x + side * (swing + 0.35 + 0.4 * (out - 0.4)), y + length * 0.5),
                tip,
            ],
            wide * (0.8 + 0.09 * length),
            root=0.35,
            sharp=3.2,
            n=24,
        )
        paint_lock(pen, piece, colours, lit=who.side, dim=k == 0)
        if k == 2:
            pen.shade(piece.strip(0.3 * who.side, 0.62 * who.side, (0.14, 0.5)), colours.light)
            pen.shade(piece.strip(0.0, 0.12 * who.side, (0.2, 0.42)), colours.light)
    _scrunchie(pen, who, root)


def _scrunchie(pen: Pen, who: Character, at: tuple[float, float]) -> None:
    colours = tone(who.accent)
    for dx, dy, r in ((-0.06, 0.07, 0.12), (0.06, -0.07, 0.12), (0.0, 0.0, 0.13)):
        blob = spline(
            [
                (at[0] + dx - r, at[1] + dy),
                (at[0] + dx, at[1] + dy - r),
                (at[0] + dx + r, at[1] + dy),
                (at[0] + dx, at[1] + dy + r),
                (at[0] + dx - r, at[1] + dy),
            ],
            4,
        )
        pen.fill(blob, colours.base)
        pen.ink(blob, colours.ink, 0.7, start=0.7, end=0.7)


def paint_braid(pen: Pen, who: Character) -> None:
    """A braid over one shoulder: leaf-shaped strands laid crosswise."""
    colours, side = tone(who.hair_rgb), who.side
    length = 6 if who.length == "short_hair" else 9
    for k in range(length, -1, -1):
        y, x = 0.85 + 0.26 * k, side * (0.98 - 0.02 * k)
        for turn in (-1, 1):
            piece = lock(
                [
                    (x + turn * 0.19, y - 0.17),
                    (x + turn * 0.24, y + 0.02),
                    (x + turn * 0.06, y + 0.16),
                    (x - turn * 0.05, y + 0.24),
                ],
                0.14,
                root=0.4,
                n=10,
            )
            pen.fill(piece.outline, colours.base if turn == -side else colours.shade)
            _lines(pen, piece, colours.ink)
    y = 0.85 + 0.26 * (length + 0.8)
    end = lock(
        [(side * 0.82, y), (side * 0.85, y + 0.1), (side * 0.84, y + 0.3), (side * 0.74, y + 0.5)],
        0.15,
        root=0.5,
    )
    paint_lock(pen, end, colours, lit=side)
    _scrunchie(pen, who, (side * 0.82, y))


def _gleam(pen: Pen, piece: Lock, colours: Tone, rng: Random, t: float) -> None:
    teeth = [0.5 + 0.5 * (k % 2) + rng.uniform(-0.2, 0.3) for k in range(6)]
    pen.shade(piece.zigzag(t, 0.045, teeth), colours.light)


def _fringe(who: Character, rng: Random) -> list[Lock]:
    part = who.side * rng.uniform(0.08, 0.3)
    count = {"blunt": 7, "parted": 6}.get(who.fringe, rng.choice((5, 6, 7)))
    pieces = []
    for k in range(count):
        u = 2.0 * (k + 0.5) / count - 1.0
        tip_x = u * 1.0 + rng.uniform(-0.04, 0.04)
        tip_y = -0.16 + 0.1 * abs(u) + rng.uniform(-0.08, 0.05)
        sharp, wide = 2.4, 1.28 / count
        if who.fringe == "blunt":
            tip_y, sharp, wide = -0.1 + 0.04 * abs(u), 9.0, 1.2 / count
        elif who.fringe == "swept":
            tip_x += 0.17 * who.side * (1 - abs(u))
            tip_y += -0.05 * u * who.side
        elif who.fringe == "parted":
            away = tip_x - part
            tip_x += 0.28 * (1 if away > 0 else -1) * max(0.0, 1 - abs(away))
            tip_y -= 0.3 * max(0.0, 0.45 - abs(away))
        elif abs(u) < 0.3:
            tip_y += 0.16  # the lock between the eyes may hang lower than those above them
        bend = rng.uniform(-0.09, 0.09) if who.fringe != "blunt" else 0.0
        root_x = part * (1 - abs(u) * 0.4) + u * 0.2
        pieces.append(
            lock(
                [
                    (root_x, CROWN + 0.1),
                    (tip_x * 1.02 + u * 0.08, -1.12),
                    (tip_x * 1.05 - bend, -0.6),
                    (tip_x + 0.5 * bend, tip_y),
                ],
                wide,
                root=0.45,
                sharp=sharp,
                n=20,
            )
        )
    return sorted(pieces, key=lambda piece: -abs(float(piece.spine[-1][0])))


def cap_outline() -> Points:
    """The hair's dome over the forehead, open below."""
    return spline(
        [
            (-1.12, 0.05),
            (-1.13, -0.4),
            (-0.92, -0.98),
            (-0.48, -1.26),
            (0.0, CROWN - 0.04),
            (0.48, -1.26),
            (0.92, -0.98),
            (1.13, -0.4),
            (1.12, 0.05),
        ],
        6,
    )


def paint_fringe_shadow(pen: Pen, who: Character, face: Points, shade: RGB) -> None:
    """The fringe's shadow on the forehead; it belongs onto the bare face."""
    if pen.canvas.line_art:
        return
    band = [
        (-1.1, -1.1),
        (1.1, -1.1),
        (1.1, -0.1),
        (0.84, -0.32),
        (0.4, -0.42),
        (-0.4, -0.42),
        (-0.84, -0.32),
        (-1.1, -0.1),
    ]
    cheek = points([(1.1, -0.5), (0.88, -0.3), (0.87, 0.3), (0.84, 0.62), (1.1, 0.7)])
    locks = [
        moved(piece.outline, 0.03 * who.side, 0.085)
        for piece in _fringe(who, Random(who.jitter + 7))
    ]
    shapes = [*locks, points(band), cheek, cheek * (-1.0, 1.0)]
    pen.clip(face).fill_all([pen.px(shape) for shape in shapes], shade)


def paint_front(pen: Pen, who: Character) -> None:
    """The cap with its ring of light, the side locks and the fringe."""
    rng, colours = Random(who.jitter + 7), tone(who.hair_rgb)
    fringe = _fringe(who, rng)
    dome = cap_outline()
    brow = bezier([(1.0, -0.2), (0.8, -0.5), (0.4, -0.62), (0.0, -0.62)], 10)
    lower = points([*brow, *(brow[::-1] * (-1.0, 1.0))])
    _side_locks(pen, who, rng, colours)
    pen.fill([*dome, *lower], colours.base)
    for piece in fringe:
        pen.fill(piece.outline, colours.base)
        pen.shade(piece.wedge(-0.98 * who.side, -0.05 * who.side, (0.42, 1.0)), colours.shade)
        pen.ink(piece.edge(0.35 * who.side)[9:-3], colours.shade, 0.8, start=0, end=0)
        _gleam(pen, piece, colours, rng, 0.5)
        pen.shade(piece.zigzag(0.5, 0.02, [1.0, 0.5, 1.2, 0.6, 1.0]), colours.glint)
        _lines(pen, piece, colours.ink, (0.55, 1.0))
    pen.ink(dome, colours.ink, 1.15, start=0.5, end=0.5)
    _strands(pen, rng, colours)


def _strands(pen: Pen, rng: Random, colours: Tone) -> None:
    for u in (-0.8, -0.5, -0.22, 0.2, 0.48, 0.8):
        u += rng.uniform(-0.06, 0.06)
        line = bezier(
            [(u * 0.35, CROWN + 0.06), (u * 0.8, -1.2), (u * 1.1, -1.0), (u * 1.2, -0.78)], 10
        )
        pen.ink(line, colours.shade, 0.9, start=0.2, end=0.0)


def _side_locks(pen: Pen, who: Character, rng: Random, colours: Tone) -> None:
    reach = {"short_hair": 0.78, "medium_hair": 1.25, "long_hair": 1.7, "very_long_hair": 1.9}[
        who.length
    ]
    for side in (-1, 1):
        drop = reach + rng.uniform(-0.15, 0.15)
        for shift, share, wide in ((0.16, 0.86, 0.17), (0.0, 1.0, 0.19)):
            piece = lock(
                [
                    (side * 0.6, -0.88),
                    (side * (1.16 + shift), -0.55),
                    (side * (1.02 + shift), 0.25),
                    (side * (0.86 + shift * 0.8), drop * share),
                ],
                wide,
                root=0.5,
                sharp=2.4,
                n=22,
            )
            paint_lock(pen, piece, colours, lit=who.side, span=(0.3, 1.0))


def paint_ahoge(pen: Pen, who: Character) -> None:
    """The one lock that will not lie flat."""
    colours, s = tone(who.hair_rgb), who.side
    piece = lock(
        [
            (s * 0.04, CROWN + 0.06),
            (-s * 0.04, CROWN - 0.4),
            (s * 0.36, CROWN - 0.56),
            (s * 0.5, CROWN - 0.2),
        ],
        0.085,
        root=0.7,
    )
    paint_lock(pen, piece, colours, lit=s)
