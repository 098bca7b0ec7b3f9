"""The reals that a training learns from, in batches that the seed and the step alone decide."""

import dataclasses
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataset.store import Store
from models.families import Family
from models.training.distributed import rank, share, world


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """The reals: uint8 images [N,3,R,R], labels [N,L] of 0 and 1, names of the labels, digest."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.generic]
    label_names: tuple[str, ...]
    manifest_digest: str

    def of_family(self, family: Family) -> "TrainingSet":
        """Returns the set with only those labels that the family is conditioned on."""
        names = family.labels(self.label_names)
        return self._with(names)

    def in_order(self, names: tuple[str, ...]) -> "TrainingSet":
        """Returns the set with its labels in the order of `names`; as it is if those are others."""
        if names == self.label_names or sorted(names) != sorted(self.label_names):
            return self
        return self._with(names)

    def _with(self, names: tuple[str, ...]) -> "TrainingSet":
        columns = [self.label_names.index(name) for name in names]
        return dataclasses.replace(
            self, labels=np.asarray(self.labels)[:, columns], label_names=names
        )


RESIDENT_BYTES = 8 * 2**30  # sets up to this size are kept on the GPU whole


def local_store(store: Store) -> Store:
    """Returns `store` if that is a local folder, else a temporary one, to pack sets into."""
    if store.is_local:
        return store
    return Store(Path(tempfile.gettempdir()) / "omokage-packed")


class Batches:
    """Shuffled passes over uint8 pictures; `at(step)` needs nothing that came before.

    images: uint8 [N,3,R,R], a memory map or an array; labels: [N,L] of 0 and 1; batch: pictures a
    step over all ranks, of which each takes its share. Pictures that are not kept on the device are
    read one step ahead by a thread, so that a step never waits for them.
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
            self._labels = self._labels.to(device)
        self._passes: dict[int, npt.NDArray[np.int64]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._ahead: tuple[int, Future[tuple[Tensor, Tensor]]] | None = None

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns this rank's pictures [B/world,3,R,R] in [-1,1] and labels [B/world,L] of a step.

        Both lie on the device.
        """
        if self._resident is not None:
            index = torch.from_numpy(self._own(step)).to(self._device)
            pictures, labels = self._resident[index], self._labels[index]
        else:
            pictures, labels = self._read_ahead(step)
            pictures = pictures.to(self._device, non_blocking=True)
            labels = labels.to(self._device, non_blocking=True)
        return pictures.float().div(127.5).sub(1), labels

    def _read_ahead(self, step: int) -> tuple[Tensor, Tensor]:
        expected, waiting = self._ahead or (-1, None)
        found = waiting.result() if waiting is not None and expected == step else self._read(step)
        self._ahead = step + 1, self._reader.submit(self._read, step + 1)
        return found

    def _read(self, step: int) -> tuple[Tensor, Tensor]:
        index = self._own(step)
        pictures = torch.from_numpy(self._images[index])
        labels = self._labels[torch.from_numpy(index)]
        if self._device.type == "cuda":
            return pictures.pin_memory(), labels.pin_memory()
        return pictures, labels

    def _own(self, step: int) -> npt.NDArray[np.int64]:
        count = self._batch // world()
        return self.order(step)[rank() * count : (rank() + 1) * count]

    def order(self, step: int) -> npt.NDArray[np.int64]:
        """Returns the rows [B] of a step, of all ranks; each comes once a pass, shuffled anew."""
        count = len(self._images)
        places = np.arange(step * self._batch, (step + 1) * self._batch)
        return np.array([self._pass(int(p // count))[p % count] for p in places], dtype=np.int64)

    def labels_of_fakes(self, rng: torch.Generator) -> Tensor:
        """Draws labels from all real rows: those that occur together, as often as they do.

        Returns this rank's share [B/world,L] of those for the whole batch.
        """
        index = torch.randint(0, len(self._labels), (self._batch,), generator=rng)
        return self._labels[share(index).to(self._labels.device)].to(self._device)

    def close(self) -> None:
        """Ends the reading thread."""
        self._reader.shutdown(cancel_futures=True)

    def _pass(self, number: int) -> npt.NDArray[np.int64]:
        if number not in self._passes:
            rng = np.random.default_rng([self._seed, number])
            self._passes = {n: p for n, p in self._passes.items() if n == number - 1}
            self._passes[number] = rng.permutation(len(self._images))
        return self._passes[number]
