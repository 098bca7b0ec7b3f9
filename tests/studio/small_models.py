"""Opened models of small random weights, as a source would give them."""

import numpy as np

from models.io.generators import generator_digest
from models.labels import label_rows
from studio.model_source import OpenModel
from tests.models.small_generators import small_generator

LABELS = (
    *("long_hair", "blonde_hair", "red_hair", "black_hair"),
    *("ahoge", "ponytail", "blue_eyes", "red_eyes", "halo", "smile"),
)
ROWS = (
    ("long_hair", "blonde_hair", "blue_eyes"),
    ("red_hair", "ahoge", "ponytail", "red_eyes", "halo"),
    ("blonde_hair", "black_hair", "smile"),  # two colours, as real pictures have them
    (),
)


def small_model(family: str, *, labels: tuple[str, ...] = LABELS, limits: str = "") -> OpenModel:
    """Returns a model that draws 64 px (dcgan64) or 16 px (stylegan2)."""
    generator = small_generator(family, labels=labels)
    rows = [[label for label in row if label in labels] for row in ROWS]
    typical = label_rows(rows, labels) if labels else np.zeros((1, 0), np.float32)
    digest = generator_digest(generator)
    key = f"sha256:{digest[:16]}"
    return OpenModel(generator, typical, f"small {family}", "", key, digest, "", limits)
