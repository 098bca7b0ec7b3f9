"""Where a training runs: the GPU with the most free memory that no other training holds, or CPU."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch

from dataset.errors import ConfigError
from models.training.distributed import local_rank


def gpu_count() -> int:
    """Returns how many GPUs torch finds on this machine."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@contextlib.contextmanager
def held_device(name: str) -> Iterator[torch.device]:
    """Yields the device that `name` asks for, and holds it until the end.

    name: auto, cpu, cuda or cuda:N. Without a number, each process of `torchrun` takes the GPU of
    its own number, and a process alone the GPU with the most free memory that no other training of
    this machine holds; where all are held, that with the most free memory. `auto` without a GPU is
    the CPU. Raises ConfigError if the device is not on this machine.
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


def described(device: torch.device) -> str:
    """Returns a device in words: `NVIDIA H200 (cuda:0, 140.1 GB free)` or `CPU (2 threads)`."""
    if device.type != "cuda":
        return f"CPU ({torch.get_num_threads()} threads)"
    free, _total = torch.cuda.mem_get_info(device)
    return f"{torch.cuda.get_device_name(device)} ({device}, {free / 1e9:.1f} GB free)"


def _wanted(name: str, count: int) -> list[int]:
    """The numbers of the GPUs to try, the best first."""
    _, _, number = name.partition(":")
    if number:
        if int(number) >= count:
            raise ConfigError(f'device is "{name}"; this machine has cuda:0 to cuda:{count - 1}')
        return [int(number)]
    if "LOCAL_RANK" in os.environ:
        if local_rank() >= count:
            raise ConfigError(f"torchrun started more processes than the {count} GPUs here")
        return [local_rank()]
    free = {index: torch.cuda.mem_get_info(index)[0] for index in range(count)}
    return sorted(free, key=lambda index: -free[index])


def _held(index: int, until: contextlib.ExitStack) -> bool:
    """Takes the lock of a GPU for this process; False if another training has it."""
    file: BinaryIO = (Path(tempfile.gettempdir()) / f"omokage-cuda-{index}.lock").open("ab")
    until.callback(file.close)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
