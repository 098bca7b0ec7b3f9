"""A PNG brings its own settings back; hostile files are refused, each with a plain sentence."""

import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from dataset.decode import UnreadablePicture
from dataset.errors import OmokageError, UsageError
from models.sampling.draw import SOFTWARE, png_bytes
from studio import png_metadata
from studio.edits import Edits
from studio.png_metadata import (
    SIGNATURE,
    made_from_facts,
    open_picture,
    recipe_facts,
    recipe_of_png,
)
from studio.recipe import Recipe
from studio.validation import UPLOAD_MAX_BYTES
from tests.hypothesis_profiles import examples

RECIPE = Recipe(
    "avatar-generator/3",
    17,
    ("blonde_hair", "blue_eyes"),
    0.7,
    upscale=2,
    denoise=1,
    edits=Edits(rotate=90),
)
DIGEST = "ab" * 32
FACTS = recipe_facts(RECIPE, model="avatar-generator version 3", digest=DIGEST)
PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (16, 12, 3), dtype=np.uint8))
OURS = png_bytes(PICTURE, FACTS)


def saved(kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return (
        struct.pack(">I", len(data))
        + name
        + data
        + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
    )


def with_chunks(*chunks: bytes, behind: bool = False) -> bytes:
    """A whole PNG without texts, with chunks before its pixels or behind them."""
    plain = saved()
    place = len(plain) - 12 if behind else len(SIGNATURE) + 25
    return plain[:place] + b"".join(chunks) + plain[place:]


def link_chunk(query: str) -> bytes:
    return chunk(b"tEXt", b"omokage link\0" + query.encode())


def header(width: int, height: int) -> bytes:
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return SIGNATURE + start + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


# --- what is written ---


def test_a_png_says_for_people_what_it_was_made_from() -> None:
    with Image.open(io.BytesIO(OURS)) as opened:
        assert opened.info == {
            "Software": "Omokage",
            "omokage model": "avatar-generator version 3",
            "omokage generator": DIGEST,
            "omokage seed": "17",
            "omokage labels": "blonde_hair, blue_eyes",
            "omokage psi": "0.7",
            "omokage noise": "const",
            "omokage upscale": "2x, denoise 1",
            "omokage edits": "rotate=90",
            "omokage link": RECIPE.to_query(),
        }
    plain = recipe_facts(Recipe("a/1", 0), model="a", digest=DIGEST)
    assert {plain[f"omokage {name}"] for name in ("labels", "upscale", "edits")} == {"none"}
    assert png_metadata.SOFTWARE == SOFTWARE


def test_what_was_made_from_another_file_names_it_and_has_no_link() -> None:
    facts = made_from_facts(b"abc", edits="hue=3")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert facts == {
        "Software": "Omokage",
        "omokage source": f"sha256:{sha256}",
        "omokage edits": "hue=3",
    }
    assert recipe_of_png(png_bytes(PICTURE, facts), where="x.png") is None


# --- what is read ---


def test_a_png_brings_its_recipe_back() -> None:
    assert recipe_of_png(OURS, where="x.png") == RECIPE
    picture, facts = open_picture(OURS, where="x.png")
    assert np.array_equal(picture, np.asarray(PICTURE))
    assert facts == {name: text for name, text in FACTS.items() if name != "Software"}


def test_names_beyond_latin_letters_come_back() -> None:
    recipe = Recipe("顔/2", 1, ("金髪", "café"))
    facts = recipe_facts(recipe, model="顔 version 2", digest=DIGEST)
    content = png_bytes(PICTURE, facts)
    assert recipe_of_png(content, where="x.png") == recipe
    assert open_picture(content, where="x.png")[1]["omokage labels"] == "金髪, café"


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "packed iTXt"])
def test_the_link_is_found_in_every_kind_of_text(kind: str, *, behind: bool) -> None:
    query = RECIPE.to_query().encode()
    content = {
        "tEXt": chunk(b"tEXt", b"omokage link\0" + query),
        "zTXt": chunk(b"zTXt", b"omokage link\0\0" + zlib.compress(query)),
        "iTXt": chunk(b"iTXt", b"omokage link\0\0\0en\0lien\0" + query),
        "packed iTXt": chunk(b"iTXt", b"omokage link\0\1\0\0\0" + zlib.compress(query)),
    }[kind]
    assert recipe_of_png(with_chunks(content, behind=behind), where="x.png") == RECIPE


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_picture_without_settings_is_none(kind: str) -> None:
    assert recipe_of_png(saved(kind), where="x") is None


def test_texts_of_another_program_are_none() -> None:
    reported = PngImagePlugin.PngInfo()
    reported.add_text("Software", "Another")
    reported.add_text("link", "model=a/1&seed=1")
    reported.add_itxt("parameters", "1girl, Seed: 17")
    reported.add_text("Comment", "long " * 50_000, zip=True)
    assert recipe_of_png(saved(pnginfo=reported), where="x.png") is None


# --- damaged settings ---


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (link_chunk("model=a%2F1&seed=x&psi=9"), 'seed is "x"; a whole number of 0 to'),
        (link_chunk(""), "model is missing"),
        (link_chunk(RECIPE.to_query()) * 2, "its settings are damaged, so that they cannot be"),
        (chunk(b"tEXt", b"omokage link\0" + b"x" * 70_000), "its settings are damaged"),
        (chunk(b"zTXt", b"omokage link\0\0no zlib"), "its settings are damaged"),
        (chunk(b"zTXt", b"omokage link\0\0" + zlib.compress(b"x" * 99)[:-5]), "are damaged"),
        (chunk(b"iTXt", b"omokage link\0\0\0\0\0\xff\xfe"), "its settings are damaged"),
    ],
)
def test_damaged_settings_are_told(content: bytes, reported: str) -> None:
    with pytest.raises(UsageError) as refused:
        recipe_of_png(with_chunks(content), where="face.png")
    assert str(refused.value).startswith("face.png: its settings are damaged")
    assert reported in str(refused.value)


