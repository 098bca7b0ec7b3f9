"""The same picture is alike, coded again or grey; other colours are not."""

import cv2
import imagehash
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset.decode import Picture
from dataset.duplicates import (
    BRIGHTNESS_GAIN,
    THUMB_BYTES,
    coarse,
    phash,
    sharpness,
    thumb,
    thumb_distance,
)
from tests.dataset.home import portrait
from tests.hypothesis_profiles import examples


def alike(one: Picture, two: Picture) -> tuple[int, float]:
    first, second = (np.frombuffer(thumb(crop), np.uint8)[None] for crop in (one, two))
    bits = (phash(one) ^ phash(two)).bit_count()
    return bits, float(thumb_distance(first, second)[0])


def test_the_same_picture_coded_again_is_alike() -> None:
    crop = np.array(portrait(1, side=128))
    _, jpeg = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 60])
    bits, colours = alike(crop, np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8))
    assert bits <= 4
    assert colours < 4


def test_the_same_drawing_in_other_colours_is_not_alike() -> None:
    crop = np.array(portrait(1, side=128))
    bits, colours = alike(crop, np.ascontiguousarray(crop[:, :, ::-1]))
    assert bits <= 12  # the hash sees nothing but brightness ...
    assert colours > 25  # ... so the colours decide


def test_a_smear_is_less_sharp() -> None:
    crop = np.array(portrait(1, side=128))
    assert sharpness(cv2.GaussianBlur(crop, (0, 0), 4).astype(np.uint8)) < 30 < sharpness(crop)


def test_a_grey_copy_is_alike() -> None:
    crop = np.array(portrait(1, side=128))
    grey = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    found = alike(crop, np.asarray(grey, np.uint8))
    assert found[0] <= 2
    assert found[1] < 2


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=examples(30), deadline=None)
def test_parts_in_brightness_never_differ_more_than_the_colours_allow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spread = int(rng.integers(1, 255))
    thumbs = rng.integers(0, spread + 1, (2, THUMB_BYTES)).astype(np.uint8)
    first, second = coarse(thumbs).astype(np.float64)
    distance = thumb_distance(thumbs[:1], thumbs[1:])[0]
    assert np.sqrt(np.square(first - second).mean()) <= BRIGHTNESS_GAIN * distance + 1


def test_hash_is_that_of_the_library() -> None:
    crop = np.array(portrait(3, side=128))
    theirs = int(str(imagehash.phash(Image.fromarray(crop))), 16)
    assert (phash(crop) ^ theirs).bit_count() <= 4  # it is averaged down first
