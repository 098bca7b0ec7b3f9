"""A user's own tagger: an ONNX file with its tag list, run by OpenCV and mapped onto our labels.

Its inputs and outputs are read here without the `onnx` package, which a bare machine has not.
"""

import dataclasses
import functools
import hashlib
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dataset.errors import UsageError, listed
from dataset.store import digest_of
from models.tagger.data import columns_of_labels, read_tags
from models.tagger.model import Images, Probabilities, at_side, check_images, sigmoid

LAYOUTS = ("nhwc", "nchw")
# How pixels are handed over: the order of the channels, and what 0 to 255 becomes.
RANGES = {
    "bgr255": "blue first, 0 to 255 (WD taggers)",
    "rgb255": "red first, 0 to 255",
    "rgb01": "red first, 0 to 1",
    "rgb11": "red first, -1 to 1",
}
_WD_SIDE_PX = 448
_ALMOST = 1e-3  # how far a probability may be outside 0 to 1 by rounding

# Field numbers in onnx.proto, messages ModelProto, GraphProto, ValueInfoProto
# Source: https://github.com/onnx/onnx
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


@dataclasses.dataclass(frozen=True)
class OnnxInput:
    """How a model wants its pictures: side, layout and range; see LAYOUTS and RANGES."""

    side_px: int
    layout: str
    range: str


