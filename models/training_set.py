"""The reals that a training learns from."""

import dataclasses

import numpy as np
import numpy.typing as npt

from models.families import Family


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
