"""Tensors as a weights file describes them: nothing is copied until one is wanted."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.io.safe_io import shown
from models.weights.restricted_pickle import Maker, Noted, Refused

MAX_DIMENSIONS = 8

DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclasses.dataclass(slots=True)
class Storage:
    """A run of `numel` numbers of a file; `read` gives its bytes.

    In the old format the bytes stand behind the pickle that names the storage, so `read` is set
    once they are found.
    """

    dtype: torch.dtype
    numel: int
    read: Callable[[], bytes | memoryview] | None = None

    @property
    def size_bytes(self) -> int:
        """How many bytes the numbers fill."""
        return self.numel * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTensor:
    """A view of a storage: its first element, its shape and its strides, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def last(self) -> int:
        """The place of its last number in the storage; only where it has any."""
        steps = zip(self.shape, self.stride, strict=True)
        return self.offset + sum((side - 1) * step for side, step in steps)

    def tensor(self) -> Tensor:
        """Returns it as a float32 tensor of its own, on the CPU."""
        assert self.storage.read is not None  # every reader of a file sees to that
        if not self.numel:
            return torch.zeros(self.shape)
        size = self.storage.dtype.itemsize
        used = bytearray(
            memoryview(self.storage.read())[self.offset * size : (self.last + 1) * size]
        )
        viewed = torch.frombuffer(used, dtype=self.storage.dtype).as_strided(
            self.shape, self.stride
        )
        return viewed.to(torch.float32).clone(memory_format=torch.contiguous_format)


def tensor_makers() -> dict[str, Maker]:
    """Returns the makers of tensors and of the names of storages' types."""
    makers: dict[str, Maker] = {
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
    }
    for name in DTYPES:
        makers[f"torch.{name}"] = _uncallable(f"torch.{name}")
    return makers


def storage_of(kind: Any, numel: Any) -> Storage:
    """Returns the storage of a persistent id's type and count; raises Refused for odd ones."""
    name = str(getattr(kind, "name", ""))
    dtype = DTYPES.get(name.removeprefix("torch."))
    if dtype is None:
        raise Refused(f"stores numbers as {shown(name) or 'something without a name'}")
    if not _is_count(numel):
        raise Refused("has a storage whose length is no count")
    return Storage(dtype, numel)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> StoredTensor:
    """Makes a tensor; what is in `rest` (requires_grad, hooks, metadata) means nothing here."""
    shape, stride = _plain(shape), _plain(stride)
    if type(storage) is not Storage or not _are_counts(offset, *shape, *stride):
        raise Refused("has a tensor of something else than a storage and counts")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS:
        raise Refused(f"has a tensor of {len(shape)} sizes and {len(stride)} strides")
    made = StoredTensor(storage, offset, shape, stride)
    if made.numel and made.last >= storage.numel:
        raise Refused(
            f"has a tensor {list(shape)} that reaches outside of its {storage.numel:,} numbers"
        )
    if made.numel > storage.numel:
        raise Refused(f"has a tensor {list(shape)} that repeats its {storage.numel:,} numbers")
    return made


def _parameter(data: Any, *rest: Any) -> StoredTensor:
    if type(data) is not StoredTensor:
        raise Refused(f"has a parameter that is a {type(data).__name__}")
    return data


def _plain(sizes: Any) -> tuple[Any, ...]:
    if type(sizes) is Noted and sizes.name == "torch.Size" and len(sizes.args) == 1:
        sizes = sizes.args[0]
    if type(sizes) not in (tuple, list):
        raise Refused("has a tensor whose shape is no list")
    return tuple(sizes)


def _are_counts(*values: Any) -> bool:
    return all(_is_count(value) for value in values)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _uncallable(name: str) -> Maker:
    def make(*_: Any) -> Any:
        raise Refused(f"calls {name}")

    return make