class OnnxTagger:
    """A model that gives each tag of a list a probability; answers for our labels.

    path: the ONNX file; tags: its list; labels: those that are wanted. side_px, layout and
    range are found from the model's input where None: [N,S,S,3] is taken as a WD tagger's (bgr255),
    [N,3,S,S] as rgb01. logits: the model's outputs are put through a sigmoid.

    Raises UsageError naming the file: not there, no ONNX model, more than one input, a shape or a
    number of tags that does not fit, labels without a tag, or what OpenCV cannot run.
    """

    def __init__(
        self,
        path: Path,
        tags: Path,
        labels: Sequence[str],
        *,
        side_px: int | None = None,
        layout: str | None = None,
        range: str | None = None,  # noqa: A002
        logits: bool = False,
    ) -> None:
        # OpenCV's network cannot be pickled: in another process it is read from the file.
        self._again = functools.partial(
            OnnxTagger, path, tags, tuple(labels),
            side_px=side_px, layout=layout, range=range, logits=logits,
        )  # fmt: skip
        self._path, self._logits = path, logits
        header = read_header(path)
        self._names = tuple(labels)
        self._tags = read_tags(tags)
        self._input = input_of(header, path, side_px=side_px, layout=layout, value_range=range)
        _check_outputs(header, path, tags, len(self._tags))
        self._columns = columns_of_labels(self._tags, labels, where=str(tags))
        try:
            self._net = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise UsageError(f"{path}: OpenCV cannot read this model: {_first(error)}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of the columns."""
        return self._names

    @property
    def input_px(self) -> int:
        """The side that the model wants."""
        return self._input.side_px

    @property
    def input(self) -> OnnxInput:
        """How the model gets its pictures."""
        return self._input

    @property
    def digest(self) -> str:
        """The sha256 over the file, the tags, the labels and how pictures go in."""
        with self._path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return digest_of(
            {
                "onnx": sha256,
                "tags": self._tags,
                "labels": list(self._names),
                "input": dataclasses.asdict(self._input),
                "logits": self._logits,
            }
        )

    def probabilities(self, images: Images) -> Probabilities:
        """Returns the probability of each label [N,L] for uint8 pictures [N,S,S,3].

        A label's is the largest of the tags that stand for it. Raises UsageError if the model gives
        another number of outputs than there are tags, or no probabilities.
        """
        check_images(images)
        found = np.zeros((len(images), len(self._names)), np.float32)
        for row, image in enumerate(at_side(images, self.input_px)):
            outputs = self._outputs(image)
            found[row] = [outputs[columns].max() for columns in self._columns]
        return found

    def _outputs(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """All tags' probabilities [T] for one picture [R,R,3]: models differ in batch sizes."""
        try:
            self._net.setInput(prepared(image, self._input))
            outputs = np.asarray(self._net.forward(), np.float32).reshape(-1)
        except cv2.error as error:
            raise UsageError(
                f"{self._path}: OpenCV cannot run this model on {self._input}: {_first(error)}. "
                "Do --input-size, --layout and --range fit it?"
            ) from error
        if len(outputs) != len(self._tags):
            raise UsageError(
                f"{self._path} gives {len(outputs):,} numbers a picture, its list has "
                f"{len(self._tags):,} tags. Is that the list of this model?"
            )
        if self._logits:
            return sigmoid(outputs.astype(np.float64)).astype(np.float32)
        if not (outputs >= -_ALMOST).all() or not (outputs <= 1 + _ALMOST).all():
            raise UsageError(
                f"{self._path} gives numbers from {outputs.min():g} to {outputs.max():g}, not "
                "probabilities from 0 to 1. If they are logits, say so with --logits."
            )
        return np.clip(outputs, 0, 1)


def prepared(image: npt.NDArray[np.uint8], wanted: OnnxInput) -> npt.NDArray[np.float32]:
    """Returns one RGB picture [R,R,3] as the model's input: [1,R,R,3] or [1,3,R,R]."""
    ordered = image[:, :, ::-1] if wanted.range.startswith("bgr") else image
    values = ordered.astype(np.float32)
    if wanted.range == "rgb01":
        values /= 255
    elif wanted.range == "rgb11":
        values = values / 127.5 - 1
    if wanted.layout == "nchw":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[None])


def input_of(
    header: OnnxHeader,
    path: Path,
    *,
    side_px: int | None,
    layout: str | None,
    value_range: str | None,
) -> OnnxInput:
    """Returns how the model wants its pictures; raises UsageError for what does not fit together.

    What is given is checked against the model's declared input; what is None is found from it.
    """
    faults = []
    if layout is not None and layout not in LAYOUTS:
        faults.append(f'layout is "{layout}"; {" or ".join(LAYOUTS)} wanted')
    if value_range is not None and value_range not in RANGES:
        faults.append(f'range is "{value_range}"; one of {", ".join(RANGES)} wanted')
    if len(header.inputs) != 1:
        names = ", ".join(port.name for port in header.inputs) or "none"
        faults.append(f"one input is wanted, it has {len(header.inputs)}: {names}")
    if faults:
        raise UsageError(f"{path}:\n{listed(faults)}")
    port = header.inputs[0]
    found = layout or _layout(port)
    if found is None:
        raise UsageError(
            f"{path}: its input {_shown(port)} is neither [N,S,S,3] nor [N,3,S,S]; "
            "say which with --layout nhwc or nchw"
        )
    sides = _sides(port, found)
    side = side_px or next((one for one in sides if one), None)
    if side is None:
        raise UsageError(
            f"{path}: its input {_shown(port)} leaves the side open; give it with --input-size "
            f"(WD taggers: {_WD_SIDE_PX})"
        )
    if any(one not in (None, side) for one in sides) or _channels(port, found) not in (None, 3):
        wanted = f"[N,{side},{side},3]" if found == "nhwc" else f"[N,3,{side},{side}]"
        raise UsageError(f"{path}: its input is {_shown(port)}; {wanted} was asked for")
    return OnnxInput(side, found, value_range or ("bgr255" if found == "nhwc" else "rgb01"))


def _layout(port: Port) -> str | None:
    if len(port.shape) != 4:
        return None
    if port.shape[1] == 3 and port.shape[3] != 3:
        return "nchw"
    return "nhwc" if port.shape[3] == 3 and port.shape[1] != 3 else None


def _sides(port: Port, layout: str) -> tuple[int | None, ...]:
    if len(port.shape) != 4:
        return ()
    return port.shape[1:3] if layout == "nhwc" else port.shape[2:4]


def _channels(port: Port, layout: str) -> int | None:
    if len(port.shape) != 4:
        return None
    return port.shape[3] if layout == "nhwc" else port.shape[1]


def _check_outputs(header: OnnxHeader, path: Path, tags: Path, count: int) -> None:
    sides = list(header.outputs[0].shape[1:]) if header.outputs else []
    declared = int(np.prod([side for side in sides if side is not None])) if sides else None
    if declared is not None and None not in sides and declared != count:
        raise UsageError(
            f"{path} has {declared:,} outputs, {tags} has {count:,} tags. "
            "Is that the list of this model?"
        )


def _shown(port: Port) -> str:
    sides: list[Any] = ["?" if side is None else side for side in port.shape]
    return f"{port.name} [{','.join(map(str, sides))}]"


def _first(error: cv2.error) -> str:
    return str(error).strip().splitlines()[0]


# The file's header. An ONNX file is a protocol buffer: a row of fields, each a number, a kind and a
# value. Only the few that lead to the shapes are read; the weights, often hundreds of megabytes,
# are stepped over.
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
