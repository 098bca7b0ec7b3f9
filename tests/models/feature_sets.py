"""Made-up features for the metrics: two sets that differ as fakes and reals do, and memmaps."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.floating[Any]]


def feature_sets(
    fakes: int = 240, reals: int = 300, *, width: int = 48, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns fakes [N,F] and reals [M,F], positive and unevenly spread, as after a relu."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) / np.sqrt(width)
    spread = np.geomspace(2, 0.2, width)
    real = np.abs((rng.normal(size=(reals, width)) * spread) @ mixing + 0.3)
    fake = np.abs((rng.normal(size=(fakes, width)) * spread * 0.9) @ mixing + 0.36)
    return fake.astype(np.float32), real.astype(np.float32)


def on_disk(features: Numbers, path: Path) -> Numbers:
    """Returns the same features as a read-only memmap."""
    held = np.memmap(path, dtype=features.dtype, mode="w+", shape=features.shape)
    held[:] = features
    held.flush()
    return np.memmap(path, dtype=features.dtype, mode="r", shape=features.shape)
