from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from dataset.errors import UsageError
from models.families.base import GeneratorNet
from models.labels import label_rows
from models.sampling.characters import Characters, characters
from models.sampling.draw import (
    draw,
    draw_latents,
    latents,
    map_latents,
    noise_maps,
    png_bytes,
    shortened,
)
from models.sampling.tables import mixing_table, swap_table, sweep_table
from tests.models.small_generators import NAMES, small_generator

SIDE = 16


@pytest.fixture(scope="module")
def styled() -> GeneratorNet:
    return small_generator("stylegan2")


@pytest.fixture(scope="module")
def plain() -> GeneratorNet:
    return small_generator("dcgan64")


def rows(count: int) -> npt.NDArray[np.float32]:
    return label_rows([["blonde_hair"]] * count, NAMES)


def who(network: GeneratorNet, *seeds: int) -> Characters:
    return characters(network.spec, seeds, rows(len(seeds)))


def cell(sheet: Image.Image, row: int, column: int, *, side: int = SIDE) -> npt.NDArray[np.uint8]:
    """Cuts a cell out, counted from the right end, where no title stands."""
    pixels = np.asarray(sheet)
    right = pixels.shape[1] - column * side
    return pixels[row * side : (row + 1) * side, right - side : right]


def test_noise_is_on_off_or_drawn_anew_and_the_same_for_a_seed(styled: GeneratorNet) -> None:
    drawn = {
        noise: draw(styled, rows(2), [4, 5], noise=noise) for noise in ("const", "none", "random")
    }
    assert not np.array_equal(drawn["const"], drawn["none"])
    assert not np.array_equal(drawn["const"], drawn["random"])
    assert np.array_equal(drawn["random"], draw(styled, rows(2), [4, 5], noise="random"))
    alone = draw(styled, rows(1), [5], noise="random")[0].astype(int)
    assert np.abs(drawn["random"][1] - alone).max() <= 1
    maps = noise_maps([4, 8], [4, 5])
    assert [tuple(one.shape) for one in maps] == [(2, 1, 4, 4), (2, 1, 8, 8)]
    assert torch.equal(maps[1][1], noise_maps([4, 8], [5])[1][0])


def test_psi_0_is_one_face_a_label_and_a_given_w_is_drawn_as_it_is(styled: GeneratorNet) -> None:
    mean = draw(styled, rows(3), [1, 2, 3], psi=0)
    assert np.array_equal(mean[0], mean[1])
    z = latents([1, 2, 3], 12)
    w = map_latents(styled, z, rows(3), psi=0.6)
    given = draw(styled, rows(3), [1, 2, 3], psi=0, w=w)
    assert np.array_equal(given, draw(styled, rows(3), [1, 2, 3], psi=0.6))
    with pytest.raises(UsageError, match=r"w is \[3, 6, 12\]; \[2, 6, 12\] wanted"):
        draw(styled, rows(2), [1, 2], w=w)


def test_latents_are_scaled_by_the_spec() -> None:
    half = small_generator("dcgan64", z_std=0.5)
    whole = small_generator("dcgan64")
    z = latents([3], 100)
    assert np.array_equal(draw(half, rows(1), [3]), draw_latents(whole, z * 0.5, rows(1)))


def test_no_seeds_draw_no_pictures(plain: GeneratorNet) -> None:
    assert draw(plain, np.zeros((0, 3), np.float32), []).shape == (0, 64, 64, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda G: draw(G, rows(1), [0], noise="none"), "dcgan64 has no noise maps"),
        (lambda G: draw(G, rows(1), [0], noise="off"), "one of const, none, random wanted"),
        (lambda G: draw(G, rows(1), [0], w=torch.zeros(1, 2, 3)), "dcgan64 has no W"),
        (
            lambda G: mixing_table(G, who(G, 0), who(G, 1)),
            "dcgan64 has no W, which style mixing needs. It can do grid, table, sweep.*"
            "Families with W: .*stylegan2",
        ),
        (
            lambda G: sweep_table(G, who(G, 0), numbers=[0], space="w"),
            "dcgan64 has no W, which --space w needs",
        ),
        (
            lambda G: sweep_table(G, who(G, 0), numbers=[3, 100]),
            "z of dcgan64 has the numbers 0 to 99, not 100",
        ),
        (lambda G: swap_table(G, rows(2), ["pink_hair"], seeds=[0]), 'unknown label "pink_hair"'),
    ],
)
def test_what_a_family_cannot_do_is_said_by_name(
    plain: GeneratorNet, call: Callable[[GeneratorNet], Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        call(plain)


@pytest.mark.parametrize(("space", "numbers"), [("z", [0, 3]), ("w", [1, 2])])
def test_a_sweep_has_a_row_a_number_and_changes_along_it(
    styled: GeneratorNet, space: str, numbers: list[int]
) -> None:
    sheet = sweep_table(styled, who(styled, 7), numbers=numbers, space=space)
    assert sheet.height == 2 * SIDE
    assert sheet.width > 20 * SIDE
    own = draw(styled, rows(1), [7])[0].astype(int)
    for row in range(2):
        cells = [cell(sheet, row, column).astype(int) for column in range(20)]
        assert len({one.tobytes() for one in cells}) == 20
        nearest = min(np.abs(one - own).mean() for one in cells)
        assert nearest < np.abs(cells[0] - cells[-1]).mean()


def test_a_mix_takes_coarse_styles_from_the_row_and_fine_ones_from_the_column(
    styled: GeneratorNet,
) -> None:
    sheet = mixing_table(styled, who(styled, 1, 2), who(styled, 3, 4, 5), crossover=5)
    assert sheet.size == (4 * SIDE, 3 * SIDE)
    assert (cell(sheet, 0, 3) == 255).all()
    seeds = [1, 2, 3, 4, 5]
    avatars = draw(styled, rows(5), seeds)
    assert np.abs(cell(sheet, 1, 3).astype(int) - avatars[0]).max() <= 1
    assert np.abs(cell(sheet, 0, 0).astype(int) - avatars[4]).max() <= 1
    w = map_latents(styled, latents([2, 4], 12), rows(2))
    mixed = torch.cat([w[:1, :5], w[1:, 5:]], dim=1)
    wanted = draw(styled, rows(1), [2], w=mixed)[0].astype(int)
    assert np.abs(cell(sheet, 2, 1) - wanted).max() <= 1
    with pytest.raises(UsageError, match="crossover is 6; stylegan2 at 16 px has 6 layers"):
        mixing_table(styled, who(styled, 1), who(styled, 2), crossover=6)


def test_a_png_says_from_what_it_was_made() -> None:
    facts = {"Software": "Omokage", "omokage seeds": shortened([0, 1, 2, 9, 4, 5])}
    content = png_bytes(Image.new("RGB", (2, 2)), facts)
    assert b"tEXtomokage seeds\x000-2,9,4-5" in content
    assert content == png_bytes(Image.new("RGB", (2, 2)), facts)
