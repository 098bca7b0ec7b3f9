"""Every family at its narrowest, on heads at its own side: trainings of seconds."""

import dataclasses

import cv2
import numpy as np

from models.config import TrainConfig
from models.presets import PRESETS
from models.training.data import TrainingSet
from tests.models.conftest import training_set


def narrow(family: str, **changes: object) -> TrainConfig:
    """Returns the family's smoke preset on one thread of the CPU, with changes."""
    fixed = {"threads": 1, "device": "cpu", **changes}
    return dataclasses.replace(PRESETS[f"{family}-smoke"], **fixed)  # type: ignore[arg-type]


def heads(side_px: int, count: int = 48) -> TrainingSet:
    """Returns the drawn heads at a side of side_px."""
    drawn = training_set(count)
    if side_px == drawn.images.shape[-1]:
        return drawn
    resized = [
        cv2.resize(np.ascontiguousarray(image.transpose(1, 2, 0)), (side_px, side_px))
        for image in drawn.images
    ]
    return dataclasses.replace(
        drawn, images=np.stack(resized).astype(np.uint8).transpose(0, 3, 1, 2)
    )
