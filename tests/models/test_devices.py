"""Which GPU a training takes, on a machine whose GPUs are made up."""

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from dataset.errors import ConfigError
from models.config import TrainConfig
from models.training.distributed import described, gpu_count, held_device
from models.training.loop import uses_bf16


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Machine":
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the locks of this test alone
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return Machine(monkeypatch)


class Machine:
    """Stands in for torch.cuda: GPUs by their free bytes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.touched: list[int] = []  # the GPUs that got a context

    def has(self, free_gb: Sequence[float]) -> None:
        def free(index: int | torch.device) -> tuple[int, int]:
            number = index if isinstance(index, int) else int(index.index)
            self.touched.append(number)
            return int(free_gb[number] * 1e9), int(80e9)

        for name, value in {
            "is_available": lambda: bool(free_gb),
            "device_count": lambda: len(free_gb),
            "mem_get_info": free,
            "set_device": self.touched.append,
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


def test_a_gpu_is_taken_without_touching_the_others(machine: Machine) -> None:
    machine.has([10, 70, 40])
    with held_device("auto") as device:
        assert device == torch.device("cuda", 0)
        assert machine.touched == [0]  # to read another's free memory makes a context there
        assert described(device) == "GPU of the test (cuda:0, 10.0 GB free)"


def test_each_training_takes_a_gpu_that_no_other_holds(machine: Machine) -> None:
    machine.has([10, 70, 40])
    with contextlib.ExitStack() as trainings:
        taken = [trainings.enter_context(held_device("auto")).index for _ in range(4)]
    assert taken == [0, 1, 2, 0]  # all are held by then
    with held_device("cuda") as device:
        assert device.index == 0  # those that ended have given theirs back


def test_the_locks_of_two_users_are_two_files(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has([10, 70])
    with held_device("auto") as device:
        assert device.index == 0
        monkeypatch.setattr("os.getuid", lambda: 12345)
        with held_device("auto") as other:  # a lock of another user's could not even be opened
            assert other.index == 0


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


@pytest.mark.parametrize(("native", "emulated"), [(True, True), (False, True), (False, False)])
def test_auto_precision_is_bf16_only_where_the_hardware_has_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, emulated: bool
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return emulated if including_emulation else native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert uses_bf16(TrainConfig(), torch.device("cuda", 0)) is native
    assert not uses_bf16(TrainConfig(), torch.device("cpu"))
    assert uses_bf16(TrainConfig(precision="bf16"), torch.device("cpu"))
