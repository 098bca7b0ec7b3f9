"""Runs a training in this process, for the tests."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataset.store import Store
from models.config import TrainConfig
from models.presets import PRESETS
from models.training.data import TrainingSet
from models.training.loop import train
from models.training.progress_log import NoTracker

SMOKE = dataclasses.replace(PRESETS["smoke"], threads=1, device="cpu")


def trained(
    home: Path,
    data: TrainingSet,
    config: TrainConfig = SMOKE,
    *,
    out: str = "run",
    report: Callable[[dict[str, Any]], None] = lambda _payload: None,
    stop_signal: Callable[[], int] = lambda: 0,
    continue_from: str = "",
) -> dict[str, Any]:
    """Trains below `home` and returns the summary."""
    return train(
        Store(home),
        out,
        config,
        data=data,
        report=report,
        tracker=NoTracker(),
        stop_signal=stop_signal,
        continue_from=continue_from,
    )
