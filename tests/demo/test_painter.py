"""The painter: purity, the truth of its tags, and faces that the cascade finds."""

from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from random import Random

import cv2
import numpy as np
import pytest
from PIL import Image

from demo.painter import Drawing, Face, draw, draw_comic, draw_scenery, draw_sketch
from demo.painter.traits import APPEARANCE_TAGS, TAGS, Character, sample_picture

SEEDS = range(9000, 9060)
HAIRS = ("blonde", "black", "brown", "blue", "white", "pink", "grey", "purple", "red", "green")
IRISES = ("blue", "red", "brown", "green", "purple", "yellow")
STYLES = (
    "ahoge",
    "animal_ears",
    "hair_ornament",
    "long_hair",
    "ponytail",
    "short_hair",
    "twintails",
)
WANTED = {*STYLES, *(f"{c}_hair" for c in HAIRS), *(f"{c}_eyes" for c in IRISES)}
KINDS = [draw, draw_scenery, draw_comic, draw_sketch]


@pytest.fixture(scope="module")
def drawings() -> list[Drawing]:
    return [draw(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def find_faces() -> Callable[[Image.Image], list[tuple[float, float]]]:
    cascade = cv2.CascadeClassifier(str(files("danbooru") / "lbpcascade_animeface.xml"))

    def centres(image: Image.Image) -> list[tuple[float, float]]:
        grey = cv2.equalizeHist(np.asarray(image.convert("L")))
        found = cascade.detectMultiScale(grey, scaleFactor=1.1, minNeighbors=5, minSize=(24, 24))
        return [(x + w / 2, y + h / 2) for x, y, w, h in found]

    return centres


def _inside(face: Face, centre: tuple[float, float]) -> bool:
    x, y = centre
    return face.x <= x <= face.x + face.w and face.y <= y <= face.y + face.h


def _traits(count: int) -> list[tuple[tuple[Character, ...], tuple[str, ...]]]:
    pictures = [sample_picture(Random(f"character {seed}")) for seed in range(count)]
    return [(tuple(p.character for p in pic.placements), pic.tags) for pic in pictures]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_one_seed_gives_the_same_pixels_and_another_seed_others(
    kind: Callable[[int], Drawing],
) -> None:
    first, again, other = kind(3), kind(3), kind(4)
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.tags, first.faces) == (again.tags, again.faces)
    assert first.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_tags_are_known_sorted_and_without_doubles(kind: Callable[[int], Drawing]) -> None:
    for seed in range(3):
        tags = kind(seed).tags
        assert list(tags) == sorted(set(tags))
        assert set(tags) <= TAGS, f"seed {seed}: {set(tags) - TAGS} are not in the vocabulary"


def test_twenty_three_appearance_tags_lie_between_5_and_50_percent() -> None:
    sampled = _traits(2000)
    counts = Counter(tag for _, tags in sampled for tag in tags if tag in APPEARANCE_TAGS)
    shares = {tag: n / len(sampled) for tag, n in counts.items()}
    fit = {tag for tag, share in shares.items() if 0.05 <= share <= 0.5}
    assert len(fit) >= 23
    assert fit >= WANTED, {tag: shares.get(tag, 0.0) for tag in WANTED - fit}


def test_one_picture_in_fifteen_shows_two_characters() -> None:
    pairs = sum(len(characters) == 2 for characters, _ in _traits(2000))
    assert 90 <= pairs <= 180


def test_traits_and_tags_agree() -> None:
    for characters, tags in _traits(500):
        assert ("solo" in tags) == (len(characters) == 1)
        for who in characters:
            assert {who.hair_colour, who.length} <= set(tags)
            assert ("long_hair" in who.tags) == (who.length in {"long_hair", "very_long_hair"})
            assert who.eyes_shut != "both" or who.eye_colour not in who.tags
            assert abs(who.tilt) <= 8.0


def test_hair_is_seen_in_its_tagged_colour(drawings: list[Drawing]) -> None:
    """The named colour covers a fair part of the crop that training will see."""
    for seed, drawing in zip(SEEDS, drawings, strict=True):
        picture = sample_picture(Random(f"character {seed}"))
        for placed, face in zip(picture.placements, drawing.faces, strict=True):
            reach = 0.95 * face.w
            cx, cy = face.x + face.w / 2, face.y + 0.65 * face.h
            crop = drawing.image.crop(
                (int(cx - reach), int(cy - reach), int(cx + reach), int(cy + reach))
            )
            away = np.abs(np.asarray(crop, dtype=int) - placed.character.hair_rgb).max(axis=2)
            assert (away < 24).mean() > 0.06, f"seed {seed}: {placed.character.hair_colour}"


def test_face_boxes_lie_inside_the_picture(drawings: list[Drawing]) -> None:
    for drawing in [*drawings, draw_comic(1), draw_sketch(1)]:
        assert len(drawing.faces) == len(drawing.characters) > 0
        for face in drawing.faces:
            assert 0 <= face.x < face.x + face.w <= drawing.image.width
            assert 0 <= face.y < face.y + face.h <= drawing.image.height
            assert 80 <= face.w <= 340


def test_pictures_are_rgb_and_500_to_900_pixels_a_side(drawings: list[Drawing]) -> None:
    for drawing in drawings:
        assert drawing.image.mode == "RGB"
        assert all(500 <= side <= 900 for side in drawing.image.size)


def test_the_cascade_finds_the_faces_and_nothing_else(
    drawings: list[Drawing],
    find_faces: Callable[[Image.Image], list[tuple[float, float]]],
) -> None:
    faces = found = false = 0
    for drawing in drawings:
        centres = find_faces(drawing.image)
        faces += len(drawing.faces)
        found += sum(any(_inside(face, c) for c in centres) for face in drawing.faces)
        false += sum(not any(_inside(face, c) for face in drawing.faces) for c in centres)
    assert found / faces >= 0.95, f"{found} of {faces} faces found"
    assert false <= 1


@pytest.mark.slow
def test_the_cascade_finds_no_face_on_sceneries(
    find_faces: Callable[[Image.Image], list[tuple[float, float]]],
) -> None:
    for seed in range(10):
        drawing = draw_scenery(seed)
        assert drawing.faces == ()
        assert {"no_humans", "scenery"} <= set(drawing.tags)
        assert find_faces(drawing.image) == [], f"seed {seed}"


@pytest.mark.parametrize("seed", range(3))
def test_comics_are_grey_and_have_four_panels(seed: int) -> None:
    comic = draw_comic(seed)
    assert {"comic", "4koma", "monochrome", "greyscale"} <= set(comic.tags)
    assert len(comic.faces) == 4
    channels = np.asarray(comic.image)
    assert (channels == channels[..., :1]).all()


@pytest.mark.parametrize("seed", range(3))
def test_sketches_are_lines_on_paper_and_name_no_colours(seed: int) -> None:
    sketch = draw_sketch(seed)
    assert {"sketch", "monochrome", "lineart"} <= set(sketch.tags)
    assert not any(tag.endswith("_eyes") and tag != "closed_eyes" for tag in sketch.tags)
    grey = np.asarray(sketch.image.convert("L"))
    assert (grey > 240).mean() > 0.7
    assert (grey < 120).mean() > 0.01
    spread = np.ptp(np.asarray(sketch.image).astype(int), axis=2)
    assert spread.max() <= 12
