"""Finds drawn faces with the LBP cascade that danbooru-utility carries."""

import importlib.resources
import math

import cv2
import numpy as np

from dataset.decode import Picture
from dataset.geometry import Box

WINDOW_PX = 24  # the side of the cascade's own window: no smaller face can be found
SCALE_FACTOR = 1.1
MIN_NEIGHBOURS = 5


class LbpDetector:
    """Finds faces at least `min_face_px` wide; not safe to share between threads.

    The picture is first reduced so that a face of `min_face_px` just fills the cascade's window:
    the time goes with the reduced area (1000x1400 on one core: minSize 24 gives 4.3 pictures/s,
    96 gives 45), and what is lost is too small to be used.
    """

    def __init__(self, min_face_px: int = WINDOW_PX) -> None:
        if min_face_px < WINDOW_PX:
            raise ValueError(f"min_face_px is {min_face_px}; the cascade's window is {WINDOW_PX}")
        cv2.setNumThreads(1)  # one picture a process: the processes are the parallelism
        resource = importlib.resources.files("danbooru") / "lbpcascade_animeface.xml"
        with importlib.resources.as_file(resource) as path:
            self._cascade = cv2.CascadeClassifier(str(path))
        self._reduction = WINDOW_PX / min_face_px

    def find(self, picture: Picture) -> list[Box]:
        """Returns the faces on an RGB picture [H, W, 3] in its own pixels, the largest first."""
        height, width = picture.shape[:2]
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        if self._reduction < 1:
            size = (math.ceil(width * self._reduction), math.ceil(height * self._reduction))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        found, hits = self._cascade.detectMultiScale2(
            cv2.equalizeHist(grey),
            scaleFactor=SCALE_FACTOR,
            minNeighbors=MIN_NEIGHBOURS,
            minSize=(WINDOW_PX, WINDOW_PX),
        )
        across, down = width / grey.shape[1], height / grey.shape[0]
        scaled = np.reshape(found, (-1, 4)) * (across, down, across, down)
        boxes = [_inside(row, width, height) for row in scaled.tolist()]
        by_hits = sorted(zip(boxes, np.ravel(hits).tolist(), strict=True), key=_surest_first)
        return sorted(_one_a_face([box for box, _ in by_hits]), key=_largest_first)


def _one_a_face(boxes: list[Box]) -> list[Box]:
    """Leaves out each box whose middle is in an earlier one, or the other way round.

    A large face may be found twice, the second time too low and too large: on 22 of 1,000 drawn
    portraits, and on each of them the box with more hits was the right one.
    """
    kept: list[Box] = []
    for box in boxes:
        if not any(_holds(other, box) or _holds(box, other) for other in kept):
            kept.append(box)
    return kept


def _holds(box: Box, other: Box) -> bool:
    """Tells whether the middle of `other` lies in `box`."""
    x, y = other.x + other.w / 2, other.y + other.h / 2
    return box.x <= x <= box.x + box.w and box.y <= y <= box.y + box.h


def _surest_first(found: tuple[Box, int]) -> tuple[int, int, int, int]:
    box, hits = found  # hits: how many of the cascade's windows agreed
    return (-hits, *_largest_first(box))


def _largest_first(box: Box) -> tuple[int, int, int]:
    return (-box.w * box.h, box.y, box.x)


def _inside(row: list[float], width: int, height: int) -> Box:
    x, y = round(row[0]), round(row[1])
    return Box(x, y, min(round(row[2]), width - x), min(round(row[3]), height - y))
