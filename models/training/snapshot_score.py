"""The score of a snapshot: a quick Fréchet distance, to see a training's way and keep its best."""

import sys

import numpy as np
import numpy.typing as npt

from dataset.errors import TrainingError
from models.families.base import GeneratorNet
from models.labels import typical_labels
from models.metrics.extractors import Extractor, chunks, extractor
from models.metrics.frechet import Statistics, frechet_distance, statistics
from models.sampling.draw import draw

EXTRACTOR = "efficientnet_lite0"


class SnapshotScore:
    """Measures averaged weights against training pictures, always the same ones.

    It is for comparing snapshots of one training, and no substitute for the evaluation: few
    pictures, and those that were trained on.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.generic],
        *,
        count: int,
        seed: int,
        device: str,
    ) -> None:
        """Takes the features of up to `count` of images [N,3,R,R]; labels [N,L] of 0 and 1.

        Raises TrainingError if the extractor's packages are not installed.
        """
        self._network: Extractor = extractor(EXTRACTOR, device=device)
        self._labels, self._seed, self._device = np.asarray(labels), seed, device
        rows = np.random.default_rng(seed).permutation(len(images))[:count]
        self._count = len(rows)
        self._reals = self._statistics(images[np.sort(rows)].transpose(0, 2, 3, 1))

    @property
    def name(self) -> str:
        """The score's name: what it is, of which features, on how many pictures."""
        return f"snapshot_fd_{self._network.name}_{self._count}"

    def of(self, generator: GeneratorNet) -> float:
        """Returns the distance of as many fakes, drawn with fixed seeds and real labels."""
        labels = typical_labels(self._labels, self._count, self._seed)
        seeds = range(self._seed, self._seed + self._count)
        return frechet_distance(self._statistics(draw(generator, labels, seeds)), self._reals)

    def _statistics(self, pictures: npt.NDArray[np.uint8]) -> Statistics:
        return statistics(self._network(chunks(pictures), device=self._device))


def snapshot_score(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.generic],
    *,
    count: int,
    seed: int,
    device: str,
) -> SnapshotScore | None:
    """Returns a score on `count` pictures, or None for 0 or where the extractor is not installed.

    The latter is reported on stderr: a machine that only trains need not have it.
    """
    if count == 0:
        return None
    try:
        return SnapshotScore(images, labels, count=count, seed=seed, device=device)
    except TrainingError as error:
        print(f"snapshots are not scored: {error}", file=sys.stderr)
        return None
