"""Trains families one after the other, in as many processes as torchrun starts.

`torchrun --nproc-per-node 2 -m tests.models.train_on_ranks HOME STEPS FAMILY…`
"""

import dataclasses
import sys
from pathlib import Path

import torch

from models.training import distributed
from tests.models.small_families import heads, narrow
from tests.models.training import trained


def main(home: Path, steps: int, families: list[str]) -> None:
    """Trains each family below home/FAMILY."""
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
        trained(home, heads(config.resolution_px), config, out=family)
    if joined:
        distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
