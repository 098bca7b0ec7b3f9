"""What is kept of a home, and in which order the rest goes, over random graphs of references."""

import random
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from models.registry.retention import GRACE_S, KINDS, Thing, removal_order, retained
from tests.hypothesis_profiles import examples

NOW_S = 1e9


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Thing]:
    """Things of all kinds that need things of later kinds, or the same; some are not there."""
    names = [f"{kind} {number}" for kind in KINDS for number in range(draw(st.integers(0, 4)))]
    things = {}
    for place, name in enumerate(names):
        needs = draw(st.sets(st.sampled_from([*names[place + 1 :], "gone"]), max_size=4))
        age_s = draw(st.sampled_from([0.0, GRACE_S / 2, 2 * GRACE_S]))
        kind = name.rpartition(" ")[0]
        things[name] = Thing(kind, name, frozenset(needs), modified_s=NOW_S - age_s)
    return things


def reached(things: Mapping[str, Thing], starts: set[str]) -> set[str]:
    """What is needed from `starts`, by another way than the code's: until nothing is added."""
    found = starts & things.keys()
    while more := {need for name in found for need in things[name].needs} & things.keys() - found:
        found |= more
    return found


@given(graphs(), st.randoms(use_true_random=False))
@settings(max_examples=examples(200))
def test_all_that_is_reached_stays_and_all_else_goes(
    things: dict[str, Thing], chance: random.Random
) -> None:
    roots = {name for name in [*things, "of another home"] if chance.random() < 0.2}
    kept = retained(things, [(name, "root") for name in sorted(roots)], now_s=NOW_S)
    young = {name for name, one in things.items() if one.modified_s > NOW_S - GRACE_S}
    assert kept.keys() == reached(things, roots | young)
    assert set(kept.values()) <= {"root", "new"}
    assert all(kept[name] == "root" for name in reached(things, roots))


@given(graphs())
@settings(max_examples=examples(200))
def test_wherever_the_removal_ends_nothing_left_needs_what_went(things: dict[str, Thing]) -> None:
    going = things.keys() - retained(things, [], now_s=NOW_S).keys()
    order = removal_order(things, going)
    assert set(order) == going
    assert len(order) == len(going)
    for done in range(len(order)):
        left = things.keys() - set(order[:done])
        assert all(things[name].needs.isdisjoint(order[:done]) for name in left)
