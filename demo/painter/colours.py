"""Colours: the palettes of hair, eyes, skin and cloth, and the tones that shade them."""

import colorsys
from dataclasses import dataclass
from functools import lru_cache

RGB = tuple[int, int, int]

WHITE: RGB = (255, 255, 255)
LASH: RGB = (46, 30, 44)

HAIR: dict[str, RGB] = {
    "blonde_hair": (250, 214, 108),
    "brown_hair": (150, 94, 58),
    "black_hair": (58, 54, 72),
    "blue_hair": (82, 136, 232),
    "pink_hair": (255, 152, 192),
    "purple_hair": (156, 104, 218),
    "red_hair": (216, 58, 62),
    "green_hair": (88, 184, 112),
    "white_hair": (230, 233, 246),
    "grey_hair": (150, 155, 170),
}
EYES: dict[str, RGB] = {
    "blue_eyes": (64, 140, 240),
    "red_eyes": (232, 52, 66),
    "brown_eyes": (166, 96, 50),
    "green_eyes": (62, 180, 96),
    "purple_eyes": (158, 84, 226),
    "yellow_eyes": (246, 192, 44),
    "pink_eyes": (248, 112, 176),
    "aqua_eyes": (64, 206, 214),
}
SKIN: tuple[RGB, ...] = (
    (255, 240, 230),
    (255, 235, 221),
    (255, 230, 214),
    (253, 224, 203),
    (250, 214, 188),
)
CLOTH: tuple[RGB, ...] = (
    (70, 92, 150),
    (60, 64, 84),
    (186, 70, 84),
    (240, 170, 186),
    (122, 178, 214),
    (152, 192, 174),
    (250, 226, 170),
    (164, 132, 204),
    (236, 236, 240),
    (140, 104, 88),
    (232, 160, 128),
)
SCHOOL: tuple[RGB, ...] = ((247, 247, 251), (247, 247, 251), (62, 72, 116), (68, 66, 84))
ACCENT: tuple[RGB, ...] = (
    (222, 60, 78),
    (72, 122, 216),
    (250, 196, 72),
    (246, 132, 176),
    (96, 188, 146),
    (142, 104, 206),
    (250, 250, 252),
)


def clamp(value: float) -> int:
    """A channel as a whole number in 0..255."""
    return max(0, min(255, round(value)))


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """A with the given share (0..1) of b."""
    return (
        clamp(a[0] + (b[0] - a[0]) * share),
        clamp(a[1] + (b[1] - a[1]) * share),
        clamp(a[2] + (b[2] - a[2]) * share),
    )


def shifted(colour: RGB, *, hue: float = 0.0, saturation: float = 0.0, value: float = 1.0) -> RGB:
    """The colour with its hue turned (in turns), saturation added to and value multiplied."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    s = max(0.0, min(1.0, s + saturation))
    r, g, b = colorsys.hsv_to_rgb((h + hue) % 1.0, s, max(0.0, min(1.0, v * value)))
    return clamp(r * 255), clamp(g * 255), clamp(b * 255)


@dataclass(frozen=True)
class Tone:
    """One material under one light: from its ink to its highlight."""

    base: RGB
    shade: RGB
    deep: RGB
    light: RGB
    glint: RGB
    ink: RGB


@lru_cache(maxsize=512)
def tone(base: RGB) -> Tone:
    """The tones of a flat colour. Shadows turn cooler and richer, as in painted cels."""
    hue = colorsys.rgb_to_hsv(*(c / 255 for c in base))[0]
    # violet shadows turn yellow and orange muddy; those darken through red instead
    cool: RGB = (
        (214, 84, 74) if 0.03 < hue < 0.19 and max(base) - min(base) > 60 else (104, 84, 168)
    )
    luma = 0.3 * base[0] + 0.59 * base[1] + 0.11 * base[2]
    pale = max(0.0, (luma - 215) / 40)  # pale things need fainter shadows to stay pale
    shade = mix(shifted(base, saturation=0.06, value=0.86), cool, 0.17 - 0.06 * pale)
    deep = mix(shifted(base, saturation=0.09, value=0.68), cool, 0.24 - 0.04 * pale)
    light = mix(base, WHITE, 0.28)
    glint = mix(base, WHITE, 0.66 if luma > 90 else 0.42)
    ink = mix(shifted(base, saturation=0.12, value=0.36), (52, 24, 60), 0.35)
    return Tone(base, shade, deep, light, glint, ink)


@lru_cache(maxsize=32)
def skin_tone(base: RGB) -> Tone:
    """The tones of skin, whose shadows are warm and whose ink is brown."""
    return Tone(
        base=base,
        shade=mix(base, (226, 132, 128), 0.34),
        deep=mix(base, (190, 96, 108), 0.50),
        light=mix(base, WHITE, 0.5),
        glint=WHITE,
        ink=mix(shifted(base, saturation=0.25, value=0.44), (92, 30, 44), 0.35),
    )
