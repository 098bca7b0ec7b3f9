"""The gate: which files become blobs, and why the others do not."""

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from dataset.decode import UnreadablePicture, decode
from dataset.media import MAX_BYTES, MediaRefused, check_media, sniff

VERDICTS = {
    "apng__broken.png": "animated",
    "apng__iend_missing.png": "animated",
    "apng__misaligned_chunks.png": "corrupt",
    "apng__normal.png": "animated",
    "avif__paris_icc_exif_xmp.avif": "403x302 avif",
    "dupes__countergirl-baseline.jpg": "45x100 jpg",
    "dupes__countergirl-grey.png": "45x100 png",
    "dupes__countergirl-no-exif.jpg": "45x100 jpg",
    "dupes__countergirl-no-exif.png": "45x100 png",
    "dupes__countergirl-progressive.jpg": "45x100 jpg",
    "dupes__countergirl-whitebg-noalpha.png": "45x100 png",
    "dupes__countergirl.gif": "45x100 gif",
    "dupes__countergirl.png": "45x100 png",
    "gif__corrupt-static.gif": "corrupt",
    "gif__test-animated-86x52.gif": "animated",
    "gif__test-corrupt.gif": "corrupt",
    "gif__test-static-32x32.gif": "32x32 gif",
    "jpg__test-blank.jpg": "corrupt",  # cut after 1,024 bytes
    "jpg__test-cmyk-no-profile.jpg": "197x256 jpg",
    "jpg__test-corrupt.jpg": "corrupt",
    "jpg__test-exif-small.jpg": "corrupt",  # cut after 40,000 bytes
    "jpg__test-grey-no-profile.jpg": "535x290 jpg",
    "jpg__test-rotation-90cw.jpg": "128x96 jpg",  # as stored; EXIF turns it when it is decoded
    "jpg__test-weird-profile.jpg": "154x192 jpg",
    "jpg__test.jpg": "500x335 jpg",
    "png__alpha.png": "85x62 png",
    "png__empty.png": "empty",
    "png__jpg.png": "mislabelled",
    "png__test-corrupt.png": "corrupt",
    "ugoira__invalid_ugoira.zip": "not_a_picture",
    "ugoira__ugoira.zip": "not_a_picture",
    "webp__nyancat.webp": "animated",
    "webp__test.webp": "128x128 webp",
    "webp__truncated.webp": "corrupt",
}


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def outcome(content: bytes, ext: str | None) -> str:
    try:
        media = check_media(content, md5=md5_of(content), ext=ext)
    except MediaRefused as refused:
        return refused.reason
    assert media.sha256 == hashlib.sha256(content).hexdigest()
    assert media.size_bytes == len(content)
    return f"{media.width}x{media.height} {media.ext}"


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_every_known_faulty_file_has_its_verdict(real_data: Path) -> None:
    files = sorted((real_data / "media_faults").iterdir())
    found = {file.name: outcome(file.read_bytes(), file.suffix[1:]) for file in files}
    wanted = dict(VERDICTS)
    if not features.check("avif"):
        wanted["avif__paris_icc_exif_xmp.avif"] = "not_a_picture"
    assert found == wanted


def test_a_file_with_another_md5_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(MediaRefused) as caught:
        check_media(b"<html>", md5="0" * 32, ext="png")
    assert caught.value.reason == "wrong_md5"


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    assert outcome(png(8000, 5000), "png") == "8000x5000 png"
    assert outcome(png(8001, 5000), "png") == "too_many_pixels"


def test_a_header_that_claims_a_monstrous_size_is_refused() -> None:
    content = bytearray(png(8, 8))
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    assert outcome(bytes(content), "png") in ("too_many_pixels", "corrupt")


def test_a_file_of_more_than_30_mb_is_refused() -> None:
    assert outcome(png(8, 8) + bytes(MAX_BYTES), "png") == "too_large"


def test_a_picture_cut_anywhere_is_refused() -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    content = file.getvalue()
    whole = outcome(content, "png")
    assert whole == "64x64 png"
    for size in range(1, len(content) - 16, 97):
        assert outcome(content[:size], "png") in ("corrupt", "not_a_picture"), size


