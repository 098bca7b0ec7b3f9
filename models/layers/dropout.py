"""Dropout that is the same however many processes share a batch."""

import torch
from torch import Tensor, nn

from models.training.distributed import rank

_FACTORS = (0x7FEB352D, 0x846CA68B - (1 << 32))  # the second as a signed number of 32 bits
_BITS = 24  # of each element's number that are compared with the chance


class Dropout(nn.Module):
    """Sets elements to 0 with `chance` and scales the others by 1 / (1 - chance), in training.

    A call draws one number from torch's default source on the CPU, whose state checkpoints keep. An
    element falls or stays by a hash of that number and of its place in the batch of all ranks: each
    rank then makes its own rows' mask, on its device. Drawing every element on the CPU
    would leave a GPU waiting: 0.08 s for the 14.7 million of the first layer of `dcgan96`.

    Source: Srivastava et al. 2014, JMLR 15; the factors and shifts of the hash are those that
    C. Wellons's search for 32-bit hashes found (`lowbias32`, public domain).
    """

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, x: Tensor) -> Tensor:
        """Drops elements of x [N,…], which are this rank's rows of the whole batch."""
        if not self.training or self.chance == 0:
            return x
        key = torch.randint(1 << 31, (1,)).to(x.device, torch.int32)
        first = (rank() * x.numel() + (1 << 31)) % (1 << 32) - (1 << 31)  # as 32 bits would have it
        places = torch.arange(x.numel(), dtype=torch.int32, device=x.device) + first
        numbers = _hashed(places + _hashed(key)) & ((1 << _BITS) - 1)
        kept = numbers.view(x.shape) >= round(self.chance * (1 << _BITS))
        return x * kept / (1 - self.chance)


def _hashed(numbers: Tensor) -> Tensor:
    """Mixes whole numbers of 32 bits; each result belongs to one number only."""
    first, second = _FACTORS
    numbers = (numbers ^ (numbers >> 16)) * first
    numbers = (numbers ^ (numbers >> 15)) * second
    return numbers ^ (numbers >> 16)
