"""Backdrops behind characters, painted at the final size, and sceneries without anybody."""

from math import sin
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo.painter.canvas import SUPERSAMPLE, Drawing
from demo.painter.colours import RGB, WHITE, mix

# Mid-tones, all darker than skin: the face is to be the brightest large thing in a picture, which
# suits the eye and the cascade alike (it looks at equalised grey).
SOFT: tuple[tuple[RGB, RGB], ...] = (
    ((250, 206, 200), (236, 152, 164)),
    ((190, 218, 246), (120, 166, 226)),
    ((216, 202, 244), (160, 142, 214)),
    ((196, 230, 208), (122, 190, 172)),
    ((250, 224, 170), (240, 178, 118)),
    ((240, 200, 226), (178, 158, 222)),
    ((186, 228, 232), (104, 178, 196)),
    ((196, 204, 222), (124, 136, 170)),
)


def vertical(size: tuple[int, int], stops: list[tuple[float, RGB]]) -> Image.Image:
    """A gradient from top to bottom; stops are (share of height, colour)."""
    rows = np.linspace(0.0, 1.0, size[1])
    at = [s for s, _ in stops]
    column = np.stack([np.interp(rows, at, [c[k] for _, c in stops]) for k in range(3)], axis=1)
    return Image.fromarray(column.astype(np.uint8)[:, None, :]).resize(
        size, Image.Resampling.NEAREST
    )


def dots(
    image: Image.Image, spots: list[tuple[float, float, float]], colour: RGB, opacity: float
) -> None:
    """Translucent discs (x, y, radius) laid over the picture together."""
    mask = Image.new("L", image.size, 0)
    draw = ImageDraw.Draw(mask)
    for x, y, r in spots:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=round(255 * opacity))
    image.paste(colour, (0, 0), mask)


def backdrop(kind: str, size: tuple[int, int], palette: int, rng: Random) -> Image.Image:
    """The backdrop at the canvas's size for a final picture of the given size."""
    pale, full = SOFT[palette % len(SOFT)]
    image = _KINDS[kind](size, pale, full, rng)
    return image.resize((size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE), Image.Resampling.NEAREST)


def _simple(size: tuple[int, int], pale: RGB, full: RGB, rng: Random) -> Image.Image:
    image = Image.new("RGB", size, mix(pale, full, 0.55))
    w, h = size
    if rng.random() < 0.6:  # a large quiet figure behind the head
        r = 0.42 * w
        dots(image, [(w * 0.5, h * 0.42, r)], pale, 1.0)
        dots(image, [(w * 0.5, h * 0.42, r * 0.9)], full, 0.35)
    return image


def _white(size: tuple[int, int], pale: RGB, full: RGB, rng: Random) -> Image.Image:
    return Image.new("RGB", size, (253, 253, 254))


def _gradient(size: tuple[int, int], pale: RGB, full: RGB, rng: Random) -> Image.Image:
    return vertical(size, [(0.0, full), (0.7, pale), (1.0, mix(pale, WHITE, 0.25))])


def _sky(size: tuple[int, int], pale: RGB, full: RGB, rng: Random) -> Image.Image:
    w, h = size
    top, low = rng.choice(
        [
            ((92, 164, 240), (206, 236, 255)),
            ((120, 150, 236), (255, 224, 214)),
            ((76, 190, 232), (224, 250, 248)),
        ]
    )
    image = vertical(size, [(0.0, top), (0.75, low), (1.0, mix(low, WHITE, 0.4))])
    for _ in range(4):
        cx, cy, r = rng.uniform(0, w), rng.uniform(0.08, 0.8) * h, rng.uniform(0.06, 0.13) * w
        puffs = [
            (
                cx + (k - 3) * r * 0.62,
                cy - r * 0.5 * (1 - abs(k - 3) / 3) + rng.uniform(-0.2, 0.2) * r,
                r * (1.05 - 0.2 * abs(k - 3)),
            )
            for k in range(7)
        ]
        dots(image, [(x, y + r * 0.25, q) for x, y, q in puffs], mix(low, top, 0.25), 0.8)
        dots(image, puffs, (253, 254, 255), 0.95)
    return image