def test_a_damaged_text_of_a_png_is_overlooked_and_damaged_pixels_are_not() -> None:
    note, file = PngInfo(), io.BytesIO()
    note.add_text("Comment", "drawn by hand")
    drawn = Image.effect_noise((64, 48), 50)
    drawn.save(file, "PNG", pnginfo=note)
    content, text = file.getvalue(), b"tEXtSoftware\0a program"
    behind = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    content = content[:-12] + behind + content[-12:]  # between the pixels and the end
    for text, wanted in ((b"by hand", "64x48 png"), (b"program", "64x48 png")):
        damaged = content.replace(text, text.upper())  # its checksum stays
        assert damaged != content
        assert outcome(damaged, "png") == wanted
        assert np.array_equal(decode(damaged, where="x")[:, :, 0], np.asarray(drawn))
    at = content.index(b"IDAT") + 40
    assert outcome(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], "png") == "corrupt"


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_may_lack_its_end_mark_and_nothing_else(mode: str, progressive: bool) -> None:
    rows, columns = np.mgrid[:120, :168]
    shade = rows * columns // 79 + np.random.default_rng(1).integers(0, 30, rows.shape)
    picture = Image.fromarray(shade.astype(np.uint8)).convert(mode)
    file = io.BytesIO()
    picture.save(file, "JPEG", progressive=progressive)
    whole = file.getvalue()
    assert whole.endswith(b"\xff\xd9")
    for cut in (1, 2):  # half of the mark, and all of it
        assert outcome(whole[:-cut], "jpg") == "168x120 jpg"
        assert np.array_equal(decode(whole[:-cut], where="x"), decode(whole, where="x"))
    for cut in (3, 4, 7, 20, 50, 200, 1000):
        assert outcome(whole[:-cut], "jpg") == "corrupt", cut
        with pytest.raises(UnreadablePicture):
            decode(whole[:-cut], where="x")


@pytest.mark.parametrize(
    ("ext", "wanted"), [("jpeg", "8x8 jpg"), ("jpg", "8x8 jpg"), (None, "8x8 jpg")]
)
def test_jpeg_and_jpg_are_the_same(ext: str | None, wanted: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    assert outcome(file.getvalue(), ext) == wanted


def test_videos_and_text_have_no_picture_format() -> None:
    for start in (
        b"\x00\x00\x00\x18ftypmp42",
        b"\x1aE\xdf\xa3",
        b"RIFF\0\0\0\0WAVE",
        b"BM",
        b"<svg",
    ):
        assert sniff(start + bytes(20)) is None


def coded(form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 60, 60)).save(file, form, **options)
    return file.getvalue()


def texts(size: int, *, key: str = "XML:com.adobe.xmp") -> PngInfo:
    info = PngInfo()
    info.add_itxt(key, "h" * size, zip=True)
    return info


def test_a_jpeg_with_further_pictures_is_no_animation() -> None:
    more = [Image.new("RGB", (32, 24)), Image.new("RGB", (64, 48), "blue")]
    for count in (1, 2):
        content = coded("MPO", save_all=True, append_images=more[:count])
        assert outcome(content, "jpg") == "64x48 jpg"
    for form in ("GIF", "PNG", "WEBP", "AVIF"):
        if form != "AVIF" or features.check("avif"):
            content = coded(form, save_all=True, append_images=more[1:])
            assert outcome(content, form.lower()) == "animated", form


@pytest.mark.parametrize(
    "options",
    [
        {"pnginfo": texts(1_500_000)},
        {"pnginfo": texts(15_000_000, key="comment")},
        {"icc_profile": bytes(1_200_000)},
    ],
)
def test_a_png_with_a_large_packed_text_or_profile_comes_in(options: dict[str, Any]) -> None:
    assert outcome(coded("PNG", **options), "png") == "64x48 png"


def test_what_a_png_unpacks_beside_its_pixels_is_bounded() -> None:
    plain = coded("PNG")
    packed = zlib.compress(bytes(16 * 2**20), 1)
    bomb = zlib.compress(bytes(17 * 2**20), 1)
    for name, contents in (
        (b"zTXt", [b"comment\0\0" + bomb]),
        (b"iTXt", [b"comment\0\1\0\0\0" + bomb]),
        (b"iCCP", [b"profile\0\0" + bomb]),
        (b"zTXt", [b"comment %d\0\0" % number + packed for number in range(5)]),
    ):
        chunks = b"".join(
            struct.pack(">I", len(content)) + name + content
            + struct.pack(">I", zlib.crc32(name + content))
            for content in contents
        )  # fmt: skip
        assert outcome(plain[:33] + chunks + plain[33:], "png") == "corrupt"
