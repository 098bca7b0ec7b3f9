"""Several processes as one: who this one is, its share of a batch, sums and means over all.

Every rank draws the randomness of the whole batch and takes its own rows, and every mean is over
all ranks; so N ranks learn what one would, up to the rounding of sums in another order.
"""

import os

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import Tensor, nn

from dataset.errors import ConfigError


def rank() -> int:
    """Returns this process's number, from 0; 0 where there is only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Returns the number of processes, at least 1."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank_of_environment() -> int:
    """Returns this process's number as `torchrun` gives it, before the processes have joined."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Returns this process's number on its own machine, as `torchrun` gives it; else 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def join(device: torch.device) -> bool:
    """Joins the processes that `torchrun` started, by nccl on GPUs and by gloo else.

    Returns False, having done nothing, if this process is alone or has joined them already.
    Raises ConfigError if torchrun's variables do not fit together.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 or dist.is_initialized():
        return False
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"the processes of torchrun did not find each other: {error}") from error
    return True


def leave() -> None:
    """Ends the group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def share(rows: Tensor) -> Tensor:
    """Returns this rank's rows of a whole batch [B,…] -> [B / world,…]."""
    size = len(rows) // world()
    return rows[rank() * size : (rank() + 1) * size]


def mean_over_ranks(value: Tensor) -> Tensor:
    """Returns the mean of `value` over all ranks, without gradients."""
    if world() == 1:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world()


def sum_over_ranks(value: Tensor) -> Tensor:
    """Returns the sum of `value` over all ranks; gradients flow back to every rank."""
    if world() == 1:
        return value
    total: Tensor = differentiable.all_reduce(value)  # type: ignore[no-untyped-call]
    return total


def average_gradients(network: nn.Module) -> None:
    """Replaces each parameter's gradient by its mean over the ranks, in one exchange."""
    if world() == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def any_rank(flag: int) -> int:
    """Returns the greatest `flag` (from 0) of all ranks: a signal that reached one stops all."""
    if world() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    greatest = torch.tensor(flag, device=device)
    dist.all_reduce(greatest, op=dist.ReduceOp.MAX)
    return int(greatest)


def wait_for_all() -> None:
    """Returns when every rank has come here."""
    if world() > 1:
        dist.barrier()
