"""Keeps small, delicate sums in float32 while the convolutions around them run in bfloat16."""

import contextlib

import torch
from torch import Tensor


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Returns a context without autocast on x's device.

    Where no autocast is on, it is an empty one: an exported program then holds no trace of it.
    """
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()