def _bokeh(size: tuple[int, int], pale: RGB, full: RGB, rng: Random) -> Image.Image:
    w, h = size
    dark = mix(full, (70, 60, 120), 0.45)
    image = vertical(size, [(0.0, dark), (1.0, mix(full, pale, 0.3))])
    for colour in (pale, full, (255, 244, 214)):
        spots = [
            (rng.uniform(0, w), rng.uniform(0, h), rng.uniform(0.02, 0.09) * w) for _ in range(9)
        ]
        dots(image, spots, colour, rng.uniform(0.2, 0.45))
    return image


def _night(size: tuple[int, int], pale: RGB, full: RGB, rng: Random) -> Image.Image:
    w, h = size
    image = vertical(size, [(0.0, (24, 26, 66)), (0.6, (70, 62, 130)), (1.0, (186, 120, 160))])
    dots(
        image,
        [(rng.uniform(0, w), rng.uniform(0, h * 0.8), rng.uniform(0.8, 2.2)) for _ in range(110)],
        (255, 252, 236),
        0.8,
    )
    x, y, r = rng.uniform(0.1, 0.9) * w, rng.uniform(0.08, 0.2) * h, 0.07 * w
    dots(image, [(x, y, r * 1.7)], (255, 246, 210), 0.15)
    dots(image, [(x, y, r)], (255, 248, 220), 1.0)
    return image


def _petals(size: tuple[int, int], pale: RGB, full: RGB, rng: Random) -> Image.Image:
    w, h = size
    image = vertical(size, [(0.0, (186, 220, 250)), (0.6, (255, 232, 240)), (1.0, (250, 200, 218))])
    for colour in ((250, 190, 210), (255, 214, 228)):
        for _ in range(3):
            cx, cy = rng.choice((0.0, 1.0)) * w, rng.uniform(0.0, 0.45) * h
            dots(
                image,
                [
                    (
                        cx + rng.gauss(0, 0.16) * w,
                        cy + rng.gauss(0, 0.07) * h,
                        rng.uniform(0.02, 0.06) * w,
                    )
                    for _ in range(12)
                ],
                colour,
                0.75,
            )
    draw = ImageDraw.Draw(image)
    for _ in range(26):
        x, y, r = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(0.008, 0.02) * w
        lean = rng.uniform(-1, 1) * r
        draw.polygon(
            [(x - r, y + lean), (x, y - r * 0.7), (x + r, y - lean), (x, y + r * 0.7)],
            fill=(255, 176, 202),
        )
    return image.filter(ImageFilter.GaussianBlur(1.2))


def _room(size: tuple[int, int], pale: RGB, full: RGB, rng: Random) -> Image.Image:
    w, h = size
    wall = mix(pale, (232, 220, 206), 0.5)
    image = vertical(size, [(0.0, mix(wall, (120, 110, 130), 0.16)), (1.0, wall)])
    draw = ImageDraw.Draw(image)
    x0, x1, y0, y1 = w * rng.uniform(0.02, 0.2), w * rng.uniform(0.6, 0.98), h * 0.08, h * 0.6
    draw.rectangle((x0 - 6, y0 - 6, x1 + 6, y1 + 6), fill=(250, 247, 240))
    pane = vertical((int(x1 - x0), int(y1 - y0)), [(0.0, (150, 204, 246)), (1.0, (236, 248, 252))])
    image.paste(pane, (int(x0), int(y0)))
    hills = [(x0 + (x1 - x0) * k / 6, y1 - (y1 - y0) * rng.uniform(0.08, 0.28)) for k in range(7)]
    draw.polygon([*hills, (x1, y1), (x0, y1)], fill=(150, 198, 160))
    mid = (x0 + x1) / 2
    draw.rectangle((mid - 4, y0, mid + 4, y1), fill=(250, 247, 240))
    draw.rectangle((x0, (y0 + y1) / 2 - 3, x1, (y0 + y1) / 2 + 3), fill=(250, 247, 240))
    for edge, way in ((x0, -1), (x1, 1)):
        drape = [
            (edge - way * w * 0.07, y0 - 8),
            (edge + way * w * 0.12, y0 - 8),
            (edge + way * w * 0.12, y1 + h * 0.1),
            (edge + way * w * 0.01, y1 + h * 0.1),
        ]
        draw.polygon(drape, fill=mix(full, WHITE, 0.25))
    draw.rectangle((0, h * 0.78, w, h), fill=mix(wall, (140, 96, 70), 0.45))
    return image.filter(ImageFilter.GaussianBlur(2.2))


