"""Reads an ONNX file's inputs and outputs: names and shapes, without the `onnx` package.

An ONNX file is a protocol buffer: a row of fields, each a number, a kind and a value. Only the few
that lead to the shapes are read; the weights, often hundreds of megabytes, are stepped over.
Source: onnx.proto, https://github.com/onnx/onnx, messages ModelProto, GraphProto, ValueInfoProto.
"""

import dataclasses
import mmap
from collections.abc import Iterator
from pathlib import Path

from dataset.errors import UsageError

# Field numbers in onnx.proto
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_INITIALIZER_NAME = 8
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE = 1, 2, 1, 1

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # kinds of a field
_MAX_VARINT_BYTES = 10

Field = tuple[int, int, int, int]  # number; value of a varint or 0; start and end of the bytes


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output: its name, and its sides; None where the file leaves one open."""

    name: str
    shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class OnnxHeader:
    """What goes into a model and what comes out, weights left aside."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read_header(path: Path) -> OnnxHeader:
    """Returns the inputs and outputs of an ONNX file.

    Raises UsageError naming the file if it is not there, is empty, cut off, or no ONNX model.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file; an ONNX model wanted")
    if not path.stat().st_size:
        raise UsageError(f"{path} is empty; an ONNX model wanted")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        try:
            return _header(held)
        except (_Malformed, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is no whole ONNX model: {error}") from error


class _Malformed(Exception):
    """The bytes are not those of the message that was expected."""


def _header(held: mmap.mmap) -> OnnxHeader:
    graphs = [f for f in _fields(held, 0, len(held)) if f[0] == _MODEL_GRAPH]
    if not graphs:
        raise _Malformed("it holds no graph")
    weights: set[str] = set()
    inputs, outputs = [], []
    for number, _, start, end in _fields(held, *graphs[-1][2:]):
        if number == _GRAPH_INITIALIZER:
            weights.add(_text(held, start, end, field=_INITIALIZER_NAME))
        elif number == _GRAPH_INPUT:
            inputs.append(_port(held, start, end))
        elif number == _GRAPH_OUTPUT:
            outputs.append(_port(held, start, end))
    # Old files name their weights among the inputs too.
    return OnnxHeader(tuple(port for port in inputs if port.name not in weights), tuple(outputs))


def _port(held: mmap.mmap, start: int, end: int) -> Port:
    shape: tuple[int | None, ...] = ()
    for kind in _inside(held, start, end, field=_VALUE_TYPE):
        for tensor in _inside(held, *kind, field=_TYPE_TENSOR):
            for sides in _inside(held, *tensor, field=_TENSOR_SHAPE):
                dims = _inside(held, *sides, field=_SHAPE_DIM)
                shape = tuple(_side(held, *dim) for dim in dims)
    return Port(_text(held, start, end, field=_VALUE_NAME), shape)


def _side(held: mmap.mmap, start: int, end: int) -> int | None:
    for number, value, _, _ in _fields(held, start, end):
        if number == _DIM_VALUE and value > 0:
            return value
    return None


def _text(held: mmap.mmap, start: int, end: int, *, field: int) -> str:
    for first, last in _inside(held, start, end, field=field):
        return held[first:last].decode()
    return ""


def _inside(held: mmap.mmap, start: int, end: int, *, field: int) -> Iterator[tuple[int, int]]:
    """Yields where each value of one field lies."""
    for number, _, first, last in _fields(held, start, end):
        if number == field:
            yield first, last


def _fields(held: mmap.mmap, start: int, end: int) -> Iterator[Field]:
    place = start
    while place < end:
        key, place = _varint(held, place, end)
        number, kind = key >> 3, key & 7
        value, first = 0, place
        if kind == _VARINT:
            value, place = _varint(held, place, end)
        elif kind == _LENGTH:
            size, first = _varint(held, place, end)
            place = first + size
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if kind == _EIGHT_BYTES else 4
        else:
            raise _Malformed(f"byte {first - 1:,} begins no field")
        if number == 0 or place > end:
            raise _Malformed(f"the field at byte {first - 1:,} does not fit into it")
        yield number, value, first, place


def _varint(held: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    """Reads a number of 7 bits a byte, the lowest first; returns it and the place after it."""
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if place + count >= end:
            break
        byte = held[place + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise _Malformed(f"it is cut off or damaged at byte {place:,}")
