"""The reals that a training learns from, in batches that the seed and the step alone decide."""

import dataclasses
import functools
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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


# Of a GPU's free memory, what the pictures may take at most; the rest is for the steps.
RESIDENT_SHARE = 0.25
_CHUNK_BYTES = 64 * 2**20  # that are copied to the GPU at a time, without a second whole set in RAM


class Batches:
    """Shuffled passes over uint8 pictures; `at(step)` needs nothing that came before.

    images: uint8 [N,3,R,R], a memory map or an array; labels: [N,L] of 0 and 1; batch: pictures a
    step over all ranks, of which each takes its share. A GPU keeps them all if they fit into
    RESIDENT_SHARE of its free memory; else a thread reads them one step ahead, into pinned memory,
    so that a step never waits for them. The labels, which are small, are always on the device.
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
        self._labels = torch.from_numpy(np.asarray(labels, dtype=np.float32)).to(device)
        on_gpu = device.type != "cpu"
        self._resident: Tensor | None = None
        if on_gpu and images.nbytes <= RESIDENT_SHARE * free_bytes(device):
            self._resident = _copied(images, device)
        self._passes: dict[int, npt.NDArray[np.int64]] = {}
        # A new thread's GPU is cuda:0, where pinned memory would make each rank a context.
        choose_gpu = functools.partial(torch.cuda.set_device, device) if on_gpu else None
        self._reader = ThreadPoolExecutor(1, "read-ahead", choose_gpu)
        self._ahead: tuple[int, Future[Tensor]] | None = None

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns this rank's pictures [B/world,3,R,R] in [-1,1] and labels [B/world,L] of a step.

        Both are on the device.
        """
        index = self._sent(torch.from_numpy(self._own(step)))
        if self._resident is not None:
            pictures = self._resident[index]
        else:
            pictures = self._sent(self._read_ahead(step))
        return pictures.float().div(127.5).sub(1), self._labels[index]

    def _sent(self, rows: Tensor) -> Tensor:
        """Copies rows to the device; a GPU takes them from pinned memory, which waits for none."""
        return self._pinned(rows).to(self._device, non_blocking=True)

    def _pinned(self, rows: Tensor) -> Tensor:
        return rows if self._device.type == "cpu" else rows.pin_memory()

    def _read_ahead(self, step: int) -> Tensor:
        expected, waiting = self._ahead or (-1, None)
        found = waiting.result() if waiting is not None and expected == step else self._read(step)
        self._ahead = step + 1, self._reader.submit(self._read, step + 1)
        return found

    def _read(self, step: int) -> Tensor:
        return self._pinned(torch.from_numpy(self._images[self._own(step)]))

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
        rows, device = len(self._labels), self._labels.device
        index = torch.randint(0, rows, (self._batch,), generator=rng, device=device)
        return self._labels[share(index)]

    def close(self) -> None:
        """Ends the reading thread."""
        self._reader.shutdown(cancel_futures=True)

    def _pass(self, number: int) -> npt.NDArray[np.int64]:
        passes = self._passes
        if number not in passes:
            rng = np.random.default_rng([self._seed, number])
            passes = {n: p for n, p in passes.items() if n == number - 1}
            passes[number] = rng.permutation(len(self._images))
            self._passes = passes  # replaced, never changed: the reading thread looks as well
        return passes[number]


def free_bytes(device: torch.device) -> int:
    """Returns how much memory of a GPU is free."""
    return int(torch.cuda.mem_get_info(device)[0])


def _copied(images: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Copies images [N,3,R,R] to a GPU by chunks: a memory map is never in RAM whole."""
    copied = torch.empty(images.shape, dtype=torch.uint8, device=device)
    rows = max(1, _CHUNK_BYTES * len(images) // max(1, images.nbytes))
    for first in range(0, len(images), rows):
        chunk = np.array(images[first : first + rows])
        copied[first : first + rows] = torch.from_numpy(chunk)
    return copied
