"""A second reading of ncnn's files: the layers of waifu2x's networks by torch, in float32."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAGIC = "7767517"
HALVES = 0x01306B47  # the word before weights that are stored as float16; 0 before float32
RELU, LEAKY, SIGMOID = 1, 2, 4


@dataclass
class Layer:
    kind: str
    inputs: list[str]
    outputs: list[str]
    numbers: dict[int, float]  # its parameters by ncnn's ids
    slope: float = 0.0
    weights: list[Tensor] = field(default_factory=list)


class Words:
    """A .bin file, read from front to back."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def weights(self, count: int) -> Tensor:
        flag = int(self._take(np.dtype("<u4"), 1)[0])
        assert flag in (0, HALVES), hex(flag)
        if flag == 0:
            return self.floats(count)
        values = torch.from_numpy(self._take(np.dtype("<f2"), count).astype(np.float32))
        self._place += -self._place % 4
        return values

    def floats(self, count: int) -> Tensor:
        return torch.from_numpy(self._take(np.dtype("<f4"), count).astype(np.float32))

    @property
    def is_at_end(self) -> bool:
        return self._place == len(self._content)

    def _take(self, kind: np.dtype, count: int) -> np.ndarray:
        taken = np.frombuffer(self._content, kind, count, self._place)
        self._place += taken.nbytes
        return taken


def read_layers(param: Path, weights: Path) -> list[Layer]:
    magic, _counts, *lines = param.read_text().splitlines()
    assert magic == MAGIC
    layers = [_layer(line.split()) for line in lines]
    words = Words(weights.read_bytes())
    for layer in layers:
        if layer.kind in ("Convolution", "Deconvolution", "InnerProduct"):
            size_id = 2 if layer.kind == "InnerProduct" else 6
            layer.weights = [words.weights(int(layer.numbers[size_id]))]
            layer.weights.append(words.floats(int(layer.numbers[0])))
    assert words.is_at_end
    return layers


def run_layers(layers: list[Layer], planes: np.ndarray) -> np.ndarray:
    """Returns the last layer's output for planes [3,H,W]."""
    blobs: dict[str, Tensor] = {}
    with torch.no_grad():
        for layer in layers:
            given = [blobs[name] for name in layer.inputs]
            made = torch.from_numpy(planes)[None] if layer.kind == "Input" else _run(layer, given)
            blobs.update(dict.fromkeys(layer.outputs, made))
    return blobs[layers[-1].outputs[0]][0].numpy()


def _layer(words: list[str]) -> Layer:
    kind, _name, ins, outs = words[0], words[1], int(words[2]), int(words[3])
    names = words[4 : 4 + ins + outs]
    pairs = dict(word.split("=") for word in words[4 + ins + outs :])
    slope = float(pairs.pop("-23310", "1,0").split(",")[1])  # the activation's own parameters
    numbers = {int(key): float(value) for key, value in pairs.items()}
    return Layer(kind, names[:ins], names[ins:], numbers, slope)


def _run(layer: Layer, given: list[Tensor]) -> Tensor:
    first, numbers = given[0], layer.numbers
    if layer.kind == "Split":
        return first
    if layer.kind == "Eltwise":
        assert numbers == {0: 1}, "only sums are known"
        return given[0] + given[1]
    if layer.kind == "Crop":
        height, width = given[1].shape[2:]
        left, top = int(numbers[0]), int(numbers[1])
        return first[:, :, top : top + height, left : left + width]
    if layer.kind == "Pooling":
        assert numbers == {0: 1, 4: 1}, "only means over all are known"
        return first.mean(dim=(2, 3))
    if layer.kind == "Scale":
        assert numbers == {0: -233}, "only a second blob as scale is known"
        return first * given[1][:, :, None, None]
    return _activated(layer, _weighed(layer, first))


def _weighed(layer: Layer, given: Tensor) -> Tensor:
    weight, bias = layer.weights
    numbers = layer.numbers
    out = int(numbers[0])
    if layer.kind == "InnerProduct":
        return F.linear(given, weight.reshape(out, -1), bias)
    side, stride, pad = int(numbers[1]), int(numbers.get(3, 1)), int(numbers.get(4, 0))
    kernels = weight.reshape(out, -1, side, side)
    if layer.kind == "Convolution":
        return F.conv2d(given, kernels, bias, stride, pad)
    assert layer.kind == "Deconvolution", layer.kind
    return F.conv_transpose2d(given, kernels.transpose(0, 1), bias, stride, pad)


def _activated(layer: Layer, values: Tensor) -> Tensor:
    activation = int(layer.numbers.get(9, 0))
    if activation == 0:
        return values
    known = {
        RELU: F.relu,
        LEAKY: lambda given: F.leaky_relu(given, layer.slope),
        SIGMOID: torch.sigmoid,
    }
    return known[activation](values)
