"""Reads what `torch.save` wrote, in its zip form and the one before it, through our own unpickler.

torch's own reader with `weights_only=True` runs nothing either, but takes the lengths in a file at
their word and unpacks compressed entries; here each is held against the file's size first. A tensor
is a `StoredTensor`, a description of where its numbers are: nothing is copied until one is wanted.
"""

import dataclasses
import functools
import io
import math
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dataset.errors import TrainingError
from models.import_stylegan2.safe_unpickle import (
    Maker,
    Noted,
    Refused,
    plain_makers,
    read_pickle,
)
from models.io.safe_io import shown

ZIP_MAGIC = b"PK\x03\x04"
OLD_MAGIC = 0x1950A86A20F9469CFC6C  # the first value of a file in the old form
OLD_PROTOCOL = 1001
MAX_ENTRIES = 20_000
MAX_RECORD_BYTES = 64 * 2**20  # of data.pkl, which holds no numbers
MAX_DIMENSIONS = 8

_COUNT = struct.Struct("<q")
# All that Python's zip reader raises for damaged archives (NotImplementedError is a RuntimeError)
_ZIP_ERRORS = (zipfile.BadZipFile, ValueError, OverflowError, EOFError, OSError, RuntimeError,
               struct.error)  # fmt: skip

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
    """Returns the makers of tensors, and of the names of storages' types and dtypes."""
    makers: dict[str, Maker] = {
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
    }
    for name in (*(f"torch.{kind}" for kind in DTYPES), *map(str, DTYPES.values())):
        makers[name] = _uncallable(name)
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


TENSORS = {**plain_makers(), **tensor_makers()}


def is_torch_file(content: bytes) -> bool:
    """Tells whether a file begins as `torch.save` begins it, in either form."""
    return content.startswith(ZIP_MAGIC) or is_old_torch_file(content)


def is_old_torch_file(content: bytes) -> bool:
    """Tells whether a file begins with the magic number of the form before torch 1.6."""
    magic = OLD_MAGIC.to_bytes(10, "little")
    return content[:1] == b"\x80" and content[2:14] == b"\x8a\x0a" + magic


def read_torch_file(content: bytes, *, where: str) -> Any:
    """Returns what a file holds: plain values, `Noted` things and `StoredTensor`s.

    Raises TrainingError naming `where` and what was found: a name that is no tensor and no plain
    value, paths that lead out of the archive, compressed or overlapping entries, lengths that the
    file does not have, damage.
    """
    if content.startswith(ZIP_MAGIC):
        return _read_zip(content, where=where)
    return read_old_torch_file(content, where=where)


def _read_zip(content: bytes, *, where: str) -> Any:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except _ZIP_ERRORS as error:
        raise TrainingError(f"{where} is no whole zip archive: {shown(str(error))}") from error
    entries = _checked_entries(archive, content, where=where)
    tops = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(tops) != 1:
        raise TrainingError(f"{where} is a zip archive without torch's data.pkl; a .pt file wanted")
    folder = tops[0].removesuffix("data.pkl")
    if any(name.startswith(f"{folder}code/") for name in entries):
        raise TrainingError(f"{where} holds a program (TorchScript), tensors wanted; refused")
    order = f"{folder}byteorder"
    read = functools.partial(_entry, archive, where=where)
    if order in entries and read(entries[order]) != b"little":
        raise TrainingError(f"{where} was written on a big-endian machine; little-endian wanted")
    if entries[tops[0]].file_size > MAX_RECORD_BYTES:
        raise TrainingError(f"{where}: data.pkl is larger than {MAX_RECORD_BYTES:,} bytes; refused")
    storages: dict[str, Storage] = {}

    def persistent(found: Any) -> Storage:
        key, made = _storage_id(found)
        entry = entries.get(f"{folder}data/{key}")
        if entry is None:
            raise Refused(f'refers to the storage "{shown(key)}", which is not in it')
        if entry.file_size < made.size_bytes:
            raise Refused(
                f'declares {made.size_bytes:,} bytes for the storage "{shown(key)}" of '
                f"{entry.file_size:,}"
            )
        known = storages.setdefault(key, made)
        if (known.dtype, known.numel) != (made.dtype, made.numel):
            raise Refused(f'describes the storage "{shown(key)}" in two ways')
        known.read = functools.partial(_entry, archive, entry, where=where)
        return known

    pickled = io.BytesIO(read(entries[tops[0]]))
    return read_pickle(pickled, TENSORS, where=where, persistent=persistent)


