"""A user's own ONNX model: decoded in both layouts, letterboxed, without doubles, or refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.cropping import FaceSettings, faces_on
from dataset.decode import Picture
from dataset.errors import ConfigError
from dataset.geometry import Box
from dataset.yolo import OnnxDetector, letterboxed, model_sha256, read_output
from tests.dataset.onnx_model import constant, red_finder

SIDE = 128


def with_red(width: int, height: int, *squares: tuple[int, int, int]) -> Picture:
    """A white picture with red squares: left, top, side."""
    picture = np.full((height, width, 3), 255, np.uint8)
    for x, y, side in squares:
        picture[y : y + side, x : x + side] = (255, 0, 0)
    return picture


@pytest.mark.parametrize("objectness", [False, True])
def test_square_is_found_in_the_pixels_of_a_picture_that_is_not_square(
    tmp_path: Path, objectness: bool
) -> None:
    model = red_finder(tmp_path / "m.onnx", input_px=SIDE, box_px=24, objectness=objectness)
    detector = OnnxDetector(str(model), input_px=SIDE, min_score=0.9, max_iou=0.1)
    # 512x256 is scaled by 1/4 and moved down by 32: cells of 8 pixels are 32 pixels here.
    (found,) = detector.find(with_red(512, 256, (320, 64, 32)))
    assert found.box == Box(320 + 16 - 48, 64 + 16 - 48, 96, 96)
    assert found.score == pytest.approx(1, abs=1e-5)
    # 256x512 is moved to the right.
    (found,) = detector.find(with_red(256, 512, (64, 320, 32)))
    assert found.box == Box(64 + 16 - 48, 320 + 16 - 48, 96, 96)


def test_boxes_that_overlap_are_merged_and_others_are_not(tmp_path: Path) -> None:
    model = red_finder(tmp_path / "m.onnx", input_px=SIDE, box_px=40)
    picture = with_red(512, 512, (32, 32, 64), (320, 320, 32))  # four cells, and one
    apart = OnnxDetector(str(model), input_px=SIDE, min_score=0.9, max_iou=0.3).find(picture)
    assert len(apart) == 2
    every = OnnxDetector(str(model), input_px=SIDE, min_score=0.9, max_iou=1.0).find(picture)
    assert len(every) == 5


def test_nothing_red_gives_no_face(tmp_path: Path) -> None:
    model = red_finder(tmp_path / "m.onnx", input_px=SIDE, box_px=24)
    assert OnnxDetector(str(model), input_px=SIDE).find(with_red(100, 60)) == []


def test_box_over_the_border_is_cut_off(tmp_path: Path) -> None:
    model = red_finder(tmp_path / "m.onnx", input_px=SIDE, box_px=48)
    detector = OnnxDetector(str(model), input_px=SIDE, min_score=0.9)
    (found,) = detector.find(with_red(128, 128, (0, 0, 8)))
    assert found.box == Box(0, 0, 28, 28)


def test_several_classes_and_an_objectness_give_the_best_product() -> None:
    rows = np.array([[[10, 20, 4, 6, 0.5, 0.2, 0.8]] * 9], np.float32)
    boxes, scores = read_output(rows, where="m.onnx")
    assert boxes.shape == (9, 4)
    np.testing.assert_allclose(scores, 0.4)
    boxes, scores = read_output(np.delete(rows, 4, axis=2).transpose(0, 2, 1), where="m.onnx")
    assert boxes.shape == (9, 4)
    np.testing.assert_allclose(scores, 0.8)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((1, 1000), r"output is \[1, 1000\]; \[1, 4\+C, N\]"),
        ((2, 5, 100), r"output is \[2, 5, 100\]"),
        ((1, 4, 100), r"output is \[1, 4, 100\]"),
        ((1, 100, 5), r"output is \[1, 100, 5\]"),
        ((1, 300, 6), r"exported with its own NMS.*Export it without NMS"),
    ],
)
def test_other_layouts_are_refused_with_what_was_found_and_wanted(
    tmp_path: Path, shape: tuple[int, ...], said: str
) -> None:
    model = constant(tmp_path / "other.onnx", np.zeros(shape, np.float32), input_px=32)
    with pytest.raises(ConfigError, match=rf"other\.onnx: its {said}|other\.onnx: .*{said}"):
        OnnxDetector(str(model), input_px=32).find(with_red(32, 32))


def test_file_that_is_missing_or_no_model_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.onnx"
    with pytest.raises(ConfigError, match=r"missing\.onnx: an ONNX file is wanted.*No such file"):
        OnnxDetector(str(missing))
    with pytest.raises(ConfigError, match=r"missing\.onnx: an ONNX file is wanted"):
        model_sha256(str(missing))
    spoilt = tmp_path / "spoilt.onnx"
    for content in (b"this is no model", b""):
        spoilt.write_bytes(content)
        with pytest.raises(ConfigError, match=r"spoilt\.onnx: not an ONNX model that OpenCV"):
            OnnxDetector(str(spoilt))


def test_wrong_input_side_is_named(tmp_path: Path) -> None:
    model = red_finder(tmp_path / "m.onnx", input_px=SIDE, box_px=24)
    with pytest.raises(ConfigError, match=r"m\.onnx.*\[1, 3, 64, 64\].*Is 64 the side"):
        OnnxDetector(str(model), input_px=64).find(with_red(64, 64))


def test_faces_are_cropped_with_a_model_and_its_content_is_in_the_digest(tmp_path: Path) -> None:
    model = red_finder(tmp_path / "m.onnx", input_px=SIDE, box_px=32)
    settings = FaceSettings(
        detector="onnx", onnx_path=str(model), onnx_input_px=SIDE, min_sharpness=0
    )
    (face,) = faces_on(with_red(256, 256, (96, 96, 16)), "0" * 64, settings)
    assert (face.row["x"], face.row["y"], face.row["w"], face.row["side"]) == (72, 72, 64, 96)
    assert face.crop is not None
    assert face.crop.shape == (96, 96, 3)
    other = red_finder(tmp_path / "other.onnx", input_px=SIDE, box_px=40)
    elsewhere = tmp_path / "elsewhere.onnx"
    elsewhere.write_bytes(model.read_bytes())
    digests = {
        path: FaceSettings(
            detector="onnx", onnx_path=str(path), onnx_input_px=SIDE, min_sharpness=0
        ).crop_digest
        for path in (model, other, elsewhere)
    }
    assert digests[model] == digests[elsewhere] != digests[other]


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([64, 320]))
def test_letterbox_maps_the_picture_into_the_square_and_back(
    width: int, height: int, side: int
) -> None:
    square, box = letterboxed(np.zeros((height, width, 3), np.uint8), side)
    assert square.shape == (side, side, 3)
    rows, columns = np.nonzero(square[:, :, 0] == 0)
    x0, x1, y0, y1 = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    seen = np.array([[(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]], np.float32)
    pixel = 1 / box.scale  # of the input, in pixels of the picture
    np.testing.assert_allclose(box.back(seen)[0], (0, 0, width, height), atol=pixel + 1e-3)
