"""Batches of real pictures in an order that the seed and the step alone decide."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataset.store import Store

RESIDENT_BYTES = 8 * 2**30  # sets up to this size are kept on the GPU whole


def local_store(store: Store) -> Store:
    """Returns `store` if that is a local folder, else a temporary one, to pack sets into."""
    if store.is_local:
        return store
    return Store(Path(tempfile.gettempdir()) / "omokage-packed")


class Batches:
    """Shuffled passes over uint8 pictures; `at(step)` needs nothing that came before.

    images: uint8 [N,3,R,R], a memory map or an array; labels: [N,L] of 0 and 1.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.generic],
        *,
        batch: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._batch, self._seed, self._device = batch, seed, device
        self._images = images
        self._labels = torch.from_numpy(np.asarray(labels, dtype=np.float32))
        self._resident: Tensor | None = None
        if device.type == "cuda" and images.nbytes <= RESIDENT_BYTES:
            self._resident = torch.from_numpy(np.array(images)).to(device)
        self._passes: dict[int, npt.NDArray[np.int64]] = {}

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns step's pictures [B,3,R,R] in [-1,1] and their labels [B,L], on the device."""
        index = self.order(step)
        if self._resident is None:
            pictures = torch.from_numpy(self._images[index]).to(self._device)
        else:
            pictures = self._resident[torch.from_numpy(index).to(self._device)]
        labels = self._labels[torch.from_numpy(index)].to(self._device)
        return pictures.float().div(127.5).sub(1), labels

    def order(self, step: int) -> npt.NDArray[np.int64]:
        """Returns the rows [B] of a step: every row comes once a pass, each pass shuffled anew."""
        count = len(self._images)
        places = np.arange(step * self._batch, (step + 1) * self._batch)
        return np.array([self._pass(int(p // count))[p % count] for p in places], dtype=np.int64)

    def labels_of_fakes(self, rng: torch.Generator) -> Tensor:
        """Draws labels [B,L] from all real rows: those that occur together, as often as they do."""
        index = torch.randint(0, len(self._labels), (self._batch,), generator=rng)
        return self._labels[index].to(self._device)

    def _pass(self, number: int) -> npt.NDArray[np.int64]:
        if number not in self._passes:
            rng = np.random.default_rng([self._seed, number])
            self._passes = {n: p for n, p in self._passes.items() if n == number - 1}
            self._passes[number] = rng.permutation(len(self._images))
        return self._passes[number]