def _checked_entries(
    archive: zipfile.ZipFile, content: bytes, *, where: str
) -> dict[str, zipfile.ZipInfo]:
    """Returns the entries by name once none can lead astray or swell."""
    found = archive.infolist()
    if len(found) > MAX_ENTRIES:
        raise TrainingError(f"{where} has {len(found):,} entries, {MAX_ENTRIES:,} at most; refused")
    for entry in found:
        name = shown(entry.filename)
        if _leads_out(entry.filename):
            raise TrainingError(f'{where}: the entry "{name}" leads out of the archive; refused')
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise TrainingError(
                f'{where}: the entry "{name}" is compressed or encrypted, which torch never does; '
                "refused"
            )
    declared = sum(entry.file_size for entry in found)
    if declared > len(content):
        raise TrainingError(
            f"{where}: its entries declare {declared:,} bytes, the file has {len(content):,}; "
            "refused"
        )
    by_name = {entry.filename: entry for entry in found}
    if len(by_name) != len(found):
        raise TrainingError(f"{where} has two entries of one name; refused")
    return by_name


def _leads_out(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, *, where: str) -> bytes:
    try:
        return archive.read(entry)  # its checksum is compared
    except _ZIP_ERRORS as error:
        raise TrainingError(f"{where} is damaged: {shown(str(error))}") from error


def read_old_torch_file(content: bytes, *, where: str) -> Any:
    """Reads the form before torch 1.6: four pickles, then the storages' keys and their bytes.

    A lone storage, which is how NVIDIA's pickles hold their tensors, comes back as `Storage`.
    """
    stream = io.BytesIO(content)
    plain = functools.partial(read_pickle, stream, {}, where=where)
    if plain() != OLD_MAGIC or plain() != OLD_PROTOCOL:
        raise TrainingError(f"{where} is no file of torch.save, whose magic number is missing")
    system = plain()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise TrainingError(f"{where} was written on a big-endian machine; little-endian wanted")
    storages: dict[str, Storage] = {}

    def persistent(found: Any) -> Storage:
        key, made = _storage_id(found)
        if made.size_bytes > len(content):
            raise Refused(
                f"declares {made.size_bytes:,} bytes for a storage, the file has {len(content):,}"
            )
        return storages.setdefault(key, made)

    held = read_pickle(stream, TENSORS, where=where, persistent=persistent)
    keys = plain()
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        raise TrainingError(f"{where} is damaged: no list of its storages follows")
    view = memoryview(content)
    for key in keys:
        start = stream.tell() + _COUNT.size
        end = start + (storages[key].size_bytes if key in storages else 0)
        counted = stream.read(_COUNT.size)
        if key not in storages or end > len(content) or counted != _COUNT.pack(storages[key].numel):
            raise TrainingError(f'{where} is damaged or cut short: storage "{shown(key)}"')
        storages[key].read = functools.partial(_slice, view, start, end)
        stream.seek(end)
    if any(storage.read is None for storage in storages.values()):
        raise TrainingError(f"{where} is cut short: a storage's numbers are missing")
    return held


def storage_from_bytes(where: str) -> Callable[[Any], Storage]:
    """Returns the stand-in for torch's `_load_from_bytes`, which would unpickle what it is given.

    It takes the bytes of one lone storage and nothing else.
    """

    def read(content: Any) -> Storage:
        if type(content) is not bytes or not is_torch_file(content):
            raise Refused("has a storage that is none of torch's")
        found = read_torch_file(content, where=f"{where}: a storage in it")
        if type(found) is not Storage:
            raise Refused("has a storage that holds something else than numbers")
        return found

    return read


def _storage_id(found: Any) -> tuple[str, Storage]:
    """Reads ("storage", type, key, place, count[, view of another storage])."""
    if type(found) is not tuple or len(found) not in (5, 6) or found[0] != "storage":
        raise Refused("refers to something else than a storage")
    if type(found[2]) is not str:
        raise Refused("refers to a storage whose key is no text")
    if len(found) == 6 and found[5] is not None:
        raise Refused("has storages that are views of others, as torch wrote before 2017")
    return found[2], storage_of(found[1], found[4])


def _slice(view: memoryview, start: int, end: int) -> memoryview:
    return view[start:end]