def _pattern(size: tuple[int, int], pale: RGB, full: RGB, rng: Random) -> Image.Image:
    w, h = size
    image = Image.new("RGB", size, mix(pale, full, 0.35))
    step = rng.uniform(0.09, 0.15) * w
    draw = ImageDraw.Draw(image)
    kind = rng.choice(("dots", "stripes", "checks"))
    if kind == "stripes":
        for k in range(int((w + h) / step) + 1):
            x = k * step - h
            draw.polygon(
                [(x, 0), (x + step * 0.45, 0), (x + h + step * 0.45, h), (x + h, h)],
                fill=mix(pale, full, 0.8),
            )
    else:
        for row in range(int(h / step) + 2):
            for col in range(int(w / step) + 2):
                x, y = (col + 0.5 * (row % 2)) * step, row * step
                if kind == "dots":
                    draw.ellipse(
                        (x - step * 0.2, y - step * 0.2, x + step * 0.2, y + step * 0.2),
                        fill=mix(pale, full, 0.8),
                    )
                elif (row + col) % 2:
                    draw.rectangle(
                        (col * step, y, (col + 1) * step, y + step), fill=mix(pale, full, 0.5)
                    )
    return image


_KINDS = {
    "simple": _simple,
    "white": _white,
    "gradient": _gradient,
    "sky": _sky,
    "bokeh": _bokeh,
    "night": _night,
    "petals": _petals,
    "room": _room,
    "pattern": _pattern,
}


SKIES: tuple[tuple[RGB, RGB], ...] = (
    ((92, 164, 240), (222, 240, 255)),
    ((120, 120, 220), (255, 206, 186)),
    ((240, 140, 120), (255, 226, 176)),
    ((70, 180, 214), (232, 250, 240)),
)


def draw_scenery(seed: int) -> Drawing:
    """A picture with no face in it, the same for one seed."""
    rng = Random(f"scenery {seed}")
    kind = rng.choice(sorted(_SCENES))
    size = (rng.randint(640, 900), rng.randint(500, 680))
    large = (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE)
    image = _SCENES[kind](large, rng).reduce(SUPERSAMPLE)
    tags = tuple(sorted({"no_humans", "scenery", *_TAGS[kind]}))
    return Drawing(image=image, tags=tags, characters=(), faces=())


def _clouds(image: Image.Image, rng: Random, low: RGB) -> None:
    w, h = image.size
    for _ in range(5):
        cx, cy, r = rng.uniform(0, w), rng.uniform(0.05, 0.4) * h, rng.uniform(0.03, 0.07) * w
        puffs = []
        for k in range(7):
            rise = r * 0.5 * (1 - abs(k - 3) / 3)
            puffs.append((cx + (k - 3) * r * 0.62, cy - rise, r * (1.05 - 0.22 * abs(k - 3))))
        dots(image, [(x, y + r * 0.2, q) for x, y, q in puffs], mix(low, (150, 160, 210), 0.2), 0.8)
        dots(image, puffs, (254, 254, 255), 0.95)


