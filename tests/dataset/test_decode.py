"""One whole still picture comes in as upright RGB; everything else is refused by name."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.decode import UnreadablePicture, decode

RED = (220, 30, 40)


def coded(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "modes"),
    [
        ("PNG", "RGB L P LA RGBA 1 I;16"),
        ("JPEG", "RGB L CMYK 1"),
        ("WEBP", "RGB L RGBA"),
        ("GIF", "RGB L P 1 RGBA"),
        ("AVIF", "RGB L RGBA"),
    ],
)
def test_every_mode_becomes_rgb(form: str, modes: str) -> None:
    for mode in modes.split():
        picture = Image.new("RGB", (40, 30), "white").convert("L" if mode == "I;16" else mode)
        if mode == "I;16":
            picture = Image.fromarray(np.full((30, 40), 65535, np.uint16))
        made = decode(coded(picture, form), where="x")
        assert made.shape == (30, 40, 3)
        assert made.dtype == np.uint8
        assert made.min() >= 253, mode


def test_alpha_is_laid_on_white() -> None:
    half = Image.new("RGBA", (4, 4), (*RED, 128))
    made = decode(coded(half, "PNG"), where="x")
    expected = [round(255 + (value - 255) * 128 / 255) for value in RED]
    assert np.abs(made[0, 0].astype(int) - expected).max() <= 1


def test_transparent_palette_is_laid_on_white() -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([*RED, 0, 0, 0])
    made = decode(coded(picture, "GIF", transparency=1), where="x")
    assert (made == 255).all()


def test_exif_turns_the_picture_upright() -> None:
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste(RED, (0, 0, 40, 5))  # a band on top, stored lying on its side
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    made = decode(coded(picture, "JPEG", exif=exif, quality=95), where="x")
    assert made.shape == (40, 20, 3)
    assert made[20, 18, 1] < 100 < made[20, 2, 1]


def test_too_many_pixels_are_refused_before_decoding() -> None:
    content = coded(Image.new("1", (300, 200)), "PNG")[:60]  # the header alone
    with pytest.raises(UnreadablePicture, match=r"big\.png: 300x200 is 60,000 pixels; at most 50"):
        decode(content, where="big.png", max_pixels=50_000)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_cut_off_picture_is_refused(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = coded(Image.fromarray(noise), form)
    with pytest.raises(UnreadablePicture, match=r"^some\.file: damaged or cut off"):
        decode(content[: len(content) // 2], where="some.file")


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF"])
def test_animation_is_refused(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 120, 240)]
    content = coded(frames[0], form, save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadablePicture, match="an animation of 3 frames; a still is wanted"):
        decode(content, where="x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not a picture that can be opened"),
        (coded(Image.new("RGB", (8, 8)), "TIFF"), "JPEG, PNG, GIF, WEBP, AVIF are read"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(UnreadablePicture, match=said):
        decode(content, where="x")


REFUSED = {
    "apng__broken.png", "apng__iend_missing.png", "apng__misaligned_chunks.png", "apng__normal.png",
    "gif__corrupt-static.gif", "gif__test-animated-86x52.gif", "gif__test-corrupt.gif",
    "jpg__test-blank.jpg", "jpg__test-corrupt.jpg", "jpg__test-exif-small.jpg", "png__empty.png",
    "png__test-corrupt.png", "ugoira__invalid_ugoira.zip", "ugoira__ugoira.zip",
    "webp__nyancat.webp", "webp__truncated.webp",
}  # fmt: skip


def is_decoded(path: Path) -> bool:
    """Tells whether a file is decoded; an error must name it."""
    try:
        return decode(path.read_bytes(), where=path.name).ndim == 3
    except UnreadablePicture as error:
        return not str(error).startswith(f"{path.name}: ")


def test_real_faulty_files_are_refused_and_the_others_decoded(real_data: Path) -> None:
    refused = {
        path.name for path in sorted((real_data / "media_faults").iterdir()) if not is_decoded(path)
    }
    assert refused == REFUSED


def test_real_rotated_picture_stands_upright(real_data: Path) -> None:
    path = real_data / "media_faults" / "jpg__test-rotation-90cw.jpg"
    with Image.open(path) as stored:
        assert stored.size == (128, 96)
    assert decode(path.read_bytes(), where=path.name).shape == (128, 96, 3)
