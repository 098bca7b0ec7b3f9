"""Where a training runs: its device, and several processes as one.

Of several, each draws the randomness of the whole batch and takes its own rows, and every mean is
over all ranks; so N ranks learn what one would, up to the rounding of sums in another order.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import Tensor, nn

from dataset.errors import ConfigError
from dataset.store import file_lock


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


def all_rows(rows: Tensor) -> Tensor:
    """Returns the rows of all ranks, from this rank's [n,…]; gradients flow back to every rank."""
    if world() == 1:
        return rows
    before = rows.new_zeros(rank() * len(rows), *rows.shape[1:])
    after = rows.new_zeros((world() - rank() - 1) * len(rows), *rows.shape[1:])
    return sum_over_ranks(torch.cat([before, rows, after]))


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


def max_over_ranks(value: float) -> float:
    """Returns the greatest `value` of all ranks: a signal that reached one stops all."""
    if world() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    greatest = torch.tensor(value, device=device, dtype=torch.float64)
    dist.all_reduce(greatest, op=dist.ReduceOp.MAX)
    return float(greatest)


def wait_for_all() -> None:
    """Returns when every rank has come here."""
    if world() > 1:
        dist.barrier()


def gpu_count() -> int:
    """Returns how many GPUs torch finds on this machine."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@contextlib.contextmanager
def held_device(name: str) -> Iterator[torch.device]:
    """Yields the device that `name` asks for, and holds it until the end.

    name: auto, cpu, cuda or cuda:N. Without a number, each process of `torchrun` takes the GPU of
    its own number, and a process alone the first GPU that no other training of this user holds;
    where all are held, the first. `auto` without a GPU is the CPU. Raises ConfigError if the device
    is not on this machine.
    """
    count = gpu_count()
    if name == "cpu" or (name == "auto" and not count):
        yield torch.device("cpu")
        return
    if not count:
        raise ConfigError(f'device is "{name}", but torch finds no GPU here; use cpu.')
    wanted = _wanted(name, count)
    with contextlib.ExitStack() as held:
        index = next((i for i in wanted if _held(i, held)), wanted[0])
        torch.cuda.set_device(index)
        yield torch.device("cuda", index)


def synchronise(device: torch.device) -> None:
    """Returns when the device has done all that was queued on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def described(device: torch.device) -> str:
    """Returns a device in words: `NVIDIA H200 (cuda:0, 140.1 GB free)` or `CPU (2 threads)`."""
    if device.type != "cuda":
        return f"CPU ({torch.get_num_threads()} threads)"
    free, _total = torch.cuda.mem_get_info(device)
    return f"{torch.cuda.get_device_name(device)} ({device}, {free / 1e9:.1f} GB free)"


def _wanted(name: str, count: int) -> list[int]:
    """The numbers of the GPUs to try, in this order."""
    _, _, number = name.partition(":")
    if number:
        if int(number) >= count:
            raise ConfigError(f'device is "{name}"; this machine has cuda:0 to cuda:{count - 1}')
        return [int(number)]
    if "LOCAL_RANK" in os.environ:
        if local_rank() >= count:
            raise ConfigError(f"torchrun started more processes than the {count} GPUs here")
        return [local_rank()]
    # Not by their free memory: to read it makes a context, half a GB, on each of them.
    return list(range(count))


def _held(index: int, until: contextlib.ExitStack) -> bool:
    """Takes the lock of a GPU for this process; False if another training has it."""
    # Per user: a lock file of another user cannot be opened for writing.
    folder = Path(tempfile.gettempdir()) / f"omokage-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"cuda-{index}.lock"
    try:
        until.enter_context(file_lock(path, timeout_s=0))
    except TimeoutError:
        return False
    return True
