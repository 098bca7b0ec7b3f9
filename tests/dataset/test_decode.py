"""One whole still picture comes in as upright RGB; everything else is refused by name."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from dataset.decode import MAX_PIXELS, UnreadablePicture, decode, decode_plain_png, decode_reduced

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


TURNED = [
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_270,
]  # how an upright picture was stored, for EXIF orientations 1 to 8


@pytest.mark.parametrize("by", [1, 2])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int, by: int) -> None:
    upright = soft(64, 48)
    turn = TURNED[orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if turn is None else upright.transpose(turn)
    made = decode_reduced(coded(stored, "JPEG", exif=exif, quality=98), where="x", by=by)
    assert (made.width, made.height) == (64, 48)
    expected = np.asarray(upright.resize((64 // by, 48 // by), Image.Resampling.BOX), int)
    assert np.abs(made.picture.astype(int) - expected).mean() < 3


def soft(width: int, height: int) -> Image.Image:
    """Soft colours, another one in each corner."""
    corners = np.array([[RED, (30, 200, 60)], [(40, 60, 220), (240, 230, 90)]], np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("by", [2, 4, 8])
@pytest.mark.parametrize("size", [(400, 304), (401, 299), (8, 8), (3, 5), (1, 1)])
def test_reduced_jpeg_is_the_whole_resized(size: tuple[int, int], by: int) -> None:
    content = coded(soft(*size), "JPEG", quality=95)
    whole = decode(content, where="x")
    made = decode_reduced(content, where="x", by=by)
    assert (made.width, made.height) == size
    height, width = made.picture.shape[:2]
    assert made.whole == ((width, height) == size)
    if min(size) < 16:
        return  # less than two blocks of the JPEG: it may come less reduced than requested
    assert (width, height) == (-(-size[0] // by), -(-size[1] // by))
    expected = Image.fromarray(whole).resize((width, height), Image.Resampling.BOX)
    assert np.abs(made.picture.astype(int) - np.asarray(expected, int)).mean() < 3


def test_reduced_cmyk_and_grey_jpegs_are_rgb() -> None:
    for mode in ("CMYK", "L"):
        content = coded(soft(64, 64).convert(mode), "JPEG", quality=95)
        whole, made = decode(content, where="x"), decode_reduced(content, where="x", by=2)
        assert made.picture.shape == (32, 32, 3)
        assert np.abs(made.picture.mean(axis=(0, 1)) - whole.mean(axis=(0, 1))).max() < 3


def test_other_formats_are_never_reduced() -> None:
    made = decode_reduced(coded(soft(40, 30), "PNG"), where="x", by=4)
    assert made.whole
    assert made.picture.shape == (30, 40, 3)


def test_only_powers_of_two_can_be_requested() -> None:
    with pytest.raises(ValueError, match="by is 3; 1, 2, 4, 8 can be decoded"):
        decode_reduced(b"", where="x", by=3)


def test_reduced_decoding_refuses_what_decoding_refuses() -> None:
    content = coded(soft(300, 200), "JPEG")
    with pytest.raises(UnreadablePicture, match="damaged or cut off"):
        decode_reduced(content[: len(content) // 2], where="x", by=2)
    with pytest.raises(UnreadablePicture, match="300x200 is 60,000 pixels"):
        decode_reduced(content, where="x", by=8, max_pixels=50_000)


def test_sixteen_bit_grey_keeps_its_tones() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    made = decode(coded(Image.fromarray(ramp), "PNG"), where="x")
    assert np.abs(made[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_opaque_rgba_is_its_rgb() -> None:
    picture = soft(40, 30)
    made = decode(coded(picture.convert("RGBA"), "PNG"), where="x")
    np.testing.assert_array_equal(made, np.asarray(picture))
    assert made.flags.writeable


def test_large_picture_that_lies_in_several_blocks_is_the_same() -> None:
    large = soft(2200, 2200)  # above 16 MiB
    assert MAX_PIXELS > 2200 * 2200
    np.testing.assert_array_equal(decode(coded(large, "PNG"), where="x"), np.asarray(large))


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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("side", [1, 31, 64])
def test_the_quick_way_of_a_png_gives_pillows_pixels(mode: str, side: int) -> None:
    picture = soft(side, 40).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    shown = picture.convert("RGB").quantize(200) if mode == "P" else picture.convert(mode)
    content = coded(shown, "PNG", bits=8) if mode == "P" else coded(shown, "PNG")
    quick = decode_plain_png(content)
    assert quick is not None
    with Image.open(io.BytesIO(content)) as opened:
        wanted = np.asarray(opened.convert("RGB") if mode == "P" else opened)
    np.testing.assert_array_equal(quick, wanted)


def exif_profile(orientation: int) -> PngInfo:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = exif.tobytes()
    texts = PngInfo()
    texts.add_text(
        "Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n", zip=True
    )
    return texts


def xmp(orientation: int) -> PngInfo:
    texts = PngInfo()
    turn = f"<tiff:Orientation>{orientation}</tiff:Orientation>"
    text = f"<x:xmpmeta>{turn}<tiff:XResolution>300</tiff:XResolution></x:xmpmeta>"
    texts.add_itxt("XML:com.adobe.xmp", text)
    return texts


@pytest.mark.parametrize("telling", [exif_profile, xmp])
def test_a_png_that_tells_its_orientation_is_quick_if_upright_and_turned_if_not(
    telling: Callable[[int], PngInfo],
) -> None:
    picture = soft(8, 40).resize((8, 4))
    for orientation, size in ((1, (4, 8)), (6, (8, 4))):
        content = coded(picture, "PNG", pnginfo=telling(orientation))
        assert (decode_plain_png(content) is not None) == (orientation == 1)
        assert decode(content, where="a.png").shape[:2] == size


def test_what_changes_the_pixels_of_a_png_is_left_to_pillow() -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    picture = Image.new("RGB", (8, 4), (9, 9, 9))
    cases: dict[str, dict[str, Any]] = {
        "oriented": {"exif": turned},
        "transparent colour": {"transparency": (9, 9, 9)},
        "animated": {"save_all": True, "append_images": [Image.new("RGB", (8, 4))]},
    }
    for case, options in cases.items():
        file = io.BytesIO()
        picture.save(file, "PNG", **options)
        assert decode_plain_png(file.getvalue()) is None, case
    whole = coded(picture, "PNG")
    assert decode_plain_png(whole) is not None
    assert decode_plain_png(whole[:-20]) is None
    assert decode_plain_png(b"") is None
