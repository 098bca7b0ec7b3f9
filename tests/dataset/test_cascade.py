"""The cascade finds real and drawn faces, and few others."""

import csv
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from dataset.cascade import LbpDetector
from dataset.decode import decode
from dataset.geometry import Box
from tests.dataset.home import portrait, scenery

SMALLEST_PX = 42  # what the default settings ask for


def holds(row: dict[str, str], box: Box) -> bool:
    x, y, w, h = (float(row[name]) for name in "xywh")
    return x <= box.x + box.w / 2 <= x + w and y <= box.y + box.h / 2 <= y + h


def test_real_faces_are_found_no_worse_than_by_the_reference_settings(real_data: Path) -> None:
    folder = real_data / "illustrations"
    truth: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (folder / "face_boxes.csv").open() as file:
        for row in csv.DictReader(file):
            truth[row["file"]].append(row)
    detector = LbpDetector(SMALLEST_PX)
    found = {"clear": 0, "other": 0}
    false = 0
    for path in sorted((folder / "images").iterdir()):
        boxes = detector.find(decode(path.read_bytes(), where=path.name))
        for row in truth[path.name]:
            kind = "clear" if row["kind"] == "clear" else "other"
            found[kind] += any(holds(row, box) for box in boxes)
        for one, two in itertools.permutations(boxes, 2):
            middle = (one.x + one.w / 2, one.y + one.h / 2)
            inside = two.x <= middle[0] <= two.x + two.w and two.y <= middle[1] <= two.y + two.h
            assert not inside, f"{path.name}: one face found twice"
        false += sum(not any(holds(row, box) for row in truth[path.name]) for box in boxes)
    # Reference (whole picture, minSize 24): 52 of 80 clear, 52 of 117 in all, 1 false of 53.
    assert found["clear"] >= 57
    assert sum(found.values()) >= 59
    assert false <= 1


def test_real_pictures_without_a_face_give_none(real_data: Path) -> None:
    detector = LbpDetector(SMALLEST_PX)
    for path in sorted((real_data / "illustrations" / "no_face").iterdir()):
        assert detector.find(decode(path.read_bytes(), where=path.name)) == [], path.name


def test_drawn_face_is_found_in_the_pictures_own_pixels() -> None:
    small = np.array(portrait(3))
    (box,) = LbpDetector(SMALLEST_PX).find(small)
    assert (box.x + box.w / 2, box.y + box.h / 2) == pytest.approx((120, 125), abs=25)
    (large,) = LbpDetector(2 * SMALLEST_PX).find(np.array(portrait(3, side=480)))
    assert (large.x, large.y, large.w) == pytest.approx((2 * box.x, 2 * box.y, 2 * box.w), abs=12)


def test_noise_gives_no_face() -> None:
    assert LbpDetector(SMALLEST_PX).find(np.array(scenery(1))) == []


def test_picture_smaller_than_the_window_gives_no_face() -> None:
    assert LbpDetector(SMALLEST_PX).find(np.zeros((8, 8, 3), np.uint8)) == []
    assert LbpDetector(SMALLEST_PX).find(np.zeros((1, 1, 3), np.uint8)) == []


def test_face_smaller_than_the_window_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="min_face_px is 20; the cascade's window is 24"):
        LbpDetector(20)
