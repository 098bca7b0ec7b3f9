"""Pictures without anybody in them: landscapes, seas, towns by night and still lifes."""

from math import sin
from random import Random

from PIL import Image, ImageDraw

from demo.painter.backdrop import dots, vertical
from demo.painter.canvas import SUPERSAMPLE
from demo.painter.colours import RGB, mix
from demo.painter.drawing import Drawing

SKIES: tuple[tuple[RGB, RGB], ...] = (
    ((92, 164, 240), (222, 240, 255)),
    ((120, 120, 220), (255, 206, 186)),
    ((240, 140, 120), (255, 226, 176)),
    ((70, 180, 214), (232, 250, 240)),
)


def draw_scenery(seed: int) -> Drawing:
    """A picture with no face in it, the same for one seed."""
    rng = Random(f"scenery {seed}")
    kind = rng.choice(sorted(_KINDS))
    size = (rng.randint(640, 900), rng.randint(500, 680))
    large = (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE)
    image = _KINDS[kind](large, rng).reduce(SUPERSAMPLE)
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


_KINDS = {"hills": _hills, "sea": _sea, "town": _town, "table": _table}
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
