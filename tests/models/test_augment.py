import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.training.augment import Strength, augmented, flipped
from tests.hypothesis_profiles import examples

IMAGES = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
NEVER, ALWAYS = torch.tensor(0.0), torch.tensor(1.0)
SHIFTS = Strength(translate_px=3)
ALL = Strength(translate_px=3, scale_frac=0.2, rotate_deg=15)
EVERY = [SHIFTS, Strength(scale_frac=0.2), Strength(rotate_deg=15), ALL]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_flips_mirror_about_half_and_nothing_else() -> None:
    out = flipped(IMAGES, source())
    same = (out == IMAGES).flatten(1).all(dim=1)
    mirrored = (out == IMAGES.flip(3)).flatten(1).all(dim=1)
    assert bool((same | mirrored).all())
    assert 16 < int(mirrored.sum()) < 48


def test_no_strength_returns_the_images_themselves() -> None:
    assert augmented(IMAGES, Strength(), ALWAYS, source()) is IMAGES


@pytest.mark.parametrize("strength", EVERY)
def test_chance_zero_leaves_images_alone_bit_for_bit(strength: Strength) -> None:
    assert torch.equal(augmented(IMAGES, strength, NEVER, source()), IMAGES)


@pytest.mark.parametrize("strength", EVERY)
def test_chance_is_the_share_of_pictures_that_change(strength: Strength) -> None:
    images = IMAGES.repeat(16, 1, 1, 1)
    out = augmented(images, strength, torch.tensor(0.25), source())
    changed = (out != images).flatten(1).any(dim=1).float().mean().item()
    kinds = sum(value > 0 for value in vars(strength).values())
    moving = 48 / 49 if strength == SHIFTS else 1.0  # of 7 x 7 shifts one is none
    wanted = moving * (1 - 0.75**kinds)
    assert changed == pytest.approx(wanted, abs=4 * math.sqrt(0.25 / len(images)))


def shifted_by_a_loop(image: Tensor, down: int, right: int) -> Tensor:
    """The picture whose pixel (y, x) is the image's (y + down, x + right), or the nearest one."""
    _, height, width = image.shape
    out = torch.empty_like(image)
    for y in range(height):
        for x in range(width):
            row, column = min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)
            out[:, y, x] = image[:, row, column]
    return out


def test_shifts_equal_a_naive_loop_and_reach_as_far_as_they_may() -> None:
    out = augmented(IMAGES, SHIFTS, ALWAYS, source())
    reach = range(-3, 4)
    seen = set()
    for image, moved in zip(IMAGES, out, strict=True):
        found = [
            (down, right)
            for down in reach
            for right in reach
            if torch.equal(
                moved[:, 3:-3, 3:-3], image[:, 3 + down : 13 + down, 3 + right :][..., :10]
            )
        ]
        assert len(found) == 1
        assert torch.equal(moved, shifted_by_a_loop(image, *found[0]))
        seen.add(found[0])
    assert {down for down, _ in seen} == {right for _, right in seen} == set(reach)


@settings(max_examples=examples(25), deadline=None)
@given(
    colour=st.tuples(*[st.floats(-1, 1, width=32)] * 3),
    strength=st.sampled_from(EVERY),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_picture_of_one_colour_stays_that_colour(
    colour: tuple[float, float, float], strength: Strength, seed: int
) -> None:
    images = torch.tensor(colour)[None, :, None, None].expand(4, 3, 16, 16)
    out = augmented(images, strength, ALWAYS, source(seed))
    assert torch.allclose(out, images, rtol=0, atol=1e-6)
    assert torch.equal(flipped(images, source(seed)), images)


@settings(max_examples=examples(25), deadline=None)
@given(strength=st.sampled_from(EVERY), seed=st.integers(0, 2**31 - 1))
def test_nothing_comes_in_that_is_brighter_or_darker_than_the_picture(
    strength: Strength, seed: int
) -> None:
    out = augmented(IMAGES[:4], strength, ALWAYS, source(seed))
    low, high = IMAGES[:4].amin(dim=(2, 3), keepdim=True), IMAGES[:4].amax(dim=(2, 3), keepdim=True)
    assert bool(((out >= low - 1e-6) & (out <= high + 1e-6)).all())


def ramps(count: int, side: int) -> Tensor:
    """Two channels [count,2,side,side] that hold each pixel's own x and y, from the middle."""
    at = torch.arange(side) - (side - 1) / 2
    return torch.stack(torch.meshgrid(at, at, indexing="xy")).expand(count, 2, side, side)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_a_warp_is_a_turn_a_scale_and_a_shift_within_their_bounds(seed: int) -> None:
    side, middle = 64, slice(24, 40)
    strength = Strength(translate_px=4, scale_frac=0.2, rotate_deg=20)
    out = augmented(ramps(8, side), strength, ALWAYS, source(seed))[:, :, middle, middle]
    at = ramps(8, side)[:, :, middle, middle].flatten(2)  # [8,2,P]
    known = torch.cat([at, torch.ones(8, 1, at.shape[2])], dim=1).transpose(1, 2)
    solved = torch.linalg.lstsq(known, out.flatten(2).transpose(1, 2)).solution  # [8,3,2]
    assert torch.allclose(known @ solved, out.flatten(2).transpose(1, 2), atol=1e-2)  # it is affine
    (a, b), (c, d) = solved[:, 0].T, solved[:, 1].T
    assert torch.allclose(a, d, atol=1e-3)
    assert torch.allclose(b, -c, atol=1e-3)
    scale, angle = (a.square() + b.square()).sqrt(), torch.atan2(b, a) * 180 / math.pi
    assert bool(((scale >= 1 / 1.2 - 1e-3) & (scale <= 1.2 + 1e-3)).all())
    assert bool((angle.abs() <= 20 + 0.1).all())
    assert bool((solved[:, 2].abs() <= 4 + 1e-2).all())
    assert len({round(value, 2) for value in angle.tolist()}) > 1  # each picture its own


def test_a_warp_of_next_to_no_strength_is_the_identity() -> None:
    out = augmented(IMAGES, Strength(rotate_deg=1e-6, scale_frac=1e-8), ALWAYS, source())
    assert torch.allclose(out, IMAGES, rtol=0, atol=1e-4)


def test_gradients_of_shifts_count_how_often_a_pixel_was_drawn() -> None:
    images = IMAGES.clone().requires_grad_()
    total = augmented(images, SHIFTS, ALWAYS, source()).sum()
    (gradient,) = torch.autograd.grad(total, images)
    assert gradient.sum().item() == images.numel()  # each pixel drawn came from one pixel
    assert torch.equal(gradient, gradient.round())


@pytest.mark.parametrize("strength", EVERY)
def test_gradients_are_those_of_finite_differences(strength: Strength) -> None:
    images = IMAGES[:2, :1, :6, :6].double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: augmented(x, strength, torch.tensor(0.7), source(3)), (images,)
    )


@pytest.mark.parametrize("strength", EVERY)
def test_two_ranks_see_what_one_would(monkeypatch: pytest.MonkeyPatch, strength: Strength) -> None:
    chance = torch.tensor(0.6)
    alone = augmented(flipped(IMAGES, source(5)), strength, chance, source(6))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for rank, rows in enumerate(IMAGES.chunk(2)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shared = augmented(flipped(rows, source(5)), strength, chance, source(6))
        assert torch.equal(shared, alone[rank * 32 : (rank + 1) * 32])
