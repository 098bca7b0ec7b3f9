"""Directions: named shifts of a character, each with what it moves, and what it moves besides.

They are found by `models.evaluation.directions`, and lie beside a generator's weights.
"""

import dataclasses
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from torch import Tensor

from dataset.errors import TrainingError, UsageError, listed, nearest
from dataset.store import Store
from models.families.base import GeneratorNet, GeneratorSpec
from models.io.generators import find_generator, generator_digest
from models.io.safe_io import (
    SHA256,
    Kind,
    fact_faults,
    is_number,
    parse_tensors,
    read_own,
)
from models.sampling.characters import shift_shape

DIRECTIONS = "directions.safetensors"
MAX_DIRECTIONS = 64
MAX_NAME = 200  # characters
_MAX_BYTES = 64 * 2**20
_FACTS, _VECTORS = "directions", "vectors"


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """A direction of a generator.

    Attributes:
        name: what it changes, "smile" or "brightness"; "direction_3" where nothing clear does.
        vector: the shift of amount 1, [R,D] as `characters.shift_shape`: one standard deviation
            of what characters have along it.
        effect: how much the named quality moves with an amount of 1, in standard deviations of
            that quality over characters; of a "direction_3" that of the quality it moves most.
        side_effect: the mean absolute move of all other qualities, in the same unit.

    """

    name: str
    vector: npt.NDArray[np.float32]
    effect: float
    side_effect: float

    def facts(self) -> dict[str, Any]:
        """Returns all but the vector, as JSON values."""
        numbers = {"effect": round(self.effect, 4), "side_effect": round(self.side_effect, 4)}
        return {"name": self.name, **numbers}


@dataclasses.dataclass(frozen=True, eq=False)
class Directions:
    """The directions of one generator, in the order in which they are offered.

    Attributes:
        found: at least one.
        generator: the generator's digest, `models.io.generators.generator_digest`.
        config: what they were found with, as JSON values.

    """

    found: tuple[Direction, ...]
    generator: str = ""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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

    def to_bytes(self) -> bytes:
        """Returns them as a safetensors file; the same directions give the same bytes."""
        facts = {
            "generator": self.generator,
            "config": dict(self.config),
            "directions": [one.facts() for one in self.found],
        }
        vectors = np.stack([one.vector for one in self.found]).astype(np.float32)
        metadata = {_FACTS: json.dumps(facts, sort_keys=True)}
        return safetensors.numpy.save({_VECTORS: vectors}, metadata=metadata)

    @classmethod
    def from_bytes(cls, content: bytes, spec: GeneratorSpec, *, where: str) -> Self:
        """Reads a file of unknown origin; raises TrainingError naming `where` and what is wrong."""
        tensors = parse_tensors(content, where=where)
        facts = _facts(content)
        faults = fact_faults(facts, _WANTED)
        if not faults:
            faults = [fault for one in facts["directions"] for fault in fact_faults(one, _OF_ONE)]
            names = [str(one.get("name")) for one in facts["directions"]]
            wanted = [len(names), *shift_shape(spec)]
            vectors = tensors.get(_VECTORS, torch.zeros(0))
            if len(set(names)) != len(names):
                faults.append("names stand twice")
            if list(vectors.shape) != wanted or vectors.dtype != torch.float32:
                faults.append(f"vectors are {list(vectors.shape)}, float32 {wanted} wanted")
            elif not bool(torch.isfinite(vectors).all()):
                faults.append("vectors hold numbers that are not finite")
        if faults:
            raise TrainingError(f"{where} holds no directions of its generator:\n{listed(faults)}")
        found = [
            Direction(one["name"], vector, float(one["effect"]), float(one["side_effect"]))
            for one, vector in zip(facts["directions"], vectors.numpy(), strict=True)
        ]
        return cls(tuple(found), facts["generator"], facts["config"])


def read_directions(folder: str, spec: GeneratorSpec, *, digest: str) -> Directions | None:
    """Reads the directions in a generator's own folder (path or URL).

    None if there are none, or those of other weights than the digest's: an earlier training's.
    Raises TrainingError naming the file if it is damaged.
    """
    store = Store(folder)
    if not store.exists(DIRECTIONS):
        return None
    content = read_own(store, DIRECTIONS, within="", max_bytes=_MAX_BYTES)
    read = Directions.from_bytes(content, spec, where=store.url(DIRECTIONS))
    return read if read.generator == digest else None


def directions_of(folder: str, generator: GeneratorNet) -> Directions | None:
    """Returns the directions that lie beside a generator, where `find_generator` finds it.

    None if there are none, as of a checkpoint; raises as `read_directions`.
    """
    own = find_generator(folder).own_url
    return read_directions(own, generator.spec, digest=generator_digest(generator))


def _facts(content: bytes) -> dict[str, Any]:
    """Returns the facts in the head of a whole safetensors file, {} for none."""
    (length,) = struct.unpack_from("<Q", content)
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    try:
        facts = json.loads(metadata.get(_FACTS, ""))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _are_directions(found: Any) -> bool:
    return (
        isinstance(found, list)
        and 1 <= len(found) <= MAX_DIRECTIONS
        and all(isinstance(one, dict) for one in found)
    )


def _is_name(found: Any) -> bool:
    if not isinstance(found, str) or not 1 <= len(found) <= MAX_NAME:
        return False
    return found.isprintable() and "," not in found and found == found.strip()


# What a link can name: others would be sliders that nothing can be drawn with.
_NAME: Kind = (
    _is_name,
    f"a name of 1 to {MAX_NAME} printable characters, without commas or spaces at its ends,",
)
_NUMBER: Kind = (is_number, "a number")
_OF_ONE = {"name": _NAME, "effect": _NUMBER, "side_effect": _NUMBER}
_WANTED: dict[str, Kind] = {
    "generator": SHA256,
    "config": (lambda found: isinstance(found, dict), "an object"),
    "directions": (_are_directions, f"a list of 1 to {MAX_DIRECTIONS} objects"),
}
