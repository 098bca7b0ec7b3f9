"""The cascade finds real and drawn faces, and few others."""

import csv
import itertools
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset.cascade import SEARCHES, LbpDetector
from dataset.decode import Picture, decode_reduced
from dataset.detection import one_a_face
from dataset.geometry import Box
from tests.dataset.home import portrait, scenery

SMALLEST_PX = 42  # what the default settings ask for
MODES = tuple(SEARCHES)


@dataclass(frozen=True)
class Truth:
    box: Box
    kind: str

    def holds(self, box: Box) -> bool:
        x, y, own = box.x + box.w / 2, box.y + box.h / 2, self.box
        return own.x <= x <= own.x + own.w and own.y <= y <= own.y + own.h


@dataclass(frozen=True)
class Real:
    """The real illustrations' files, and the faces that a person has marked on them."""

    pictures: dict[str, bytes]
    without_face: dict[str, bytes]
    truth: dict[str, list[Truth]]


@pytest.fixture(scope="module")
def real(real_data: Path) -> Real:
    folder = real_data / "illustrations"
    truth: dict[str, list[Truth]] = defaultdict(list)
    with (folder / "face_boxes.csv").open() as file:
        for row in csv.DictReader(file):
            box = Box(*(round(float(row[name])) for name in "xywh"))
            truth[row["file"]].append(Truth(box, row["kind"]))
    return Real(_contents(folder / "images"), _contents(folder / "no_face"), truth)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def found_in(content: bytes, detector: LbpDetector, *, where: str) -> list[Box]:
    """Finds faces as the crop stage does: on a picture that is decoded no larger than need be."""
    seen = decode_reduced(content, where=where, by=detector.reducible_by)
    scale = seen.width / seen.picture.shape[1]
    found = detector.find(seen.picture, reduced_by=scale)
    assert one_a_face(found) == found, f"{where}: one face found twice"
    boxes = [one.box for one in found]
    return [Box(*(round(scale * value) for value in (b.x, b.y, b.w, b.h))) for b in boxes]


def boxes(picture: Picture, mode: str) -> list[Box]:
    return [found.box for found in LbpDetector(SMALLEST_PX, mode).find(picture)]


# The usual settings (whole picture, equalised, 1.1/5/24): 52 of 80 clear, 52 of 117, 1 false of 53.
@pytest.mark.parametrize(
    ("mode", "clear", "of_all", "false_part"),
    [
        pytest.param("thorough", 0.82, 0.62, 0.03, marks=pytest.mark.slow),
        ("fast", 0.82, 0.62, 0.03),
    ],
)
def test_real_faces_are_found_and_little_else(
    real: Real, mode: str, clear: float, of_all: float, false_part: float
) -> None:
    detector = LbpDetector(SMALLEST_PX, mode)
    hits: dict[str, list[bool]] = defaultdict(list)
    false = count = 0
    for name, content in real.pictures.items():
        found = found_in(content, detector, where=name)
        count += len(found)
        faces = real.truth[name]
        false += sum(not any(face.holds(box) for face in faces) for box in found)
        for face in faces:
            hits[face.kind].append(any(face.holds(box) for box in found))
    every = list(itertools.chain.from_iterable(hits.values()))
    assert np.mean(hits["clear"]) >= clear
    assert np.mean(every) >= of_all
    assert false <= false_part * count, f"{false} of {count}"


@pytest.mark.parametrize("mode", MODES)
def test_real_pictures_without_a_face_give_none(real: Real, mode: str) -> None:
    detector = LbpDetector(SMALLEST_PX, mode)
    found = {
        name: found_in(content, detector, where=name) for name, content in real.without_face.items()
    }
    assert {name: faces for name, faces in found.items() if faces} == {}


@pytest.mark.parametrize("mode", MODES)
def test_drawn_face_is_found_in_the_pictures_own_pixels(mode: str) -> None:
    (small,) = boxes(np.array(portrait(3)), mode)
    assert (small.x + small.w / 2, small.y + small.h / 2) == pytest.approx((120, 125), abs=25)
    (large,) = boxes(np.array(portrait(3, side=480)), mode)
    assert (large.x, large.y, large.w) == pytest.approx(
        (2 * small.x, 2 * small.y, 2 * small.w), abs=0.1 * large.w
    )


@pytest.mark.parametrize("mode", MODES)
def test_face_is_found_on_its_mirror_image_too(mode: str) -> None:
    picture = np.array(portrait(5))
    (box,) = boxes(picture, mode)
    (mirrored,) = boxes(np.ascontiguousarray(picture[:, ::-1]), mode)
    right = picture.shape[1] - mirrored.x - mirrored.w
    assert (right, mirrored.y, mirrored.w) == pytest.approx((box.x, box.y, box.w), abs=0.12 * box.w)


def test_small_face_is_found_by_thorough_alone() -> None:
    canvas = np.full((400, 400, 3), 200, np.uint8)
    canvas[150:220, 150:220] = cv2.resize(
        np.array(portrait(3)), (70, 70), interpolation=cv2.INTER_AREA
    )
    (box,) = boxes(canvas, "thorough")
    assert box.w < SEARCHES["thorough"].large_px
    assert boxes(canvas, "fast") == []


def test_picture_that_comes_reduced_gives_boxes_in_its_own_pixels() -> None:
    whole = np.array(portrait(3, side=480))
    half = np.asarray(cv2.resize(whole, (240, 240), interpolation=cv2.INTER_AREA), np.uint8)
    detector = LbpDetector(SMALLEST_PX, "fast")
    (large,) = (found.box for found in detector.find(whole))
    (small,) = (found.box for found in detector.find(half, reduced_by=2))
    assert (2 * small.x, 2 * small.y, 2 * small.w) == pytest.approx(
        (large.x, large.y, large.w), abs=8
    )


def test_a_picture_may_come_reduced_as_far_as_the_smallest_face_still_fills_the_window() -> None:
    assert LbpDetector(42, "thorough").reducible_by == 1
    assert LbpDetector(42, "fast").reducible_by == 2
    assert LbpDetector(48, "thorough").reducible_by == 2
    assert LbpDetector(192, "thorough").reducible_by == 8


@pytest.mark.parametrize("mode", MODES)
def test_scores_lie_between_just_enough_and_certain(mode: str) -> None:
    for found in LbpDetector(SMALLEST_PX, mode).find(np.array(portrait(3))):
        assert 0.5 <= found.score < 1


@pytest.mark.parametrize("mode", MODES)
def test_noise_gives_no_face(mode: str) -> None:
    assert boxes(np.array(scenery(1)), mode) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 300), (300, 30)])
def test_picture_smaller_than_the_window_gives_no_face(mode: str, size: tuple[int, int]) -> None:
    assert boxes(np.zeros((*size, 3), np.uint8), mode) == []
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    assert boxes(noise, mode) == []


def test_face_smaller_than_the_window_cannot_be_requested() -> None:
    with pytest.raises(ValueError, match="min_face_px is 20; the cascade's window is 24"):
        LbpDetector(20)
    with pytest.raises(ValueError, match='mode is "quick"; fast or thorough wanted'):
        LbpDetector(42, "quick")
