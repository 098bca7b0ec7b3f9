"""A character keeps what was not chosen anew, and a picture depends on its recipe alone."""

import dataclasses
import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.errors import UsageError
from models.sampling.characters import shift_text
from models.sampling.directions import Direction, Directions
from studio.character import Character
from studio.draw import (
    LabelChoice,
    abilities,
    choice_for,
    choice_named,
    draw_avatars,
    draw_one,
    label_groups,
    resolve,
)
from studio.recipe import Recipe
from studio.validation import MAX_SEED
from tests.studio.small_models import LABELS, ROWS, small_model

DCGAN = small_model("dcgan64")
STYLE = small_model("stylegan2")
GROUPS = label_groups(LABELS)

seeds = st.integers(0, MAX_SEED)
subsets = st.sets(st.sampled_from(LABELS)).map(lambda chosen: choice_for(sorted(chosen), DCGAN))
choices = st.builds(
    lambda whole, kept: LabelChoice({name: whole.chosen[name] for name in kept}),
    subsets,
    st.sets(st.sampled_from([group.name for group in GROUPS])),
)


def test_without_a_wish_a_character_has_the_labels_of_its_seeds_typical_row() -> None:
    assert [resolve(DCGAN, LabelChoice(), seed) for seed in range(5)] == [*ROWS, ROWS[0]]


@given(choices, seeds)
def test_only_the_labels_of_chosen_groups_change(choice: LabelChoice, seed: int) -> None:
    usual, requested = set(resolve(DCGAN, LabelChoice(), seed)), set(resolve(DCGAN, choice, seed))
    for group in GROUPS:
        own = requested & set(group.labels)
        assert own == set(choice.chosen.get(group.name, usual & set(group.labels)))


@given(choices, seeds)
def test_the_wish_for_a_characters_labels_gives_them_for_any_seed(
    choice: LabelChoice, seed: int
) -> None:
    labels = resolve(DCGAN, choice, seed)
    again = choice_for(labels, DCGAN)
    assert {resolve(DCGAN, again, other) for other in range(len(ROWS))} == {labels}
    assert set(again.chosen) == {group.name for group in GROUPS}


def test_named_labels_choose_their_groups_and_leave_the_others() -> None:
    choice = choice_named(["red hair", "smile"], DCGAN)
    assert choice == LabelChoice({"hair_colour": ("red_hair",), "other": ("smile",)})
    assert resolve(DCGAN, choice, 0) == ("long_hair", "red_hair", "blue_eyes", "smile")


@pytest.mark.parametrize(
    ("chosen", "reported"),
    [
        ({"hair_color": ("red_hair",)}, '"hair_color" is no group .*mean "hair_colour"'),
        ({"hair_colour": ("blond_hair",)}, 'unknown label "blond_hair"; did you mean'),
        ({"hair_colour": ("blue_eyes",)}, 'unknown label "blue_eyes".*knows blonde_hair, red'),
    ],
)
def test_a_wish_that_the_model_cannot_have_is_refused(
    chosen: dict[str, tuple[str, ...]], reported: str
) -> None:
    with pytest.raises(UsageError, match=reported):
        resolve(DCGAN, LabelChoice(chosen), 0)


def test_a_model_without_labels_draws_from_seeds_alone() -> None:
    model = small_model("dcgan64", labels=())
    (avatar,) = draw_avatars(model, LabelChoice(), [7])
    assert avatar.recipe == Recipe(model.key, 7)
    assert avatar.picture.shape == (64, 64, 3)
    with pytest.raises(UsageError, match="This model knows no labels"):
        choice_named(["red_hair"], model)


@pytest.mark.parametrize("model", [DCGAN, STYLE], ids=["dcgan64", "stylegan2"])
def test_a_picture_is_the_same_whatever_is_drawn_beside_it(model) -> None:  # type: ignore[no-untyped-def]
    together = list(draw_avatars(model, LabelChoice(), range(6), psi=0.8))
    alone = next(draw_avatars(model, LabelChoice(), [4], psi=0.8))
    assert alone.recipe == together[4].recipe
    assert np.array_equal(alone.picture, together[4].picture)
    pairs = itertools.combinations([avatar.picture for avatar in together], 2)
    assert not any(np.array_equal(one, other) for one, other in pairs)


def test_random_noise_is_the_seeds_own() -> None:
    def drawn(seed: int, noise: str) -> bytes:
        return draw_one(STYLE, Character(seed, ("halo",)), noise=noise).tobytes()

    assert drawn(3, "random") == drawn(3, "random")
    assert len({drawn(3, noise) for noise in ("const", "none", "random")}) == 3


def test_four_threads_draw_the_bytes_of_one() -> None:
    requested = [(seed, ROWS[seed % 3]) for seed in range(24)]

    def draw(one: tuple[int, tuple[str, ...]]) -> bytes:
        return draw_one(STYLE, Character(*one), psi=0.7).tobytes()

    alone = [draw(one) for one in requested]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(draw, requested)) == alone


