"""Plans: the sets, what is refused and in which words, and what the digest depends on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.errors import ConfigError
from models.comparison.plan import Budget, Plan, comparison_id, planned
from models.comparison.sets import NAME, SETS, WHAT, Choice, choices_of, read_choices
from models.config import TrainConfig
from models.families import FAMILIES
from models.metrics.extractors import AUTO, LITE0, LITE2
from models.training.losses import LOSSES
from tests.hypothesis_profiles import examples

MINUTES = Budget(minutes=2)
TWO = (Choice("a", "smoke"), Choice("b", "smoke", ("batch=4",)))


def test_each_built_in_set_is_a_plan() -> None:
    for name in SETS:
        assert WHAT[name]
        made = planned([name], budget=MINUTES)
        assert [one.name for one in made.entrants] == [choice.name for choice in SETS[name]]
    together = planned(SETS, budget=MINUTES)
    assert len(together.entrants) == sum(map(len, SETS.values()))


def test_the_set_families_has_every_family() -> None:
    made = planned(["families"], budget=MINUTES)
    assert [one.config.family for one in made.entrants] == list(FAMILIES)


def test_auto_is_an_extractor_whose_features_no_entrant_trains_on() -> None:
    every, others = planned(["families"], budget=MINUTES), planned([], TWO, budget=MINUTES)
    assert (every.extractor(AUTO), others.extractor(AUTO)) == (LITE2, LITE0)
    assert every.extractor(LITE0) == LITE0  # as requested; the report says why it ranks nothing


def test_lambda_weighs_the_class_loss_of_both_networks() -> None:
    made = planned(["acgan64_lambda"], budget=MINUTES)
    weights = [(one.config.g_label_weight, one.config.d_label_weight) for one in made.entrants]
    assert weights == [(0, 0), (1, 1), (2, 2), (5, 5), (10, 10)]


def test_each_loss_has_the_settings_that_it_needs() -> None:
    made = planned(["srresnet_losses"], budget=MINUTES)
    for one in made.entrants:
        loss, config = LOSSES[one.config.loss], one.config
        assert one.name == config.loss
        critic = config.loss.startswith("wgan")
        assert (config.d_steps, config.beta1) == ((5, 0) if critic else (1, 0.5))
        # One thing bounds D: clipped weights, a penalty of the loss's own, or R1.
        bounds = [loss.clipped, loss.penalty and config.gp_weight > 0, config.r1_gamma > 0]
        assert sum(map(bool, bounds)) == 1, one.name


def test_the_budget_is_the_same_for_all_and_in_the_settings() -> None:
    timed = planned(["families"], budget=MINUTES)
    assert {one.config.max_minutes for one in timed.entrants} == {2}
    assert min(one.config.total_kimg for one in timed.entrants) >= 1e6
    shown = planned(["families"], budget=Budget(kimg=16), seed=3)
    assert {(c.total_kimg, c.max_minutes, c.seed, c.snapshot_kimg) for c in configs(shown)} == {
        (16, 0, 3, 2)
    }


def configs(plan: Plan) -> list[TrainConfig]:
    return [one.config for one in plan.entrants]


def test_own_overrides_go_before_those_of_all() -> None:
    made = planned([], TWO, budget=MINUTES, overrides=["batch=16", "score_pictures=9"])
    assert [(c.batch, c.score_pictures) for c in configs(made)] == [(16, 9), (4, 9)]


def test_every_fault_is_listed_at_once() -> None:
    entrants = [
        Choice("a", "dcgan65"),
        Choice("a", "smoke", ("bach=3",)),
        Choice("A b", "smoke", ("total_kimg=3", "seed=1")),
        Choice("c", "smoke"),
        Choice("d", "smoke"),
    ]
    with pytest.raises(ConfigError) as raised:
        planned(
            ["familys"], entrants, budget=Budget(minutes=1, kimg=1), overrides=["max_minutes=1"]
        )
    message = str(raised.value)
    for words in (
        'unknown set "familys"; did you mean "families"?',
        '2 entrants are named "a"',
        '"A b" names no entrant',
        "minutes is 1 and kimg is 1",
        "of all entrants: max_minutes is the same for all: the budget decides it",
        'a: unknown preset "dcgan65"',
        '"bach" is unknown; did you mean "batch"?',
        "A b: total_kimg is the same for all",
        "A b: seed is the same for all: --seed decides it",
        "d has the settings of c",
    ):
        assert words in message, words


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(), "minutes is 0 and kimg is 0"),
        (Budget(minutes=-1), "minutes is -1 and kimg is 0"),
        (Budget(minutes=-1, kimg=2), "minutes is -1 and kimg is 2"),
        (Budget(minutes=1, clock="cpu"), 'clock is "cpu"; wall or processor wanted'),
        (Budget(kimg=1, clock="processor"), "kimg needs none"),
        (Budget(minutes=1e7), "max_minutes is 1e"),
    ],
)
def test_a_budget_that_is_none_is_refused(budget: Budget, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        planned([], TWO, budget=budget)


def test_one_entrant_is_no_comparison() -> None:
    with pytest.raises(ConfigError, match="1 entrants make no comparison; 2 or more wanted"):
        planned([], TWO[:1], budget=MINUTES)


def test_labels_that_do_not_suit_are_named_by_entrant() -> None:
    made = planned(["families"], budget=MINUTES)
    made.check_labels(["blonde_hair", "blue_eyes"])
    with pytest.raises(ConfigError) as raised:
        made.check_labels(["left_side_ponytail"])
    message = str(raised.value)
    assert "dcgan64: flip is true, and left_side_ponytail tells left from right" in message
    assert "acgan64: acgan64 is conditioned on hair and eye colours" in message


def test_entrants_are_read_as_they_are_written() -> None:
    assert read_choices(["a=smoke", "b = dcgan64-small , batch=4,lr_g=1e-3"]) == [
        Choice("a", "smoke"),
        Choice("b", "dcgan64-small", ("batch=4", "lr_g=1e-3")),
    ]


def test_each_entrant_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigError) as raised:
        read_choices(["smoke", "=smoke", "a=", "b=smoke,", "c=smoke", "c=demo"])
    message = str(raised.value)
    for text in ('"smoke"', '"=smoke"', '"a="', '"b=smoke,"', '2 entrants are named "c"'):
        assert text in message


names = st.text(st.sampled_from("ab-._1"), max_size=4)


@given(st.lists(names, max_size=5))
def test_names_are_refused_unless_each_is_a_folder_of_its_own(chosen: list[str]) -> None:
    _, faults = choices_of([], [Choice(name, "smoke") for name in chosen])
    fits = len(set(chosen)) == len(chosen) and all(map(NAME.fullmatch, chosen))
    assert (faults == []) == fits
    for name in chosen:
        if NAME.fullmatch(name):
            assert "/" not in name
            assert name not in (".", "..")


@settings(max_examples=examples(25))
@given(
    st.lists(st.integers(2, 64), min_size=2, max_size=4, unique=True),
    st.floats(0.5, 100),
    st.integers(0, 9),
)
def test_the_digest_is_of_what_is_trained(batches: list[int], minutes: float, seed: int) -> None:
    entrants = [Choice(f"b{n}", "smoke", (f"batch={n}",)) for n in batches]
    base = planned([], entrants, budget=Budget(minutes=minutes), seed=seed)
    same = planned([], entrants[::-1], budget=Budget(minutes=minutes), seed=seed)
    assert same.digest == base.digest  # neither by order
    elsewhere = planned(
        [], entrants, budget=Budget(minutes=minutes), seed=seed, overrides=["threads=1"]
    )
    assert elsewhere.digest == base.digest  # nor by where it runs
    others = [
        planned([], entrants, budget=Budget(minutes=minutes), seed=seed + 1),
        planned([], entrants, budget=Budget(minutes=minutes + 1), seed=seed),
        planned([], entrants, budget=Budget(minutes=minutes, clock="processor"), seed=seed),
        planned([], [*entrants, Choice("x", "demo")], budget=Budget(minutes=minutes), seed=seed),
    ]
    ids = {comparison_id("ab" * 32, one) for one in (base, *others)}
    assert len(ids) == len(others) + 1
