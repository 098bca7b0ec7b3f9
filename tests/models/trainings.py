"""Trainings of seconds: every family at its narrowest, in this process or in torchrun's.

`torchrun --nproc-per-node 2 -m tests.models.trainings HOME STEPS FAMILY…`
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dataset.store import Store
from models.config import TrainConfig
from models.presets import PRESETS
from models.training import distributed
from models.training.data import TrainingSet
from models.training.loop import train
from models.training.progress_log import NoTracker
from tests.models.homes import training_set

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


@contextlib.contextmanager
def double() -> Iterator[None]:
    """Computes in float64: what differs is then no rounding, which is 4e-6 in float32."""
    before = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        yield
    torch.set_default_dtype(before)


def train_on_ranks(home: Path, steps: int, families: list[str]) -> None:
    """Trains each family below home/FAMILY, in as many processes as torchrun starts."""
    torch.set_num_threads(1)
    joined = distributed.join(torch.device("cpu"))
    for family in families:
        # Adam's usual 1e-8 makes whole steps of gradients that are all rounding, such as those of
        # weights before a norm: 20 steps then tell nothing of whether the gradients are the same.
        config = narrow(
            family, total_kimg=steps * 8 / 1000, snapshot_kimg=1.0, adam_eps=1e-3, aug_p=0.5
        )
        if family == "srresnet":
            # So deep and narrow, it is chaotic: at 2e-4 the last bits grow 2.5-fold a step.
            config = dataclasses.replace(config, lr_g=2e-5, lr_d=2e-5)
        # Rounding puts the first gradients of omokage's G 2e-3 apart, and steps put that further.
        with double() if family == "omokage" else contextlib.nullcontext():
            trained(home, heads(config.resolution_px), config, out=family)
    if joined:
        distributed.leave()


if __name__ == "__main__":
    train_on_ranks(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
