"""Drawn heads whose colours vary within their names: something that a tagger has to learn."""

import colorsys

import cv2
import numpy as np
import numpy.typing as npt

HAIR = {
    "blonde_hair": (0.13, 0.6, 0.92),
    "blue_hair": (0.61, 0.65, 0.8),
    "brown_hair": (0.07, 0.6, 0.42),
    "pink_hair": (0.94, 0.4, 0.95),
    "green_hair": (0.36, 0.55, 0.65),
}
EYES = {"red_eyes": (0.99, 0.8, 0.8), "green_eyes": (0.38, 0.8, 0.6)}
ORNAMENT = "hair_ornament"
LABELS = (*HAIR, *EYES, ORNAMENT)
_WEIGHTS = (0.35, 0.25, 0.2, 0.12, 0.08)  # of the hair colours


def drawn_heads(
    count: int, *, seed: int, side_px: int = 48
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Draws heads [N,S,S,3] with their labels [N,L]; all else is left to chance."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, side_px, side_px, 3), np.uint8)
    labels = np.zeros((count, len(LABELS)), bool)
    for row in range(count):
        hair = int(rng.choice(len(HAIR), p=_WEIGHTS))
        eyes = int(rng.integers(len(EYES)))
        ornament = bool(rng.random() < 0.3)
        images[row] = _head(rng, side_px, hair=hair, eyes=eyes, ornament=ornament)
        labels[row, [hair, len(HAIR) + eyes]] = True
        labels[row, -1] = ornament
    return images, labels


def _head(
    rng: np.random.Generator, side: int, *, hair: int, eyes: int, ornament: bool
) -> npt.NDArray[np.uint8]:
    big: npt.NDArray[np.uint8] = np.empty((128, 128, 3), np.uint8)
    big[:] = _colour(rng, (float(rng.random()), 0.3, 0.9))
    x, y = 64 + int(rng.integers(-8, 9)), 66 + int(rng.integers(-6, 7))
    strands = _colour(rng, list(HAIR.values())[hair])
    cv2.ellipse(big, (x, y - 4), (46, 54), 0, 0, 360, strands, -1)
    cv2.ellipse(big, (x, y + 12), (32, 36), 0, 0, 360, (252, 226, 208), -1)
    iris = _colour(rng, list(EYES.values())[eyes])
    for at in (x - 14, x + 14):
        cv2.ellipse(big, (at, y + 12), (8, 11), 0, 0, 360, iris, -1)
        cv2.circle(big, (at, y + 12), 3, (20, 16, 24), -1)
    if ornament:
        place = (x + int(rng.choice([-26, 26])), y - 30)
        cv2.circle(big, place, 10, (250, 250, 250), -1)
        cv2.circle(big, place, 5, (220, 40, 60), -1)
    noisy = np.asarray(cv2.resize(big, (side, side), interpolation=cv2.INTER_AREA), np.float64)
    noise = rng.normal(0, 6, noisy.shape)
    return np.clip(noisy + noise, 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator, hsv: tuple[float, float, float]) -> list[int]:
    spread = rng.normal(0, 1, 3) * (0.012, 0.08, 0.08)
    hue, saturation, value = (np.array(hsv) + spread).tolist()
    rgb = colorsys.hsv_to_rgb(
        hue % 1, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0, 1))
    )
    return [round(255 * part) for part in rgb]
