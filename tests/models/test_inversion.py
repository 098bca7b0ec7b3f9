"""Inversion: a generator's own picture is found again, as a character that a link can hold."""

from typing import Any

import numpy as np
import pytest

from dataset.errors import UsageError
from models.families.base import GeneratorNet
from models.labels import label_rows
from models.sampling.characters import draw_characters
from models.sampling.draw import Pictures, draw
from models.sampling.inversion import Inversion, between, guessed_labels, invert
from tests.models.small_generators import NAMES, TYPICAL, small_generator

ROWS = label_rows(TYPICAL, NAMES)
SEED = 4711  # of the picture that is looked for; none of the candidates has it


def picture_of(generator: GeneratorNet) -> Pictures:
    drawn: Pictures = draw(generator, ROWS[:1], [SEED])[0]
    return drawn


def redrawn(generator: GeneratorNet, found: Inversion) -> Pictures:
    drawn: Pictures = draw_characters(generator, found.character(generator.spec))[0]
    return drawn


def far(a: Pictures, b: Pictures) -> float:
    return float(between(a[None], b[None])[0])


@pytest.mark.parametrize(
    ("family", "changes"),
    [("stylegan2", {}), ("dcgan64", {}), ("dcgan64", {"z_dist": "uniform", "z_std": 4.0})],
    ids=["in W", "in z", "in uniform z"],
)
def test_a_generators_own_picture_is_found_again(family: str, changes: dict[str, Any]) -> None:
    generator = small_generator(family, **changes)
    picture = picture_of(generator)
    previews: dict[int, Pictures] = {}

    def advance(step: int, preview: Pictures | None) -> None:
        if preview is not None:
            previews[step] = preview

    found = invert(generator, picture, ROWS, steps=40, candidates=8, advance=advance)
    drawn = redrawn(generator, found)
    assert far(drawn, picture) < 0.5 * far(previews[0], picture)
    assert far(drawn, picture) == pytest.approx(found.distance, abs=1e-6)
    assert sorted(previews) == [0, 20, 40]


def test_the_same_seed_finds_the_same_point() -> None:
    generator = small_generator("stylegan2")
    first, second = (
        invert(generator, picture_of(generator), ROWS, steps=3, candidates=4) for _ in range(2)
    )
    assert first.latent == second.latent
    assert (first.seed, first.distance) == (second.seed, second.distance)


@pytest.mark.ci
def test_labels_are_guessed_from_fakes_of_the_generator() -> None:
    generator = small_generator("dcgan64")
    rights = [
        np.array_equal(guessed_labels(generator, picture, ROWS, candidates=64), row[None])
        for row in ROWS
        for picture in draw(generator, np.repeat(row[None], 4, axis=0), range(900, 904))
    ]
    assert np.mean(rights) > 0.6  # chance: 0.33


def test_what_advance_raises_ends_the_work() -> None:
    generator = small_generator("stylegan2")
    steps = []

    def advance(step: int, _preview: Pictures | None) -> None:
        steps.append(step)
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invert(generator, picture_of(generator), ROWS, candidates=4, advance=advance)
    assert sorted(set(steps)) == [0, 1, 2]
    assert steps == sorted(steps)


def test_a_picture_of_another_side_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a picture of \[8, 8, 3\] uint8; \[16, 16, 3\] uint8"):
        invert(small_generator("stylegan2"), np.zeros((8, 8, 3), np.uint8), ROWS)
