"""Directions: named shifts of a character, each with what it moves, and what it moves besides."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataset.errors import UsageError, nearest


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """A direction of a generator.

    Attributes:
        name: what it changes, "smile" or "brightness"; "direction 3" where nothing clear does.
        vector: the shift of amount 1, [R,D] as `characters.shift_shape`: one standard deviation
            of what characters have along it.
        effect: how much the named quality moves with an amount of 1, in standard deviations of
            that quality over characters; 0 without a name.
        side_effect: the mean absolute move of all other qualities, in the same unit.

    """

    name: str
    vector: npt.NDArray[np.float32]
    effect: float
    side_effect: float


@dataclasses.dataclass(frozen=True, eq=False)
class Directions:
    """The directions of one generator, in the order in which they are offered."""

    found: tuple[Direction, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, all different."""
        return tuple(one.name for one in self.found)

    def shift(self, amounts: Sequence[tuple[str, float]]) -> Tensor:
        """Returns the shift [R,D] of these amounts; raises UsageError for a name without one."""
        total = torch.zeros(self.found[0].vector.shape)
        for name, amount in sorted(amounts):
            if name not in self.names:
                near = nearest(name, self.names) or f"; there are {', '.join(self.names)}"
                raise UsageError(f'the model has no direction "{name}"{near}')
            vector = self.found[self.names.index(name)].vector
            total += amount * torch.from_numpy(vector)
        return total