def _ridge(w: int, y: float, height: float, rng: Random) -> list[tuple[float, float]]:
    a, b, c = (rng.uniform(0, 6.3) for _ in range(3))
    line = []
    for k in range(61):
        x = k / 60
        swell = 0.5 * sin(4 * x + a) + 0.3 * sin(9 * x + b) + 0.12 * sin(23 * x + c)
        line.append((x * w, y - height * (0.5 + 0.5 * swell)))
    return line


def _hills(size: tuple[int, int], rng: Random) -> Image.Image:
    w, h = size
    top, low = rng.choice(SKIES)
    image = vertical(size, [(0.0, top), (0.65, low), (1.0, low)])
    _clouds(image, rng, low)
    draw = ImageDraw.Draw(image)
    near: RGB = rng.choice(((88, 168, 96), (120, 176, 92), (92, 156, 120)))
    for k in range(5):
        ridge = _ridge(w, h * (0.56 + 0.1 * k), h * 0.16, rng)
        draw.polygon([*ridge, (w, h), (0, h)], fill=mix(mix(low, top, 0.4), near, (k + 1) / 5))
    for _ in range(14):
        _tree(
            draw, (rng.uniform(0, w), rng.uniform(0.8, 0.97) * h), h * rng.uniform(0.07, 0.13), near
        )
    return image


def _tree(draw: ImageDraw.ImageDraw, at: tuple[float, float], r: float, green: RGB) -> None:
    x, y = at
    draw.polygon(
        [(x - r * 0.07, y), (x + r * 0.07, y), (x + r * 0.04, y - r), (x - r * 0.04, y - r)],
        fill=(110, 78, 70),
    )
    dark = mix(green, (40, 60, 90), 0.35)
    for dx, dy, q, colour in (
        (0, -1.1, 0.5, dark),
        (-0.25, -0.95, 0.36, dark),
        (0.25, -0.9, 0.36, dark),
        (-0.1, -1.25, 0.36, green),
        (0.12, -1.05, 0.26, green),
    ):
        draw.ellipse(
            (x + (dx - q) * r, y + (dy - q) * r, x + (dx + q) * r, y + (dy + q) * r), fill=colour
        )


def _sea(size: tuple[int, int], rng: Random) -> Image.Image:
    w, h = size
    top, low = rng.choice(SKIES)
    image = vertical(
        size, [(0.0, top), (0.55, low), (0.56, mix(top, (30, 90, 160), 0.5)), (1.0, (90, 190, 210))]
    )
    _clouds(image, rng, low)
    draw = ImageDraw.Draw(image)
    for _ in range(120):
        y = rng.uniform(0.57, 0.84) * h
        x, reach = rng.uniform(0, w), (y / h - 0.5) * 0.2 * w * rng.random()
        draw.line([(x - reach, y), (x + reach, y)], fill=(206, 238, 248), width=3)
    shore = _ridge(w, h * 0.9, h * 0.07, rng)
    draw.polygon([*[(x, y - h * 0.02) for x, y in shore], (w, h), (0, h)], fill=(240, 250, 252))
    draw.polygon([*shore, (w, h), (0, h)], fill=(246, 226, 186))
    return image


def _town(size: tuple[int, int], rng: Random) -> Image.Image:
    w, h = size
    image = vertical(size, [(0.0, (20, 24, 62)), (0.6, (80, 66, 136)), (1.0, (214, 130, 150))])
    stars = [
        (rng.uniform(0, w), rng.uniform(0, 0.6) * h, rng.uniform(1.2, 2.8)) for _ in range(120)
    ]
    dots(image, stars, (255, 252, 236), 0.85)
    dots(image, [(w * rng.uniform(0.15, 0.85), h * 0.18, w * 0.035)], (255, 248, 220), 1.0)
    draw = ImageDraw.Draw(image)
    for layer, colour in ((0.5, (58, 52, 104)), (0.64, (38, 34, 74))):
        x = -20.0
        while x < w:
            wide, top = rng.uniform(0.05, 0.11) * w, h * (layer + rng.uniform(-0.12, 0.12))
            draw.rectangle((x, top, x + wide, h), fill=colour)
            for row in range(int((h - top) / 34)):
                for col in range(int(wide / 30)):
                    if rng.random() < 0.3:
                        px, py = x + 10 + col * 30, top + 12 + row * 34
                        draw.rectangle((px, py, px + 11, py + 15), fill=(255, 220, 140))
            x += wide + 6
    return image