def test_a_flipped_bit_in_the_settings_is_never_another_recipe() -> None:
    place = OURS.index(b"seed=17")
    damaged = OURS[: place + 5] + b"2" + OURS[place + 6 :]
    with pytest.raises(OmokageError, match=r"^face\.png: "):
        recipe_of_png(damaged, where="face.png")
    text = link_chunk("model=a%2F1&seed=17").replace(b"seed=17", b"seed=27")
    with pytest.raises(OmokageError, match=r"^face\.png: "):
        recipe_of_png(with_chunks(text, behind=True), where="face.png")


# --- hostile files ---


def bombs() -> Iterator[tuple[str, bytes, str]]:
    packed = zlib.compress(bytes(50_000_000), 9)
    unpacked = "something packed in the file is larger than 1,048,576 bytes once unpacked"
    yield "zTXt", with_chunks(chunk(b"zTXt", b"Comment\0\0" + packed)), unpacked
    yield "iTXt", with_chunks(chunk(b"iTXt", b"omokage link\0\1\0\0\0" + packed)), unpacked
    yield "iCCP", with_chunks(chunk(b"iCCP", b"icc\0\0" + packed)), unpacked
    yield "behind", with_chunks(chunk(b"zTXt", b"Comment\0\0" + packed), behind=True), unpacked
    many = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**10), 9)) * 9_000
    some = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20 - 1), 9)) * 5
    yield "together", with_chunks(some), "once unpacked, or all of it than 4,194,304; a plain PNG"
    yield "many", with_chunks(many), "more than 256 chunks beside its pixels"
    yield "wide", header(2_001, 2_000), "2001x2000 is 4,002,000 pixels; at most 4,000,000"
    yield "huge", header(60_000, 60_000), "its header says more than 178,956,970 pixels; at most"
    yield "large", OURS + bytes(UPLOAD_MAX_BYTES), "bytes; at most 10,485,760 are taken"


@pytest.mark.parametrize(
    ("content", "reported"), [pytest.param(*rest, id=name) for name, *rest in bombs()]
)
def test_a_bomb_is_refused_in_little_memory(content: bytes, reported: str) -> None:
    tracemalloc.start()
    with pytest.raises(UnreadablePicture) as refused:
        recipe_of_png(content, where="bomb.png")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(refused.value).startswith("bomb.png: ")
    assert reported in str(refused.value)
    assert most < 3 * len(content) + 8_000_000


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (b"", "the file is empty; a picture is wanted"),
        (b"seed,label\n1,blonde_hair\n", "not a picture that can be opened (it begins with"),
        (SIGNATURE, "not a picture that can be opened"),
        (SIGNATURE + b"\xff" * 40, "not a picture that can be opened"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "JPEG, PNG, GIF, WEBP, AVIF are read"),
        (saved(save_all=True, append_images=[PICTURE.rotate(9)]), "an animation of 2 frames"),
        (saved("TIFF"), "not a picture that can be opened"),
    ],
)
def test_what_is_no_still_picture_is_refused(content: bytes, reported: str) -> None:
    with pytest.raises(UnreadablePicture) as refused:
        recipe_of_png(content, where="face.png")
    assert str(refused.value).startswith("face.png: ")
    assert reported in str(refused.value)


def test_a_cut_file_is_refused_wherever_it_is_cut() -> None:
    last_pixel = OURS.rindex(b"IEND") - 4 - 4 - 4  # before a length and two checksums
    for length in (*range(0, last_pixel, 7), last_pixel - 1):
        with pytest.raises(UnreadablePicture):
            recipe_of_png(OURS[:length], where="face.png")


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_no_damage_raises_anything_else_or_changes_the_recipe(data: st.DataObject) -> None:
    content = bytearray(OURS)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(OURS) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([len(OURS), data.draw(st.integers(0, len(OURS)))]))
    recipe, reported = None, "face.png: "
    try:
        recipe = recipe_of_png(bytes(content[:end]), where="face.png")
    except OmokageError as error:
        reported = str(error)
    assert reported.startswith("face.png: ")
    assert recipe in (RECIPE, None)


def test_faulty_files_of_a_board_are_refused_or_have_no_settings() -> None:
    default = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    folder = Path(os.environ.get("OMOKAGE_REAL_DATA", default)) / "media_faults"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set OMOKAGE_REAL_DATA")
    refused = {}
    for file in sorted(folder.iterdir()):
        try:
            assert recipe_of_png(file.read_bytes(), where=file.name) is None
        except UnreadablePicture as error:
            refused[file.name] = str(error)
    assert [
        name for name, reported in refused.items() if not reported.startswith(f"{name}: ")
    ] == []
    assert {"png__empty.png", "png__test-corrupt.png", "apng__normal.png"} <= refused.keys()
    assert {"ugoira__ugoira.zip", "webp__truncated.webp", "gif__test-corrupt.gif"} <= refused.keys()
    assert not {"png__alpha.png", "jpg__test.jpg", "webp__test.webp"} & refused.keys()
