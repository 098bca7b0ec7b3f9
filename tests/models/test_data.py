"""Where the reals are kept on a machine with a GPU; a device without values stands in for it."""

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from models.training import data
from models.training.data import RESIDENT_SHARE, Batches

META = torch.device("meta")  # holds shapes alone, and is no CPU
IMAGES = np.arange(40 * 3 * 8 * 8, dtype=np.uint8).reshape(40, 3, 8, 8)
LABELS = np.zeros((40, 2))


@pytest.fixture
def pinned_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for pinned memory; returns the threads that pinned some."""
    threads: list[str] = []

    def pinned(rows: Tensor) -> Tensor:
        threads.append(threading.current_thread().name)
        return rows

    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    return threads


def has_free(patch: pytest.MonkeyPatch, count: int) -> None:
    patch.setattr(data, "free_bytes", lambda _device: count)


def kept(batches: Batches) -> bool:
    return batches._resident is not None


@pytest.mark.parametrize(("spare", "resident"), [(0, True), (-1, False)])
def test_pictures_are_kept_on_a_gpu_if_its_free_memory_has_room(
    monkeypatch: pytest.MonkeyPatch, pinned_in: list[str], spare: int, resident: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    has_free(monkeypatch, int(IMAGES.nbytes / RESIDENT_SHARE) + spare)
    batches = Batches(IMAGES, LABELS, batch=8, seed=0, device=META)
    assert kept(batches) is resident
    for step in range(2):
        pictures, labels = batches.at(step)
        assert (pictures.shape, labels.shape) == ((8, 3, 8, 8), (8, 2))
        assert pictures.device == labels.device == META
    batches.close()
    assert any(name.startswith("read-ahead") for name in pinned_in) is not resident


def test_a_cpu_keeps_no_second_copy() -> None:
    batches = Batches(IMAGES, LABELS, batch=8, seed=0, device=torch.device("cpu"))
    assert not kept(batches)
    pictures, _ = batches.at(0)
    assert torch.equal(
        pictures, torch.from_numpy(IMAGES[batches.order(0)]).float().div(127.5).sub(1)
    )
    batches.close()


def test_the_reading_thread_pins_memory_for_its_ranks_own_gpu(
    monkeypatch: pytest.MonkeyPatch, pinned_in: list[str]
) -> None:
    chosen: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda gpu: chosen.append((threading.current_thread().name, gpu))
    )
    has_free(monkeypatch, 0)
    batches = Batches(IMAGES, LABELS, batch=8, seed=0, device=META)
    batches.at(0)
    batches.at(1)
    batches.close()
    assert chosen == [("read-ahead_0", META)]
    assert "read-ahead_0" in pinned_in


def test_pictures_are_copied_to_a_gpu_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    largest: list[int] = []
    whole = np.array

    def counted(values: np.ndarray) -> np.ndarray:
        largest.append(values.nbytes)
        return whole(values)

    monkeypatch.setattr(np, "array", counted)
    monkeypatch.setattr(data, "_CHUNK_BYTES", 7 * IMAGES[0].nbytes)
    copied = data._copied(IMAGES, torch.device("cpu"))
    assert np.array_equal(copied.numpy(), IMAGES)
    assert max(largest) == 7 * IMAGES[0].nbytes
