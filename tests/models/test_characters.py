"""Variations stay typical latents in any order, and a shift moves what is drawn, by family."""

import math

import numpy as np
import pytest
import torch

from dataset.errors import UsageError
from models.families.base import GeneratorNet
from models.labels import label_rows
from models.sampling.characters import (
    characters,
    draw_characters,
    mapped,
    points,
    shift_shape,
)
from models.sampling.clips import loop, make_clip, morph, one_way
from models.sampling.draw import draw, latents, map_latents
from tests.models.small_generators import NAMES, small_generator

ROW = label_rows([["blonde_hair"]], NAMES)


@pytest.fixture(scope="module")
def styled() -> GeneratorNet:
    return small_generator("stylegan2")


@pytest.fixture(scope="module")
def plain() -> GeneratorNet:
    return small_generator("dcgan64")


@pytest.mark.parametrize("z_dist", ["normal", "uniform"])
def test_variations_stay_typical_latents_whatever_their_order(z_dist: str) -> None:
    spec = small_generator("dcgan64", z_dist=z_dist).spec
    seeds, rows = range(60), ROW.repeat(60, axis=0)
    pairs = [(12, 0.9), (3, -1.5)]
    z = characters(spec, seeds, rows, variations=[pairs] * 60).z
    turned = characters(spec, seeds, rows, variations=[pairs[::-1]] * 60).z
    assert torch.equal(z, turned)
    own = latents(seeds, spec.z_dim, z_dist)
    mean, std = (0, 1) if z_dist == "normal" else (0.5, math.sqrt(1 / 12))
    assert float(z.mean()) == pytest.approx(mean, abs=0.15)
    assert float(z.std()) == pytest.approx(std, rel=0.05)
    if z_dist == "uniform":
        assert 0 < float(z.min()) < float(z.max()) < 1
    together = np.corrcoef(z.flatten(), own.flatten())[0, 1]
    assert together == pytest.approx(1 / math.sqrt(1 + 0.9**2 + 1.5**2), abs=0.05)


def test_who_has_nothing_of_its_own_keeps_its_latent_beside_one_who_has() -> None:
    spec = small_generator("dcgan64", z_dist="uniform").spec
    who = characters(spec, [1, 2], ROW.repeat(2, axis=0), variations=[[], [(2, 0.5)]])
    own = latents([1, 2], spec.z_dim, "uniform")
    assert torch.equal(who.z[0], own[0])
    assert not torch.allclose(who.z[1], own[1], atol=0.05)


def test_a_variation_is_not_the_latent_of_its_seed(plain: GeneratorNet) -> None:
    z = characters(plain.spec, [12], ROW, variations=[[(12, 1.0)]]).z
    assert not torch.allclose(z, latents([12], plain.spec.z_dim) * math.sqrt(2), atol=0.1)


def test_w_is_shifted_once_it_is_truncated(styled: GeneratorNet) -> None:
    shift = torch.randn(1, *shift_shape(styled.spec), generator=torch.Generator().manual_seed(1))
    who = characters(styled.spec, [4], ROW, shift=shift)
    w = map_latents(styled, latents([4], styled.spec.z_dim), ROW, psi=0.3)
    assert torch.equal(mapped(styled, who, psi=0.3), w + shift)
    drawn = draw_characters(styled, who, psi=0.3)
    assert np.array_equal(drawn, draw(styled, ROW, [4], w=w + shift))
    assert not np.array_equal(drawn, draw(styled, ROW, [4], psi=0.3))


@pytest.mark.parametrize("z_dist", ["normal", "uniform"])
def test_a_latent_is_shifted_where_there_is_no_w(z_dist: str) -> None:
    spec = small_generator("dcgan64", z_dist=z_dist).spec
    to = latents([9], spec.z_dim, z_dist)
    start = latents([4], spec.z_dim, z_dist)
    if z_dist == "uniform":
        to, start = torch.special.ndtri(to), torch.special.ndtri(start)
    who = characters(spec, [4], ROW, shift=(to - start)[:, None])
    assert who.w_shift is None
    assert torch.allclose(who.z, latents([9], spec.z_dim, z_dist), atol=1e-5)


def test_without_a_shift_the_generator_maps_as_ever(styled: GeneratorNet) -> None:
    who = characters(styled.spec, [4], ROW)
    assert points(styled, who).w is None
    assert np.array_equal(draw_characters(styled, who, psi=0.6), draw(styled, ROW, [4], psi=0.6))


@pytest.mark.parametrize("space", ["z", "w"])
def test_clips_carry_a_shift_along(styled: GeneratorNet, space: str) -> None:
    shift = torch.full((1, *shift_shape(styled.spec)), 0.5)
    a = characters(styled.spec, [4], ROW, shift=shift)
    b = characters(styled.spec, [5], ROW)
    way = morph(styled, a, b, space=space, psi=0.8)
    frames = list(make_clip(styled, [4], way, one_way(3), psi=0.8).frames())
    for who, frame in ((a, frames[0]), (b, frames[-1])):
        assert np.abs(frame.astype(int) - draw_characters(styled, who, psi=0.8)[0]).max() <= 1
    walk = loop(styled, a, space=space)
    first = walk(0.0)
    assert first.w is not None
    assert torch.allclose(first.w, mapped(styled, a), atol=1e-6)


def test_a_shift_of_another_generator_is_refused(styled: GeneratorNet, plain: GeneratorNet) -> None:
    shift = torch.zeros(1, *shift_shape(styled.spec))
    with pytest.raises(UsageError, match="6 x 12 numbers; dcgan64 at 64 px has 1 x 100: it was"):
        characters(plain.spec, [1], ROW, shift=shift)


def test_strengths_blend_w_and_are_exact_where_labels_are_off_or_full(
    styled: GeneratorNet, plain: GeneratorNet
) -> None:
    both = label_rows([["blonde_hair", "blue_eyes"]], NAMES)
    z = latents([4], styled.spec.z_dim)

    def w(*strengths: float) -> torch.Tensor:
        row = np.array([strengths], np.float32)
        return mapped(styled, characters(styled.spec, [4], both, strengths=row), psi=0.7)

    def own(*names: str) -> torch.Tensor:
        return map_latents(styled, z, label_rows([names], NAMES), psi=0.7)

    assert torch.equal(w(1, 1, 1), own("blonde_hair", "blue_eyes"))
    assert torch.allclose(w(0, 1, 1), own("blue_eyes"))
    assert torch.allclose(
        w(0.25, 1, 1), (own("blonde_hair", "blue_eyes") + 3 * own("blue_eyes")) / 4
    )
    assert torch.allclose(
        w(0.25, 1, 0.5),
        (own("blonde_hair", "blue_eyes") + own("blue_eyes") + 2 * own()) / 4,
        atol=1e-6,
    )
    row = np.array([[0.25, 1, 1]], np.float32)
    given = points(plain, characters(plain.spec, [4], both, strengths=row))
    assert np.allclose(given.labels, [[0.25, 0, 1]])