def _table(size: tuple[int, int], rng: Random) -> Image.Image:
    w, h = size
    wall: RGB = rng.choice(((236, 226, 214), (214, 226, 236), (232, 220, 236)))
    image = vertical(
        size,
        [
            (0.0, mix(wall, (110, 110, 150), 0.25)),
            (0.62, wall),
            (0.62, (176, 124, 92)),
            (1.0, (140, 92, 70)),
        ],
    )
    draw = ImageDraw.Draw(image)
    x, y, r = w * rng.uniform(0.25, 0.4), h * 0.74, h * 0.14
    glaze: RGB = rng.choice(((96, 148, 214), (226, 120, 130), (120, 184, 150)))
    draw.polygon(
        [
            (x - r * 0.5, y - r * 1.7),
            (x + r * 0.5, y - r * 1.7),
            (x + r, y - r * 0.4),
            (x + r * 0.6, y + r),
            (x - r * 0.6, y + r),
            (x - r, y - r * 0.4),
        ],
        fill=glaze,
    )
    for _ in range(9):
        fx, fy = x + rng.uniform(-1.4, 1.4) * r, y - r * rng.uniform(2.1, 3.8)
        draw.line([(x, y - r * 1.7), (fx, fy)], fill=(96, 150, 96), width=6)
        petal: RGB = rng.choice(((250, 190, 206), (252, 226, 140), (236, 240, 252)))
        for dx, dy in ((0, -1), (0.95, -0.3), (0.6, 0.8), (-0.6, 0.8), (-0.95, -0.3)):
            cx, cy, q = fx + dx * r * 0.2, fy + dy * r * 0.2, r * 0.19
            draw.ellipse((cx - q, cy - q, cx + q, cy + q), fill=petal)
        draw.ellipse((fx - r * 0.1, fy - r * 0.1, fx + r * 0.1, fy + r * 0.1), fill=(240, 170, 80))
    for k in range(rng.randint(2, 4)):
        fruit: RGB = rng.choice(((226, 78, 70), (246, 168, 62), (150, 190, 80)))
        cx, cy, q = w * (0.58 + 0.11 * k), h * (0.82 + 0.03 * (k % 2)), h * 0.075
        draw.ellipse((cx - q, cy + q * 0.6, cx + q, cy + q * 1.15), fill=(110, 70, 58))
        draw.ellipse((cx - q, cy - q, cx + q, cy + q), fill=fruit)
        draw.chord((cx - q, cy - q, cx + q, cy + q), 20, 160, fill=mix(fruit, (90, 30, 60), 0.25))
        draw.line([(cx, cy - q * 0.8), (cx + q * 0.2, cy - q * 1.35)], fill=(96, 70, 56), width=6)
    return image


_SCENES = {"hills": _hills, "sea": _sea, "town": _town, "table": _table}
_TAGS: dict[str, tuple[str, ...]] = {
    "hills": ("cloud", "day", "hill", "outdoors", "sky", "tree"),
    "sea": ("beach", "cloud", "day", "horizon", "ocean", "outdoors", "sky"),
    "town": (
        "building",
        "city_lights",
        "cityscape",
        "moon",
        "night",
        "night_sky",
        "outdoors",
        "star_(sky)",
    ),
    "table": ("flower", "food", "fruit", "indoors", "still_life", "vase"),
}
