"""One whole still picture comes in as upright RGB; everything else is refused by name."""

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from dataset.decode import MAX_PIXELS, UnreadablePicture, decode, decode_plain_png, decode_reduced
from tests.hypothesis_profiles import examples

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


@pytest.mark.parametrize("by", [1, 2])
def test_a_jpeg_with_further_pictures_is_its_first(by: int) -> None:
    first, more = soft(64, 48), [Image.new("RGB", (32, 24)), Image.new("RGB", (64, 48))]
    content = coded(first, "MPO", save_all=True, append_images=more, quality=95)
    made = decode_reduced(content, where="a.jpg", by=by).picture
    expected = np.asarray(first.resize((64 // by, 48 // by), Image.Resampling.BOX), int)
    assert np.abs(made.astype(int) - expected).mean() < 3


def packed_xmp(size: int) -> dict[str, Any]:
    texts = PngInfo()
    turn = "<tiff:Orientation>6</tiff:Orientation>"
    texts.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta>{turn}{'h' * size}</x:xmpmeta>", zip=True)
    return {"pnginfo": texts}


def test_a_png_with_a_large_packed_text_or_profile_is_decoded() -> None:
    picture = soft(8, 40)
    assert decode(coded(picture, "PNG", **packed_xmp(1_500_000)), where="x").shape == (8, 40, 3)
    made = decode(coded(picture, "PNG", icc_profile=bytes(1_500_000)), where="x")
    np.testing.assert_array_equal(made, np.asarray(picture))
    with pytest.raises(UnreadablePicture, match="Decompressed data too large"):
        decode(coded(picture, "PNG", **packed_xmp(20_000_000)), where="x")


# Columns X, Y, Z of the primaries, adapted to D50 as in profiles.
SRGB = [[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]]
ADOBE = [[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]]
P3 = [[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]]
GAMMA = 563 / 256  # Adobe's


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def profile_of(space: bytes, name: str, tags: dict[bytes, bytes], *, pcs: bytes = b"XYZ ") -> bytes:
    """An ICC profile, version 2.1, of these tags."""
    text = name.encode() + b"\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": desc, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(0.9642, 1, 0.8249), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        table += struct.pack(">4sII", tag, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = start + len(body)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02100000, kind, space, pcs)
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    return (head + xyz(0.9642, 1, 0.8249)[8:]).ljust(128, b"\0") + table + body


def rgb_profile(name: str, primaries: list[list[float]]) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(GAMMA * 256))
    tags = {f"{one}TRC".encode(): curve for one in "rgb"}
    tags |= {f"{one}XYZ".encode(): xyz(*row) for one, row in zip("rgb", primaries, strict=True)}
    return profile_of(b"RGB ", name, tags)


def shown(colour: Sequence[int], primaries: list[list[float]]) -> list[int]:
    """The colour in sRGB, by the formula of IEC 61966-2-1."""
    light = (np.array(colour) / 255) ** GAMMA @ np.array(primaries) @ np.linalg.inv(SRGB)
    light = np.clip(light, 0, 1)
    made = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return [round(value) for value in made * 255]


@pytest.mark.parametrize("primaries", [ADOBE, P3], ids=["Adobe RGB", "Display P3"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "reduced", "RGBA", "P"])
def test_colours_of_another_profile_are_shown_in_srgb(
    primaries: list[list[float]], form: str
) -> None:
    for colour in ((190, 110, 90), (80, 150, 120), (230, 60, 120)):
        made = round_trip(colour, form, rgb_profile("wide", primaries))
        assert np.abs(made - shown(colour, primaries)).max() <= 4
        assert np.abs(made - colour).max() > 8  # it is not what is stored


def round_trip(colour: tuple[int, int, int], form: str, profile: bytes) -> npt.NDArray[np.int64]:
    """A colour as it is decoded from a picture of a format or mode."""
    picture = Image.new("RGB", (64, 64), colour)
    if form in ("RGBA", "P"):
        picture = picture.convert("RGBA") if form == "RGBA" else picture.quantize(4)
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "PNG": {}}.get(form, {"quality": 100})
    stored = form if form in ("WEBP", "AVIF", "PNG") else "PNG" if form in ("RGBA", "P") else "JPEG"
    content = coded(picture, stored, icc_profile=profile, **options)
    made = decode_reduced(content, where="x", by=4 if form == "reduced" else 1).picture
    return np.asarray(made[8, 8], np.int64)


def test_alpha_is_kept_where_colours_are_converted() -> None:
    half = Image.new("RGBA", (4, 4), (190, 110, 90, 128))
    made = decode(coded(half, "PNG", icc_profile=rgb_profile("wide", ADOBE)), where="x")
    colour = shown((190, 110, 90), ADOBE)
    expected = [round(255 + (value - 255) * 128 / 255) for value in colour]
    assert np.abs(made[0, 0].astype(int) - expected).max() <= 3


def cmyk_profile(cyan: tuple[int, int, int]) -> bytes:
    """Inks of which cyan is this colour (Lab, 8 bits), key is black, and the others are none."""
    white, black = (255, 128, 128), (0, 128, 128)
    grid = [black if number & 1 else cyan if number & 8 else white for number in range(16)]
    identity = struct.pack(">9i", *(65536 * (at % 4 == 0) for at in range(9)))
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4
    table += bytes(value for one in grid for value in one) + ramp * 3
    return profile_of(b"CMYK", "inks", {b"A2B0": table}, pcs=b"Lab ")


def test_cmyk_is_converted_by_its_profile() -> None:
    inks = Image.new("CMYK", (64, 64), (255, 0, 0, 0))
    plain = decode(coded(inks, "JPEG", quality=100), where="x")[8, 8]
    made = decode(
        coded(inks, "JPEG", quality=100, icc_profile=cmyk_profile((128, 178, 158))), where="x"
    )
    assert np.abs(plain.astype(int) - (0, 255, 255)).max() <= 2
    assert np.abs(made[8, 8].astype(int) - (196, 74, 74)).max() <= 8  # L 50, a +50, b +30
    paper = Image.new("CMYK", (64, 64), (0, 0, 0, 0))
    made = decode(coded(paper, "JPEG", quality=100, icc_profile=cmyk_profile((0, 0, 0))), where="x")
    assert made.min() >= 250


def test_grey_is_converted_by_its_profile() -> None:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 256)  # linear
    profile = profile_of(b"GRAY", "linear grey", {b"kTRC": curve})
    made = decode(coded(Image.new("L", (16, 16), 55), "PNG", icc_profile=profile), where="x")
    assert abs(int(made[0, 0, 0]) - 128) <= 2  # 0.2157 of the light


