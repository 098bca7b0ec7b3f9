"""Small ONNX models in YOLO's layouts that find the red squares of a picture, by a convolution."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDE = 8


def red_finder(path: Path, *, input_px: int, box_px: float, objectness: bool = False) -> Path:
    """Writes a model of one class that gives each cell a box of `box_px` about its middle.

    A cell is STRIDE x STRIDE pixels; its score is 1 if it is wholly red, and below 0 for grey and
    white. With `objectness` the output is [1, N, 6], as YOLOv5 writes it, else [1, 5, N].
    """
    cells = input_px // STRIDE
    kernel = np.zeros((1, 3, STRIDE, STRIDE), np.float32)
    kernel[0, 0], kernel[0, 1:] = 1 / STRIDE**2, -1 / STRIDE**2  # red less green and blue
    middles = (np.arange(cells, dtype=np.float32) + 0.5) * STRIDE
    x, y = np.meshgrid(middles, middles)
    boxes = np.stack([x.ravel(), y.ravel(), *np.full((2, cells**2), box_px)])[None]
    initial: dict[str, npt.NDArray[Any]] = {"kernel": kernel, "boxes": boxes.astype(np.float32)}
    initial["flat"] = np.array([1, 1, cells**2], np.int64)
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["red"], strides=[STRIDE, STRIDE]),
        helper.make_node("Reshape", ["red", "flat"], ["score"]),
    ]
    parts = ["boxes", "score"]
    if objectness:
        initial["one"] = np.ones((1, 1, cells**2), np.float32)
        parts.append("one")
    joined = "joined" if objectness else "output0"
    nodes.append(helper.make_node("Concat", parts, [joined], axis=1))
    if objectness:
        nodes.append(helper.make_node("Transpose", [joined], ["output0"], perm=[0, 2, 1]))
    shape = [1, cells**2, 6] if objectness else [1, 5, cells**2]
    return _written(path, nodes, initial, input_px=input_px, shape=shape)


def constant(path: Path, output: npt.NDArray[np.float32], *, input_px: int) -> Path:
    """Writes a model whose output is always `output`, whatever it is shown."""
    initial: dict[str, npt.NDArray[Any]] = {
        "kernel": np.zeros((1, 3, input_px, input_px), np.float32),
        "one": np.array([1] * output.ndim, np.int64),
        "output": output,
    }
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "one"], ["zero"]),
        helper.make_node("Add", ["zero", "output"], ["output0"]),
    ]
    return _written(path, nodes, initial, input_px=input_px, shape=list(output.shape))


def _written(
    path: Path,
    nodes: list[onnx.NodeProto],
    initial: dict[str, npt.NDArray[Any]],
    *,
    input_px: int,
    shape: list[int],
) -> Path:
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, input_px, input_px])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, shape)
    constants = [numpy_helper.from_array(value, name) for name, value in initial.items()]
    graph = helper.make_graph(nodes, "faces", [image], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path