def test_avatars_are_drawn_when_they_are_asked_for() -> None:
    calls = []
    handle = DCGAN.generator.register_forward_hook(lambda *_: calls.append(threading.get_ident()))
    try:
        avatars = draw_avatars(DCGAN, LabelChoice(), range(64))
        assert calls == []
        next(avatars)
        assert len(calls) == 1
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("requested", "reported"),
    [
        ({"seed": -1}, 'the seed is "-1"; a whole number from 0 to 9007199254740991'),
        ({"seed": 2**53}, "the seed is"),
        ({"seed": 1.5}, 'the seed is "1.5"'),
        ({"seed": True}, 'the seed is "True"'),
        ({"seed": "3"}, 'the seed is "3"; a whole number'),
        ({"seed": math.inf}, 'the seed is "inf"'),
        ({"psi": 2.01}, 'psi is "2.01"; a number from 0 to 2 is wanted, where 1 is full variety'),
        ({"psi": math.nan}, 'psi is "nan"'),
        ({"psi": None}, 'psi is "None"'),
        ({"noise": "randm"}, 'the noise is "randm"; .*did you mean "random"'),
        (
            {"noise": "random"},
            'noise "random" cannot be drawn. dcgan64 has no noise, so .*stylegan2',
        ),
        ({"labels": ("blond_hair",)}, 'did you mean "blonde_hair"'),
    ],
)
def test_what_cannot_be_drawn_is_refused(requested: dict[str, object], reported: str) -> None:
    given: dict[str, Any] = {"seed": 0, "labels": (), "psi": 1.0, "noise": "const"} | requested
    character = Character(given.pop("seed"), given.pop("labels"))
    with pytest.raises(UsageError, match=reported):
        draw_one(DCGAN, character, **given)


def test_a_wrong_setting_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(UsageError, match="psi"):
        draw_avatars(DCGAN, LabelChoice(), [1], psi=-1)
    with pytest.raises(UsageError, match="seed"):
        draw_avatars(DCGAN, LabelChoice(), [1, -1])


def test_a_seed_of_a_page_may_come_as_a_float() -> None:
    assert np.array_equal(
        draw_one(STYLE, Character(3.0)),  # type: ignore[arg-type]
        draw_one(STYLE, Character(3)),
    )


def test_what_a_family_cannot_do_is_told_with_those_that_can() -> None:
    reasons = abilities(DCGAN)
    able = {name for name, reason in reasons.items() if not reason}
    assert able == {"morph", "sweep", "table", "loop"}
    assert reasons["mix"] == (
        "dcgan64 has no W, so its styles cannot be mixed. Families that can: omokage, stylegan2."
    )
    assert {name for name, reason in abilities(STYLE).items() if reason} == {"sliders"}


def test_a_version_without_its_weights_says_that_this_is_why() -> None:
    import dataclasses

    limits = "version 2 was registered without its weights, so it draws from seeds alone"
    model = small_model("stylegan2", limits=limits)
    model.generator.spec = dataclasses.replace(
        model.spec, can_w=False, can_mixing=False, can_noise=False
    )
    reason = "Version 2 was registered without its weights, so it draws from seeds alone: "
    assert abilities(model)["mix"] == f"{reason}its styles cannot be mixed."
    assert all(reported.startswith(reason) for reported in abilities(model).values() if reported)


def test_a_label_is_pulled_between_off_and_full() -> None:
    def drawn(*strengths: tuple[str, float], labels: tuple[str, ...] = ("halo",)) -> np.ndarray:
        return draw_one(STYLE, Character(3, labels, strengths)).astype(int)

    full, off = drawn(), drawn(labels=())
    half = drawn(("halo", 0.5))
    assert np.array_equal(drawn(("halo", 1.0)), full)
    assert not np.array_equal(half, full)
    assert np.abs(half - off).mean() < np.abs(full - off).mean()


def test_variations_sliders_and_latents_come_with_a_character() -> None:
    plain = draw_one(DCGAN, Character(3))
    varied = draw_one(DCGAN, Character(3, variations=((3, 0.5),)))
    assert not np.array_equal(plain, varied)
    nothing = shift_text(np.zeros((1, 100)))
    assert np.array_equal(plain, draw_one(DCGAN, Character(3, latent=nothing)))
    with pytest.raises(UsageError, match="has 1 x 100 numbers, and small stylegan2 takes 6 x 12"):
        draw_one(STYLE, Character(3, latent=nothing))
    with pytest.raises(UsageError, match="small dcgan64 has no directions, so it has no sliders"):
        draw_one(DCGAN, Character(3, sliders=(("smile", 1.0),)))


def test_a_slider_moves_w_by_its_direction() -> None:
    vector = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)
    directions = Directions((Direction("smile", vector, 1.0, 0.1),))
    model = dataclasses.replace(STYLE, directions=directions)
    assert not abilities(model)["sliders"]
    moved = draw_one(model, Character(3, sliders=(("smile", 2.0),)))
    # A latent keeps eight bits of each number, so its picture is nearly the same.
    given = draw_one(model, Character(3, latent=shift_text(2 * vector)))
    assert np.abs(moved.astype(int) - given).mean() < 3
    assert np.abs(moved.astype(int) - draw_one(model, Character(3))).mean() > 10
    with pytest.raises(UsageError, match='no direction "smil"; did you mean "smile"'):
        draw_one(model, Character(3, sliders=(("smil", 2.0),)))
