"""Batch norm and dropout over the whole batch, however many processes share it."""

import torch
from torch import Tensor, nn

from models.layers.equalized import Dense
from models.training.distributed import rank, sum_over_ranks, world

EPSILON = 1e-5
_FACTORS = (0x7FEB352D, 0x846CA68B - (1 << 32))  # the second as a signed number of 32 bits
_BITS = 24  # of each element's number that are compared with the chance


class BatchNorm2d(nn.Module):
    """Batch norm over [N,C,H,W] of all ranks: as torch's own, which shares batches on GPUs only.

    momentum: weight of the newest batch in the running mean and variance. affine: scale and shift
    are learnt; else the norm has none. Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Norms x [N,C,H,W]: by this batch in training, by the running statistics else."""
        if world() == 1 or not self.training:
            normed: Tensor = nn.functional.batch_norm(
                x,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                self.training,
                self.momentum,
                EPSILON,
            )
            return normed
        wide = x.float()  # sums of bfloat16 would lose the small differences
        count = x.numel() // x.shape[1] * world()
        # The mean first: the mean of squares less the squared mean would cancel where it is large.
        mean = sum_over_ranks(wide.sum(dim=(0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = sum_over_ranks(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
        normed = centred * (variance + EPSILON).rsqrt()[:, None, None]
        if self.weight is not None and self.bias is not None:
            normed = normed * self.weight[:, None, None] + self.bias[:, None, None]
        return normed.to(x.dtype)


class ConditionalNorm(nn.Module):
    """Batch norm whose scale and shift are linear in the labels; plain batch norm at labels = 0.

    momentum: as of BatchNorm2d. Without labels it is BatchNorm2d: its bias b is the scale 1 + b[:C]
    and the shift b[C:]. Source: de Vries et al. 2017, arXiv:1707.00683.
    """

    def __init__(self, channels: int, labels: int, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.norm = BatchNorm2d(channels, momentum=momentum, affine=False)
        self.affine = Dense(labels, 2 * channels)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Norms x [N,C,H,W] by its batch, then scales and shifts it by labels [N,L]."""
        scale, shift = self.affine(labels)[:, :, None, None].chunk(2, dim=1)
        normed: Tensor = self.norm(x) * (1 + scale) + shift
        return normed


class Dropout(nn.Module):
    """Sets elements to 0 with `chance` and scales the others by 1 / (1 - chance), in training.

    A call draws one number from the default source of x's device, whose state checkpoints keep. An
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
        key = torch.randint(1 << 31, (1,), device=x.device).to(torch.int32)
        first = (rank() * x.numel() + (1 << 31)) % (1 << 32) - (1 << 31)  # as 32 bits would have it
        numbers = torch.arange(x.numel(), dtype=torch.int32, device=x.device)
        numbers += first
        numbers += _hashed(key)
        _hashed(numbers)
        numbers &= (1 << _BITS) - 1
        kept = numbers.view(x.shape) >= round(self.chance * (1 << _BITS))
        # A float mask: on a CPU a float times a bool takes six times as long.
        return (x * kept.to(x.dtype)).div_(1 - self.chance)


def _hashed(numbers: Tensor) -> Tensor:
    """Mixes whole numbers of 32 bits in place; each result belongs to one number only."""
    first, second = _FACTORS
    numbers ^= numbers >> 16
    numbers *= first
    numbers ^= numbers >> 15
    numbers *= second
    numbers ^= numbers >> 16
    return numbers
