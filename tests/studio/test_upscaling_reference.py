"""Upscaling against ncnn on the whole picture, against torch on the same files, and bicubic."""

import io

import cv2
import ncnn
import numpy as np
import pytest
from PIL import Image

from dataset.decode import Picture
from studio.upscaling import DENOISE, KINDS, UPSCALERS, network_files, upscale
from tests.studio.drawn_faces import drawn_face
from tests.studio.ncnn_by_torch import read_layers, run_layers

pytestmark = pytest.mark.slow

FACES = range(4)


def padded(picture: Picture, margin: int) -> np.ndarray:
    """Returns the whole picture with its edge repeated, as planes [3,H,W] of 0 to 1."""
    whole = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), "edge")
    return np.ascontiguousarray(whole.transpose(2, 0, 1), np.float32) / np.float32(255)


def rounded(planes: np.ndarray) -> Picture:
    return np.asarray(np.clip(np.rint(255 * planes), 0, 255), np.uint8).transpose(1, 2, 0)


def by_ncnn(picture: Picture, model: str, denoise: int) -> Picture:
    """Returns what ncnn makes of the picture in one piece, with its own default options."""
    files, net = network_files(model, denoise), ncnn.Net()
    net.load_param(str(files.param))
    net.load_model(str(files.weights))
    planes = padded(picture, KINDS[model].margin_px)
    extractor = net.create_extractor()
    extractor.input("Input1", ncnn.Mat(planes))
    failed, made = extractor.extract("Eltwise4")
    assert not failed
    return rounded(np.array(made))


def by_torch(picture: Picture, model: str, denoise: int) -> Picture:
    files = network_files(model, denoise)
    layers = read_layers(files.param, files.weights)
    return rounded(run_layers(layers, padded(picture, KINDS[model].margin_px)))


@pytest.mark.parametrize("model", UPSCALERS)
@pytest.mark.parametrize("denoise", DENOISE)
def test_it_equals_ncnn_on_the_whole_picture(model: str, denoise: int) -> None:
    picture = drawn_face(2, 48)
    ours = upscale(picture, 2, model=model, denoise=denoise, tile_px=32)
    theirs = by_ncnn(picture, model, denoise)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert np.mean(ours != theirs) < 0.001


@pytest.mark.parametrize("model", UPSCALERS)
@pytest.mark.parametrize("denoise", [-1, 2])
def test_it_equals_torch_on_the_same_files(model: str, denoise: int) -> None:
    picture = drawn_face(3, 48)
    ours = upscale(picture, 2, model=model, denoise=denoise)
    theirs = by_torch(picture, model, denoise)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert np.mean(ours != theirs) < 0.001


def psnr(picture: Picture, wanted: Picture) -> float:
    error = np.mean((picture.astype(float) - wanted) ** 2)
    return float(10 * np.log10(255**2 / error))


def made_smaller(picture: Picture, by: int, how: str) -> Picture:
    size = (picture.shape[1] // by, picture.shape[0] // by)
    if how == "area":
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    # Pillow's bicubic is antialiased
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def by_bicubic(picture: Picture, factor: int) -> Picture:
    size = (factor * picture.shape[1], factor * picture.shape[0])
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


@pytest.mark.parametrize("how", ["area", "bicubic"])
@pytest.mark.parametrize(
    ("model", "factor", "least_db"),
    [("anime", 2, 4.0), ("photo", 2, 2.5), ("cunet", 2, 5.0), ("anime", 4, 1.2)],
)
def test_drawn_faces_that_were_made_smaller_come_back_better_than_by_bicubic(
    how: str, model: str, factor: int, least_db: float
) -> None:
    for number in FACES:
        face = drawn_face(number, 128)
        small = made_smaller(face, factor, how)
        gain = psnr(upscale(small, factor, model=model), face)
        gain -= psnr(by_bicubic(small, factor), face)
        assert gain > least_db, f"face {number}: {gain:.2f} dB over bicubic"


def test_denoise_takes_traces_of_jpeg_away() -> None:
    gains = []
    for number in FACES:
        face = drawn_face(number, 128)
        file = io.BytesIO()
        Image.fromarray(made_smaller(face, 2, "area")).save(file, "JPEG", quality=50)
        small = np.asarray(Image.open(file).convert("RGB"))
        denoised, plain = (psnr(upscale(small, 2, denoise=level), face) for level in (1, -1))
        gains.append(denoised - plain)
    assert np.mean(gains) > 0.2, gains
