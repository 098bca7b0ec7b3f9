"""The metrics on painted faces and their offline features answer as a person would."""

import dataclasses
import itertools

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from demo.painter import draw
from models.metrics.distances import frechet_distance, kernel_distance, statistics
from models.metrics.extractors import Extractor, chunks, extractor
from models.metrics.neighbours import memorization, overlap

COUNT = 40
Pictures = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Faces:
    pictures: Pictures  # [N,64,64,3]
    features: Features  # [N,1280]
    network: Extractor

    def of(self, pictures: Pictures) -> Features:
        return self.network(chunks(pictures))

    def distance(self, pictures: Pictures) -> float:
        return frechet_distance(statistics(self.of(pictures)), statistics(self.features))


@pytest.fixture(scope="module")
def faces() -> Faces:
    pictures = []
    for drawing in map(draw, range(COUNT)):
        face = drawing.faces[0]
        hair = face.w // 4
        box = (face.x - hair, face.y - hair, face.x + face.w + hair, face.y + face.h + hair)
        pictures.append(np.asarray(drawing.image.convert("RGB").crop(box).resize((64, 64))))
    network = extractor("efficientnet_lite0")
    stacked = np.stack(pictures)
    return Faces(stacked, network(chunks(stacked)), network)


def grow(distances: list[float]) -> bool:
    return all(less < more for less, more in itertools.pairwise(distances))


@pytest.mark.slow
def test_distance_grows_with_noise(faces: Faces) -> None:
    rng = np.random.default_rng(0)
    distances = [0.0]
    for spread in (4, 16, 48):
        noise = rng.normal(scale=spread, size=faces.pictures.shape)
        distances.append(
            faces.distance((faces.pictures + noise).round().clip(0, 255).astype(np.uint8))
        )
    assert grow(distances), distances


@pytest.mark.slow
def test_distance_grows_with_blur(faces: Faces) -> None:
    distances = [0.0]
    for sigma_px in (0.6, 1.2, 2.5):
        blurred = [cv2.GaussianBlur(one, (0, 0), sigma_px) for one in faces.pictures]
        distances.append(faces.distance(np.stack(blurred)))
    assert grow(distances), distances


@pytest.mark.slow
def test_one_face_drawn_again_and_again_is_precise_and_recalls_nothing(faces: Faces) -> None:
    rng = np.random.default_rng(0)
    shaken = faces.pictures[3] + rng.integers(0, 2, size=(20, 64, 64, 3), dtype=np.uint8)
    collapsed = faces.of(shaken)
    precision, recall, _ = overlap(faces.features, collapsed)
    assert precision == 1
    assert recall <= 1 / COUNT
    whole = kernel_distance(faces.features[::2], faces.features[1::2])
    assert kernel_distance(collapsed, faces.features).value > 5 * abs(whole.value)


@pytest.mark.slow
def test_faces_that_were_trained_on_are_remembered_and_others_are_not(faces: Faces) -> None:
    train, unseen, new = faces.features[:24], faces.features[24:32], faces.features[32:]
    brighter = faces.of(faces.pictures[:8].clip(0, 253) + np.uint8(2))
    copies = memorization(brighter, train, unseen)
    assert copies.ratio < 0.3
    assert copies.copied_frac == 1
    assert copies.nearest.tolist() == list(range(8))
    assert memorization(new, train, unseen).ratio > 0.7
