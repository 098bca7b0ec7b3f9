"""Crops of pictures that were decoded reduced are those of the whole; settings are checked."""

import io

import numpy as np
import pytest
from PIL import Image

from dataset import cropping
from dataset.cropping import FaceSettings, faces_in, faces_on
from dataset.decode import Picture, decode
from dataset.errors import ConfigError
from tests.dataset.home import portrait

FAST = FaceSettings(mode="fast", min_sharpness=0)


def jpeg(seed: int, side: int) -> bytes:
    buffer = io.BytesIO()
    portrait(seed, side=side).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("seed", [3, 4, 7])
def test_crop_of_a_reduced_jpeg_is_that_of_the_whole(seed: int) -> None:
    content = jpeg(seed, 900)  # squares of about 500 px: half of that still exceeds a crop
    (reduced,) = faces_in(content, "0" * 64, FAST, where="x")
    square = {name: reduced.row[name] for name in ("square_x", "square_y", "side")}
    whole = decode(content, where="x")
    part = Image.fromarray(whole).crop(
        (
            square["square_x"],
            square["square_y"],
            square["square_x"] + square["side"],
            square["square_y"] + square["side"],
        )
    )
    expected = np.asarray(part.resize((128, 128), Image.Resampling.BOX), int)
    assert reduced.crop is not None
    assert reduced.crop.shape == (128, 128, 3)
    assert np.abs(reduced.crop.astype(int) - expected).mean() < 3


def test_whole_jpeg_is_decoded_only_if_a_crop_needs_its_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole: list[str] = []

    def noted(content: bytes, *, where: str) -> Picture:
        whole.append(where)
        return decode(content, where=where)

    monkeypatch.setattr(cropping, "decode", noted)
    faces_in(jpeg(3, 900), "0" * 64, FAST, where="large")
    assert whole == []
    (face,) = faces_in(jpeg(3, 200), "0" * 64, FAST, where="small")
    assert whole == ["small"]
    assert face.crop is not None
    assert face.crop.shape == (128, 128, 3)


def test_small_face_of_a_jpeg_has_all_the_pixels_that_the_picture_has() -> None:
    content = jpeg(3, 200)
    (face,) = faces_in(content, "0" * 64, FAST, where="x")
    square = face.row
    whole = decode(content, where="x")
    side = square["side"]
    x, y = square["square_x"], square["square_y"]
    part = Image.fromarray(whole[y : y + side, x : x + side])
    expected = np.asarray(part.resize((128, 128), Image.Resampling.BOX), int)
    assert face.crop is not None
    assert np.abs(face.crop.astype(int) - expected).mean() < 2


def test_thorough_and_cropped_pictures_are_decoded_whole() -> None:
    content = jpeg(3, 500)
    picture = decode(content, where="x")
    for settings in (FaceSettings(min_sharpness=0), FaceSettings(cropped=True, min_sharpness=0)):
        (one,) = faces_in(content, "0" * 64, settings, where="x")
        (other,) = faces_on(picture, "0" * 64, settings)
        assert one.row == other.row


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"detector": "yolo"}, 'detector is "yolo"; lbp or onnx wanted'),
        ({"mode": "quick"}, 'mode is "quick"; fast or thorough wanted'),
        ({"detector": "onnx"}, 'onnx_path is ""; detector "onnx" wants the path'),
        ({"onnx_min_score": 2.0}, "onnx_min_score is 2.0; 0 to 1 wanted"),
    ],
)
def test_settings_that_do_not_fit_are_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FaceSettings(**values)  # type: ignore[arg-type]


def test_digest_follows_the_mode_but_not_what_the_detector_does_not_use() -> None:
    plain = FaceSettings()
    assert plain.crop_digest != FaceSettings(mode="fast").crop_digest
    assert plain.crop_digest == FaceSettings(onnx_min_score=0.7).crop_digest
    assert plain.digest == FaceSettings(onnx_path="elsewhere.onnx").digest
