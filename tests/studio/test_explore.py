"""Steps from a character: neighbours, strengths, sliders; undo; an inversion that is watched."""

import dataclasses
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.errors import UsageError
from models.sampling.inversion import Progress, ignore
from studio.edits import Edits
from studio.explore import (
    MAP,
    MIDDLE,
    STEPS_MAX,
    VARIATIONS,
    Exploration,
    inverting,
    moved,
    neighbours,
    with_slider,
    with_strength,
)
from studio.recipe import Recipe
from studio.service import Inverted, Studio
from studio.validation import VARIATION_MAX

KNOWN = ("blonde_hair", "smile", "blue_eyes")
START = Recipe("avatar-generator/1", 5, ("blonde_hair", "blue_eyes"))


@pytest.mark.parametrize("kind", [MAP, VARIATIONS])
def test_eight_neighbours_differ_and_the_middle_is_the_character(kind: str) -> None:
    near = neighbours(START, kind=kind, way=3, radius=0.4)
    assert len(set(near)) == 9
    assert near[MIDDLE] == START
    other = neighbours(START, kind=kind, way=4, radius=0.4)
    assert set(near) & set(other) == {START}


def test_a_walk_around_a_square_ends_where_it_began() -> None:
    here = START
    for right, up in [(1, 0), (0, 1), (-1, 0), (0, -1)]:
        here = moved(here, {6: 0.3 * right, 7: 0.3 * up})
    assert here == START
    assert neighbours(START, kind=MAP, way=3, radius=0.3)[2] == moved(START, {6: 0.3, 7: 0.3})


def test_beyond_the_edge_of_a_map_a_sentence_says_so() -> None:
    at_edge = moved(START, {0: VARIATION_MAX})
    with pytest.raises(UsageError, match="the edge of this map: 2 in one direction"):
        moved(at_edge, {0: 0.1})
    varied = moved(START, dict.fromkeys(range(16), 0.1))
    with pytest.raises(UsageError, match="already has 16 variations of at most 16"):
        moved(varied, {16: 0.1})


@given(st.sampled_from(KNOWN), st.integers(0, 100))
def test_a_label_goes_by_degrees_from_off_to_full(label: str, percent: int) -> None:
    changed = with_strength(START, label, percent / 100, known=KNOWN)
    assert Recipe.from_query(changed.to_query()) == changed
    full = dict.fromkeys(changed.labels, 1.0) | dict(changed.strengths)
    assert full.get(label, 0) == percent / 100
    assert [name for name in KNOWN if name in changed.labels] == list(changed.labels)
    others = [name for name in START.labels if name != label]
    assert all(full[name] == 1 for name in others)


def test_a_slider_is_set_anew_and_left_out_at_nothing() -> None:
    once = with_slider(with_slider(START, "smile", 1.0), "smile", -2.0)
    assert once.sliders == (("smile", -2.0),)
    assert with_slider(once, "smile", 0.0) == START


def test_every_step_is_taken_back_and_done_again_and_a_drag_is_one() -> None:
    finished = dataclasses.replace(START, upscale=2, edits=Edits(hue=30))
    history = Exploration.of(finished)
    assert history.recipe == START
    for amount, at in ((0.5, 10.0), (1.0, 10.5), (1.5, 11.0)):
        recipe = with_slider(START, "smile", amount)
        history = history.stepped(recipe, touched="smile", now=at)
    assert len(history.steps) == 2
    further = moved(with_slider(START, "smile", 1.5), {0: 0.4})
    history = history.stepped(further)
    assert history.stepped(further) is history
    assert [history.gone_to(at).recipe for at in (0, 1, 2, 9, -1)] == [
        START, with_slider(START, "smile", 1.5), further, further, START
    ]  # fmt: skip
    back = history.gone_to(0)
    assert (back.can_undo, back.can_redo) == (False, True)
    assert not back.stepped(moved(START, {2: 0.4})).can_redo


class Slow(Studio):
    """A studio whose inversions have so many steps that nobody waits for the end."""

    def __init__(self, error: Exception | None = None) -> None:
        self.ended = threading.Event()
        self._error = error

    def invert(
        self,
        content: bytes,
        name: str = "the picture",
        *,
        steps: int = 10**9,
        advance: Progress = ignore,
    ) -> Inverted:
        try:
            for step in range(steps):
                advance(step, None)
                if self._error is not None:
                    raise self._error
            raise AssertionError("it was not stopped")
        finally:
            self.ended.set()


def test_an_inversion_that_nobody_watches_any_more_ends() -> None:
    studio = Slow()
    watched = inverting(studio, b"", "a.png")
    assert next(watched) == (0, None)
    watched.close()  # type: ignore[attr-defined]
    assert studio.ended.wait(10)


def test_where_it_began_stays_among_the_steps_however_many_they_are() -> None:
    history = Exploration.of(START)
    for seed in range(STEPS_MAX + 5):
        history = history.stepped(dataclasses.replace(START, seed=100 + seed))
    assert len(history.steps) == STEPS_MAX
    assert history.gone_to(0).recipe == START
    assert history.gone_to(1).recipe == dataclasses.replace(START, seed=106)


def test_a_picture_that_was_seen_on_the_way_takes_no_step_from_it() -> None:
    further, last = moved(START, {0: 0.4}), moved(START, {0: 0.8})
    history = Exploration.of(START).stepped(further).stepped(last)
    back = history.begun_with(dataclasses.replace(further, upscale=2))
    assert (back.steps, back.recipe) == (history.steps, further)
    assert history.begun_with(dataclasses.replace(START, seed=1)).steps[1:] == ()


def test_what_an_inversion_raises_reaches_who_watches() -> None:
    watched = inverting(Slow(UsageError("no such face")), b"", "a.png")
    assert next(watched) == (0, None)
    with pytest.raises(UsageError, match="no such face"):
        next(watched)
