"""Which GPU a training takes, on a machine whose GPUs are made up."""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from dataset.errors import ConfigError
from models.training.distributed import described, gpu_count, held_device


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Machine":
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the locks of this test alone
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return Machine(monkeypatch)


class Machine:
    """Stands in for torch.cuda: GPUs by their free bytes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def has(self, free_gb: Sequence[float]) -> None:
        def free(index: int | torch.device) -> tuple[int, int]:
            number = index if isinstance(index, int) else int(index.index)
            return int(free_gb[number] * 1e9), int(80e9)

        for name, value in {
            "is_available": lambda: bool(free_gb),
            "device_count": lambda: len(free_gb),
            "mem_get_info": free,
            "set_device": lambda _index: None,
            "get_device_name": lambda _device: "GPU of the test",
        }.items():
            self._patch.setattr(torch.cuda, name, value)


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(machine: Machine) -> None:
    machine.has([])
    assert gpu_count() == 0
    with held_device("auto") as device:
        assert device.type == "cpu"
        assert described(device).startswith("CPU (")
    with pytest.raises(ConfigError, match="torch finds no GPU here; use cpu"), held_device("cuda"):
        pass


def test_the_gpu_with_the_most_free_memory_is_taken_and_named(machine: Machine) -> None:
    machine.has([10, 70, 40])
    with held_device("auto") as device:
        assert device == torch.device("cuda", 1)
        assert described(device) == "GPU of the test (cuda:1, 70.0 GB free)"


def test_each_training_takes_a_gpu_that_no_other_holds(machine: Machine) -> None:
    machine.has([10, 70, 40])
    with contextlib.ExitStack() as trainings:
        taken = [trainings.enter_context(held_device("auto")).index for _ in range(4)]
    assert taken == [1, 2, 0, 1]  # all are held by then: that with the most free memory
    with held_device("cuda") as device:
        assert device.index == 1  # those that ended have given theirs back


def test_a_number_is_obeyed_and_one_too_high_is_refused(machine: Machine) -> None:
    machine.has([10, 70])
    with held_device("cuda:0") as device:
        assert device.index == 0
    with (
        pytest.raises(ConfigError, match="this machine has cuda:0 to cuda:1"),
        held_device("cuda:2"),
    ):
        pass


def test_each_process_of_torchrun_takes_the_gpu_of_its_number(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has([10, 70])
    monkeypatch.setenv("LOCAL_RANK", "0")
    with held_device("auto") as device:
        assert device.index == 0
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="more processes than the 2 GPUs"), held_device("auto"):
        pass
