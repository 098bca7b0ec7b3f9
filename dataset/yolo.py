"""Finds faces with a user's own ONNX model in YOLO's output layout, run by OpenCV.

Two layouts are read: [1, 4+C, N], channels first and without an objectness (as YOLOv8 and later
write it), and [1, N, 5+C], a row a box with an objectness (as YOLOv5). N boxes, C classes; a box is
its centre, width and height in pixels of the network's input. All classes count as faces.
"""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from dataset.decode import Picture
from dataset.detection import Found, box_within
from dataset.errors import ConfigError

Floats = npt.NDArray[np.float32]

_GREY = 114  # what YOLO's own training lays around a letterboxed picture
_WANTED = "[1, 4+C, N] (as YOLOv8 writes it) or [1, N, 5+C] (as YOLOv5) wanted"
_END_TO_END = (1, 300, 6)  # corners, score and class after an NMS of its own: another thing


@dataclass(frozen=True)
class Letterbox:
    """How a picture was fitted into a square: scaled, then moved by `left` and `top` pixels."""

    scale: float
    left: int
    top: int

    def back(self, boxes: Floats) -> Floats:
        """Maps boxes [N, 4] (centre x, centre y, width, height) to corners in the picture."""
        centres, halves = boxes[:, :2], boxes[:, 2:4] / 2
        corners = np.concatenate([centres - halves, centres + halves], axis=1)
        shift = np.array([self.left, self.top] * 2, np.float32)
        return np.asarray((corners - shift) / self.scale, np.float32)


class OnnxDetector:
    """Finds faces with the model in `path`; not to be shared by threads.

    `input_px` is the side of the network's square input, `min_score` (0-1) the least score, and of
    two boxes that overlap by more than `max_iou` (0-1) the lower is left out. Raises ConfigError,
    naming the file, if it is missing, no ONNX model that OpenCV can run, or of another layout.
    """

    reducible_by = 1

    def __init__(
        self, path: str, *, input_px: int = 640, min_score: float = 0.3, max_iou: float = 0.5
    ) -> None:
        cv2.setNumThreads(1)  # one picture a process: the processes are the parallelism
        self._path = path
        self._input_px = input_px
        self._min_score = min_score
        self._max_iou = max_iou
        try:
            self._net = cv2.dnn.readNetFromONNX(np.frombuffer(_content(path), np.uint8))
        except cv2.error as error:
            raise ConfigError(
                f"{path}: not an ONNX model that OpenCV can read: {_first_line(error)}"
            ) from error

    def find(self, picture: Picture, *, reduced_by: float = 1.0) -> list[Found]:
        """Returns the faces on an RGB picture [H, W, 3], the largest first, in its own pixels."""
        height, width = picture.shape[:2]
        fitted, letterbox = letterboxed(picture, self._input_px)
        boxes, scores = read_output(self._run(fitted), where=self._path)
        kept = scores >= self._min_score
        corners, scores = letterbox.back(boxes[kept]), scores[kept]
        found = [
            Found(box_within(*corners[row].tolist(), width=width, height=height), float(score))
            for row, score in self._without_overlaps(corners, scores)
        ]
        return sorted(found, key=lambda one: (-one.box.w * one.box.h, one.box.y, one.box.x))

    def _run(self, fitted: Picture) -> Floats:
        blob = cv2.dnn.blobFromImage(fitted, scalefactor=1 / 255)  # [1, 3, S, S], RGB in 0-1
        try:
            self._net.setInput(blob)
            outputs = self._net.forward(self._net.getUnconnectedOutLayersNames())
        except cv2.error as error:
            side = self._input_px
            raise ConfigError(
                f"{self._path}: OpenCV cannot run it on an input of [1, 3, {side}, {side}]: "
                f"{_first_line(error)}. Is {side} the side that it was exported with?"
            ) from error
        return np.asarray(outputs[0], np.float32)

    def _without_overlaps(self, corners: Floats, scores: Floats) -> list[tuple[int, float]]:
        if not len(scores):
            return []
        sides = corners[:, 2:] - corners[:, :2]
        rows = cv2.dnn.NMSBoxes(
            np.concatenate([corners[:, :2], sides], axis=1).tolist(),
            scores.tolist(),
            self._min_score,
            self._max_iou,
        )
        return [(int(row), float(scores[row])) for row in np.ravel(rows)]


def letterboxed(picture: Picture, side: int) -> tuple[Picture, Letterbox]:
    """Fits a picture [H, W, 3] into the middle of a grey square [side, side, 3]."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = np.full((side, side, 3), _GREY, np.uint8)
    square[top : top + size[1], left : left + size[0]] = cv2.resize(
        picture, size, interpolation=how
    )
    return square, Letterbox(scale, left, top)


def read_output(output: Floats, *, where: str) -> tuple[Floats, Floats]:
    """Returns the boxes [N, 4] (centre, width, height, input pixels) and scores [N] of an output.

    Raises ConfigError, naming `where`, the shape that was found and those that can be read.
    """
    shape = list(output.shape)
    if output.ndim != 3 or shape[0] != 1:
        raise ConfigError(f"{where}: its output is {shape}; {_WANTED}")
    if output.shape == _END_TO_END:
        raise ConfigError(
            f"{where}: its output is {shape}, as of a model that was exported with its own NMS; "
            f"{_WANTED}. Export it without NMS."
        )
    channels_first = shape[1] < shape[2]
    rows = output[0].T if channels_first else output[0]
    least = 5 if channels_first else 6
    if shape[1] == shape[2] or rows.shape[1] < least:
        raise ConfigError(f"{where}: its output is {shape}; {_WANTED}")
    if channels_first:
        return rows[:, :4], rows[:, 4:].max(axis=1)
    return rows[:, :4], rows[:, 4] * rows[:, 5:].max(axis=1)


def model_sha256(path: str) -> str:
    """Returns the sha256 (hex) of a model's file; raises ConfigError if it cannot be read."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise ConfigError(_unreadable(path, error)) from error
    return _sha256(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _sha256(path: str, _size: int, _changed_ns: int) -> str:
    return hashlib.sha256(_content(path)).hexdigest()


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(_unreadable(path, error)) from error


def _unreadable(path: str, error: OSError) -> str:
    return f"{path}: an ONNX file is wanted and cannot be read: {error.strerror}"


def _first_line(error: cv2.error) -> str:
    return (str(error).splitlines() or ["no message"])[0][:200]