@given(st.data())
@settings(max_examples=examples(100), deadline=None)
def test_no_damage_of_a_profile_makes_a_picture_unreadable(data: st.DataObject) -> None:
    wide, inks = rgb_profile("wide", ADOBE), cmyk_profile((128, 178, 158))
    content = bytearray(data.draw(st.sampled_from([wide, inks])))
    places = st.integers(0, len(content) - 1) | st.integers(0, 200)
    for place, value in data.draw(st.dictionaries(places, st.integers(0, 255), max_size=9)).items():
        content[place] = value
    profile = bytes(content[: data.draw(st.just(len(content)) | st.integers(1, len(content)))])
    for mode, form in (("RGB", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG")):
        picture = Image.new("RGB", (8, 8), RED).convert(mode)
        made = decode(coded(picture, form, icc_profile=profile), where="x")
        assert made.shape == (8, 8, 3)


@pytest.mark.parametrize(
    "profile",
    [b"no profile", bytes(300), rgb_profile("wide", ADOBE)[:-200], cmyk_profile((0, 0, 0)),
     ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()],
    ids=["text", "zeros", "cut off", "of other pixels", "sRGB"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_profile_that_is_srgb_or_cannot_be_used_changes_nothing(
    profile: bytes, form: str
) -> None:
    picture = soft(40, 30)
    wanted = decode(coded(picture, form), where="x")
    made = decode(coded(picture, form, icc_profile=profile), where="x")
    np.testing.assert_array_equal(made, wanted)
