"""Brings a public StyleGAN2 generator's tensors into our `stylegan2`: sizes, names, shapes.

The public layouts differ from ours only in names and in axes of length 1; every factor that is
applied when a weight is used is the same. So an import is a table of names.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dataset.errors import TrainingError, listed
from models.families.base import GeneratorSpec, NetworkSize
from models.families.stylegan2 import RESOLUTIONS_PX, spec_of
from models.import_stylegan2.torch_file import StoredTensor
from models.io.safe_io import shown

FAMILY = "stylegan2"
FILTER = (1.0, 3.0, 3.0, 1.0)
MAX_CHANNEL_BASE = 1 << 20
TOLERANCE = 1e-4  # of the filter's numbers, which may be stored in half precision


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor: our name, theirs, and the shape that theirs must have."""

    ours: str
    theirs: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Found:
    """A public generator, understood.

    Attributes:
        layout: whose form it had, "rosinality" or "nvidia".
        spec: what it is in our words.
        tensors: its tensors by our names and in our shapes, float32.
        centre_known: whether the file held the mean w; else `w_avg` is missing in `tensors`.
        notes: what a user should know of it, as sentences.

    """

    layout: str
    spec: GeneratorSpec
    tensors: dict[str, Tensor]
    centre_known: bool = True
    notes: tuple[str, ...] = ()


class Table:
    """The tensors of a file's generator by their names there."""

    def __init__(self, tensors: Mapping[str, StoredTensor], *, where: str, size_bytes: int) -> None:
        self._tensors = tensors
        self._size_bytes = size_bytes
        self.where = where
        self.names = list(tensors)

    def shape(self, name: str, *, dimensions: int) -> tuple[int, ...]:
        """Returns a tensor's shape; raises TrainingError if it is missing or has other axes."""
        found = self._tensors.get(name)
        if found is None:
            raise TrainingError(f"{self.where}: the generator's tensor {name} is missing")
        if len(found.shape) != dimensions or 0 in found.shape:
            raise TrainingError(
                f"{self.where}: {name} is {list(found.shape)}; {dimensions} axes wanted"
            )
        return found.shape

    def taken(self, rows: Iterable[Row], *, ignored: Iterable[str]) -> dict[str, Tensor]:
        """Returns the tensors of `rows` by our names, in their shapes.

        ignored: names that may stand in the file too. Raises TrainingError naming every tensor
        that is missing, unknown, misshapen, of whole numbers or not finite.
        """
        rows = list(rows)
        known = {row.theirs for row in rows}.union(ignored)
        faults = [f"{shown(name)} is unknown" for name in self.names if name not in known]
        faults += [fault for row in rows for fault in self._faults(row)]
        if not faults:
            declared = sum(4 * self._tensors[row.theirs].numel for row in rows)
            if declared > 4 * self._size_bytes:  # half precision at best, with room to spare
                faults = [f"they would fill {declared:,} bytes; it has {self._size_bytes:,}"]
        tensors: dict[str, Tensor] = {}
        if not faults:
            tensors = {row.ours: self._tensors[row.theirs].tensor() for row in rows}
            faults = [
                f"{row.theirs} holds numbers that are not finite"
                for row in rows
                if not bool(torch.isfinite(tensors[row.ours]).all())
            ]
        if faults:
            raise TrainingError(
                f"{self.where}: the generator's tensors do not fit:\n{listed(faults)}"
            )
        return tensors

    def check_filters(self, names: Iterable[str], *, gain: float) -> None:
        """Raises TrainingError if a smoothing filter that is there is not [1,3,3,1] both ways."""
        row = torch.tensor(FILTER) / sum(FILTER)
        wanted = gain * torch.outer(row, row)
        for name in names:
            if name not in self._tensors:
                continue
            if self.shape(name, dimensions=2) != (4, 4) or not torch.allclose(
                self._tensors[name].tensor(), wanted, atol=TOLERANCE
            ):
                raise TrainingError(
                    f"{self.where}: {name} is another filter than [1, 3, 3, 1]; "
                    f"the family {FAMILY} has only that"
                )

    def _faults(self, row: Row) -> list[str]:
        found = self._tensors.get(row.theirs)
        if found is None:
            return [f"{row.theirs} is missing"]
        if found.shape != row.shape:
            return [f"{row.theirs} is {list(found.shape)}, {list(row.shape)} wanted"]
        if not found.storage.dtype.is_floating_point:
            kind = str(found.storage.dtype).removeprefix("torch.")
            return [f"{row.theirs} holds {kind}, floating-point numbers wanted"]
        return []


def spec_from(
    widths: Mapping[int, int],
    *,
    labels: tuple[str, ...],
    z_dim: int,
    w_dim: int,
    mapping_layers: int,
    where: str,
) -> GeneratorSpec:
    """Returns the spec of a generator with widths[s] channels at side s, 4 px and up.

    Raises TrainingError if the sides are none of ours, or if no base and maximum give the widths
    as min(base / s, maximum).
    """
    resolution_px = max(widths)
    wanted = [1 << exponent for exponent in range(2, resolution_px.bit_length())]
    if resolution_px not in RESOLUTIONS_PX or sorted(widths) != wanted:
        raise TrainingError(
            f"{where}: the layers draw at {', '.join(map(str, sorted(widths)))} px; each power of "
            f"two from 4 px to one of {', '.join(map(str, RESOLUTIONS_PX))} px wanted"
        )
    maximum = widths[4]
    narrower = [count * side for side, count in widths.items() if count != maximum]
    base = narrower[0] if narrower else maximum * resolution_px
    declared_widths = {side: min(base // side, maximum) for side in wanted}
    if declared_widths != dict(widths) or base > MAX_CHANNEL_BASE:
        table = ", ".join(f"{count} at {side}" for side, count in sorted(widths.items()))
        raise TrainingError(
            f"{where}: its channels are {table} px; min(base / side, maximum) at each side wanted"
        )
    size = NetworkSize(
        resolution_px,
        channel_base=base,
        channel_max=maximum,
        w_dim=w_dim,
        mapping_layers=mapping_layers,
    )
    return dataclasses.replace(spec_of(FAMILY, labels, size), z_dim=z_dim)


def reshaped(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors in the shapes of `wanted`, which differ in axes of length 1 only."""
    made = {}
    for name, tensor in tensors.items():
        shape = wanted[name].shape
        assert math.prod(shape) == tensor.numel(), name  # the rows' shapes were checked
        made[name] = tensor.reshape(shape)
    return made
