"""The gate moves the champion for a clear win on equal terms only, and nothing slides in steps."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.errors import RegistryError
from models.metrics import extractors
from models.registry.gate import (
    ENOUGH_SPREAD,
    EXTRACTORS,
    MAX_COPIED_FRAC,
    MIN_MEMORY_RATIO,
    MIN_PRECISION,
    MIN_SPREAD,
    MeasuredVersion,
    decide,
    high_water_marks,
)
from models.registry.promotion_log import GATE, PROMOTE, ROLLBACK, Promotion, champions_on
from tests.hypothesis_profiles import examples
from tests.models.registry.desks import evaluation

INCUMBENT = MeasuredVersion(
    "1",
    manifest="m",
    protocol="p",
    kernel_metric="kid",
    kernel=0.100,
    kernel_se=0.003,
    at128=0.400,
    at128_se=0.004,
    resolution_px=64,
    repeats=4,
    label_ap=0.70,
    label_ap_sigma=0.002,
    recall=0.40,
    recall_sigma=0.01,
    spread=0.88,
    spread_sigma=0.002,
    memory_ratio=1.0,
    copied_frac=0.01,
    extractor="efficientnet_lite0",
)
CLEARLY_BETTER = 0.080


def challenger(kernel: float = CLEARLY_BETTER, **changes: Any) -> MeasuredVersion:
    return dataclasses.replace(INCUMBENT, version="2", kernel=kernel, **changes)


def test_the_first_version_becomes_champion() -> None:
    decision = decide(challenger(500.0), None)
    assert decision.moves
    assert decision.reason == "version 2 is the first: there was no champion"


@pytest.mark.parametrize(
    ("kernel", "se", "moves"),
    [
        (0.090, 0.003, True),  # 2 * sqrt(.003² + .003²) = .0085
        (0.092, 0.003, False),
        (0.088, 0.006, False),  # 2 * sqrt(.003² + .006²) = .0134
        (0.086, 0.006, True),
        (-0.001, 0.003, True),  # unbiased, so a very good one is below 0 by chance
        (0.100, 0.0, False),
        (0.120, 0.003, False),
    ],
)
def test_a_win_must_exceed_two_standard_errors_of_the_difference(
    kernel: float, se: float, moves: bool
) -> None:
    decision = decide(challenger(kernel, kernel_se=se), INCUMBENT)
    assert decision.moves is moves
    numbers = f"version 2 has kid at 64 px {kernel:.4g}, champion version 1 has 0.1: gain "
    assert decision.reason.startswith(numbers)


def test_generators_of_different_sides_are_compared_at_128_px() -> None:
    larger: dict[str, Any] = {"resolution_px": 128, "at128_se": 0.003}
    # At its own side it has other reals, and that number says nothing here.
    assert decide(challenger(9.0, at128=0.380, **larger), INCUMBENT).moves
    worse = decide(challenger(0.0, at128=0.395, **larger), INCUMBENT)
    assert not worse.moves
    assert "kid_at128 0.395, champion version 1 has 0.4: gain 0.005, more than 0.01" in worse.reason
    assert not decide(challenger(0.0, at128=None, **larger), INCUMBENT).moves


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"label_ap": 0.68},
            "label AP is worse: 0.68 against 0.7 of version 1, 0.02 worse, at most 0.01 allowed",
        ),
        (
            {"recall": 0.36},
            "recall is worse: 0.36 against 0.4 of version 1, 0.04 worse, at most 0.02 allowed",
        ),
        (
            {"spread": 0.85},
            "spread is worse: 0.85 against 0.88 of version 1, 0.03 worse, at most 0.02 allowed",
        ),
        (
            {"memory_ratio": 0.8},
            "memory ratio is worse: 0.8 against 1 of version 1, 0.2 worse, at most 0.1 allowed",
        ),
        (
            {"copied_frac": 0.05},
            "share of copied faces is worse: 0.05 against 0.01 of version 1, 0.04 worse, "
            "at most 0.02 allowed",
        ),
        ({"label_ap": None}, "label AP was not measured, version 1 has 0.7"),
        ({"recall": None}, "recall was not measured, version 1 has 0.4"),
    ],
)
def test_a_better_distance_does_not_make_up_for_what_is_worse(
    changes: dict[str, Any], reason: str
) -> None:
    decision = decide(challenger(**changes), INCUMBENT)
    assert not decision.moves
    assert decision.reasons[1:] == (reason,)


@pytest.mark.parametrize(
    "changes",
    [
        {"label_ap": 0.691},
        {"label_ap": 0.65, "label_ap_sigma": 0.06},  # of 4 sets: 2.45 * .06 / 2 = .07
        {"recall": 0.381},
        {"recall": 0.33, "recall_sigma": 0.07},
        {"spread": 0.861},
        {"spread": 0.80, "spread_sigma": 0.07},
        {"memory_ratio": 0.91},
        {"copied_frac": 0.029},
    ],
)
def test_what_is_worse_within_its_noise_stands_in_no_ones_way(changes: dict[str, Any]) -> None:
    assert decide(challenger(**changes), INCUMBENT).moves


@pytest.mark.parametrize(("sets", "allowed"), [(2, 0.043), (5, 0.0146), (20, 0.0066)])
def test_the_fewer_the_sets_the_less_their_spread_is_trusted(sets: int, allowed: float) -> None:
    noisy = dataclasses.replace(INCUMBENT, repeats=sets, label_ap=0.7, label_ap_sigma=0.01)
    for loss in (0.99 * max(allowed, 0.01), 1.02 * max(allowed, 0.01)):
        one = dataclasses.replace(noisy, version="2", kernel=0.08, label_ap=0.7 - loss)
        assert decide(one, noisy).moves is (loss <= max(allowed, 0.01))


def test_faces_further_than_unseen_ones_are_no_merit_of_the_champion() -> None:
    far = dataclasses.replace(INCUMBENT, memory_ratio=2.5)
    assert decide(challenger(memory_ratio=1.05), far).moves


def test_more_spread_than_good_faces_have_is_no_merit_of_the_champion() -> None:
    grainy = dataclasses.replace(INCUMBENT, spread=1.1)
    assert decide(challenger(spread=ENOUGH_SPREAD), grainy).moves
    assert not decide(challenger(spread=ENOUGH_SPREAD - 0.03), grainy).moves


@pytest.mark.parametrize("incumbent", [None, INCUMBENT])
def test_who_repeats_one_composition_is_refused_however_near(
    incumbent: MeasuredVersion | None,
) -> None:
    assert decide(challenger(0.0, spread=MIN_SPREAD, spread_sigma=0.1), incumbent).moves
    near: dict[str, Any] = {"spread": 0.64, "spread_sigma": 0.1, "precision": MIN_PRECISION}
    decision = decide(challenger(0.0, **near), incumbent)
    assert not decision.moves
    assert decision.reason.endswith(
        "it repeats one composition: its faces differ 0.64 times as much as real faces do "
        "(spread), 0.78 or more needed"
    )


def test_blurs_are_the_first_for_want_of_another_and_displace_no_varied_champion() -> None:
    blurs: dict[str, Any] = {"spread": 0.3, "precision": 0.0}
    first = challenger(9.0, **blurs)
    assert decide(first, None).moves
    nearer = dataclasses.replace(first, version="3", kernel=8.0, spread=0.1)
    assert decide(nearer, first).moves
    decision = decide(challenger(0.0, **blurs), INCUMBENT)
    assert not decision.moves
    assert "spread is worse: 0.3 against 0.88 of version 1" in decision.reason
    assert "spread" not in [mark.name for mark in high_water_marks([first])]


@pytest.mark.parametrize("incumbent", [None, INCUMBENT])
def test_a_candidate_from_before_the_spread_is_to_be_evaluated_again(
    incumbent: MeasuredVersion | None,
) -> None:
    decision = decide(challenger(spread=None, spread_sigma=None), incumbent)
    assert not decision.moves
    assert (
        "evaluate again, by materialising evaluation or by `omokage promote 2`" in decision.reason
    )


def test_a_champion_from_before_the_spread_bounds_nothing() -> None:
    old = dataclasses.replace(INCUMBENT, spread=None, spread_sigma=None)
    decision = decide(challenger(spread=0.8), old, [dataclasses.replace(old, version="0")])
    assert decision.moves
    assert "spread" not in decision.reason


def test_every_failed_condition_is_named() -> None:
    worse = challenger(0.099, label_ap=0.1, recall=0.0, spread=0.0, memory_ratio=0.0)
    decision = decide(worse, INCUMBENT)
    named = [f"{name} is worse" for name in ("label AP", "recall", "spread", "memory ratio")]
    named += ["gain 0.001", "it memorises", "it repeats one composition"]
    assert all(words in decision.reason for words in named)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory_ratio": MIN_MEMORY_RATIO - 0.01}, "0.49 times as far"),
        ({"copied_frac": MAX_COPIED_FRAC + 0.01}, "21.0% of its faces are nearly training faces"),
    ],
)
def test_who_memorises_is_refused_even_as_the_first_or_after_its_like(
    changes: dict[str, Any], words: str
) -> None:
    candidate = challenger(**changes)
    for incumbent in (None, dataclasses.replace(INCUMBENT, **changes)):
        decision = decide(candidate, incumbent)
        assert not decision.moves
        assert words in decision.reason


UNKNOWN = [
    ({"repeats": 1, "recall_sigma": None, "label_ap_sigma": None}, "`omokage promote 2 --repeats"),
    ({"kernel": math.nan}, "kid at 64 px nan"),
    ({"kernel_se": None}, "kid at 64 px 0.08 with standard error nan"),
    ({"kernel_se": math.inf}, "standard error inf"),
    ({"recall_sigma": None}, "recall 0.4 with standard error nan"),
    ({"spread_sigma": None}, "spread 0.88 with standard error nan"),
    ({"label_ap_sigma": None}, "label AP 0.7 with standard error nan"),
]


@pytest.mark.parametrize(("changes", "words"), UNKNOWN)
@pytest.mark.parametrize("side", ["first", "candidate", "champion"])
def test_numbers_of_unknown_noise_decide_nothing(
    changes: dict[str, Any], words: str, side: str
) -> None:
    unknown = challenger(**changes)
    if side == "champion":
        candidate = challenger(0.01, repeats=changes.get("repeats", 4))
        decision = decide(candidate, dataclasses.replace(unknown, version="1"))
    else:
        decision = decide(unknown, INCUMBENT if side == "candidate" else None)
    assert not decision.moves
    assert words in decision.reason


@pytest.mark.parametrize("side", ["first", "candidate", "champion"])
def test_an_extractor_that_a_training_saw_decides_nothing(side: str) -> None:
    seen: dict[str, Any] = {"trained_on_features": ("efficientnet_lite0",)}
    incumbent = dataclasses.replace(INCUMBENT, **(seen if side == "champion" else {}))
    candidate = challenger(**({} if side == "champion" else seen))
    decision = decide(candidate, None if side == "first" else incumbent)
    assert not decision.moves
    way = "`omokage promote 2` with --extractor efficientnet_lite2 or --extractor inception"
    assert decision.reason.endswith(way)
    by_another: dict[str, Any] = {"extractor": "efficientnet_lite2"}
    fair = dataclasses.replace(candidate, **by_another)
    assert decide(fair, dataclasses.replace(incumbent, **by_another)).moves


def test_labels_win_over_none_at_all() -> None:
    without = dataclasses.replace(INCUMBENT, label_ap=None, label_ap_sigma=None)
    assert decide(challenger(), without).moves
    assert decide(challenger(label_ap=None, label_ap_sigma=None), without).moves


def test_the_champion_does_not_challenge_itself() -> None:
    assert not decide(INCUMBENT, INCUMBENT).moves


@pytest.mark.parametrize("term", ["manifest", "protocol"])
def test_numbers_of_unequal_terms_are_not_compared(term: str) -> None:
    changes: dict[str, Any] = {term: "other"}
    with pytest.raises(RegistryError, match="equal ones are needed; name one --extractor"):
        decide(challenger(**changes), INCUMBENT)


def play(candidates: Sequence[MeasuredVersion]) -> list[MeasuredVersion]:
    """Lets candidates challenge one after the other, with the log between; returns champions."""
    log: list[Promotion] = []
    champions: list[MeasuredVersion] = []
    for candidate in candidates:
        incumbent = champions[-1] if champions else None
        if decide(candidate, incumbent, champions_on(log, candidate.terms)).moves:
            measured = (candidate,) if incumbent is None else (incumbent, candidate)
            log.append(move(len(log) + 1, *measured))
            champions.append(candidate)
    return champions


def move(number: int, *measured: MeasuredVersion, by: str = GATE) -> Promotion:
    to = measured[-1].version if measured else ""
    return Promotion(number, "", to, by, "", "2026-11-21T00:00:00", measured=measured)


def test_ten_steps_within_the_tolerance_do_not_add_up() -> None:
    steps = [
        dataclasses.replace(
            INCUMBENT,
            version=str(step),
            kernel=0.1 * 0.9**step,
            kernel_se=0.001,
            recall=0.30 - 0.0199 * step,
            recall_sigma=0.005,
            spread=ENOUGH_SPREAD - 0.0119 * step,
            label_ap=0.60 - 0.0099 * step,
            memory_ratio=1.0 - 0.0499 * step,
            copied_frac=0.0199 * step,
        )
        for step in range(11)
    ]
    # One after the other, each is within the tolerance of the one before
    assert all(decide(new, old).moves for old, new in itertools.pairwise(steps))
    champions = play(steps)
    assert [one.version for one in champions] == ["0", "1"]


# What a champion may be worse by than any former one: field, tolerance, sign (-1: less is better)
HELD = (
    ("label_ap", 0.01, 1),
    ("recall", 0.02, 1),
    ("spread", 0.02, 1),
    ("memory_ratio", 0.1, 1),
    ("copied_frac", 0.02, -1),
)


def beyond_tolerance(one: MeasuredVersion, best: MeasuredVersion) -> list[str]:
    """Returns in what a champion is worse than an earlier one by more than one tolerance."""
    found = []
    for field, tolerance, sign in HELD:
        old, new = getattr(best, field), getattr(one, field)
        if old is None:
            continue
        most = {"memory_ratio": 1.0, "spread": ENOUGH_SPREAD}.get(field, math.inf)
        old, new = min(old, most), min(new, most)
        # standard errors of means over 4 sets, with Student's t for 6 degrees of freedom
        errors = [getattr(v, f"{field}_sigma", 0.0) / math.sqrt(4) for v in (one, best)]
        if sign * (old - new) > max(tolerance, 2.45 * math.hypot(*errors)):
            found.append(field)
    kernel, error = "kernel", "kernel_se"
    if one.resolution_px != best.resolution_px:
        kernel, error = "at128", "at128_se"
    noise = 2 * math.hypot(getattr(one, error), getattr(best, error))
    if getattr(one, kernel) - getattr(best, kernel) > noise:
        found.append(kernel)
    return found


@st.composite
def candidate_sequences(draw: st.DrawFn) -> list[MeasuredVersion]:
    """Candidates whose distance mostly falls and whose other numbers take small steps, down too."""
    step = st.floats(-0.03, 0.02)
    state: dict[str, Any] = {
        "label_ap": 0.6,
        "recall": 0.4,
        "spread": 0.9,
        "memory_ratio": 1.0,
        "copied_frac": 0.05,
    }
    made = []
    for number in range(1, draw(st.integers(2, 14)) + 1):
        state = {name: min(1.5, max(0.0, value + draw(step))) for name, value in state.items()}
        kernel = 0.8**number * draw(st.floats(0.8, 1.3))
        made.append(
            dataclasses.replace(
                INCUMBENT,
                version=str(number),
                resolution_px=draw(st.sampled_from([64, 64, 64, 128])),
                kernel=kernel,
                kernel_se=kernel * draw(st.floats(0.0, 0.1)),
                at128=kernel + draw(st.floats(0, 0.2)),
                at128_se=draw(st.floats(0.0, 0.05)),
                label_ap_sigma=draw(st.floats(0, 0.02)),
                recall_sigma=draw(st.floats(0, 0.03)),
                spread_sigma=draw(st.floats(0, 0.03)),
                **state,
            )
        )
    return made


@settings(max_examples=examples(1000))
@given(candidates=candidate_sequences())
def test_no_sequence_ends_below_one_tolerance_from_the_best(
    candidates: list[MeasuredVersion],
) -> None:
    champions = play(candidates)
    for place, one in enumerate(champions):
        for best in champions[:place]:
            assert beyond_tolerance(one, best) == [], (best, one)


def test_a_rollback_takes_the_marks_of_its_version_back() -> None:
    good = challenger(0.09, recall=0.5)
    log = [move(1, INCUMBENT, good)]
    assert [one.version for one in champions_on(log, INCUMBENT.terms)] == ["1", "2"]
    log.append(move(2, by=ROLLBACK))
    assert champions_on(log, INCUMBENT.terms) == []  # the incumbent is measured anew
    third = dataclasses.replace(challenger(), version="3")
    assert decide(third, INCUMBENT, champions_on(log, INCUMBENT.terms)).moves
    log.append(move(3, INCUMBENT, third))
    assert [one.version for one in champions_on(log, INCUMBENT.terms)] == ["1", "3"]


def test_a_persons_choice_begins_new_marks_and_a_rollback_of_it_brings_the_old_ones_back() -> None:
    log = [move(1, INCUMBENT, challenger())]
    forced = [*log, move(2, by=PROMOTE)]
    assert champions_on(forced, INCUMBENT.terms) == []
    undone = [*forced, move(3, by=ROLLBACK)]
    assert champions_on(undone, INCUMBENT.terms) == champions_on(log, INCUMBENT.terms)


def test_other_terms_have_marks_of_their_own() -> None:
    newer = [dataclasses.replace(one, manifest="n") for one in (INCUMBENT, challenger())]
    log = [move(1, INCUMBENT, challenger(recall=0.9)), move(2, *newer)]
    assert champions_on(log, ("n", "p")) == newer
    assert [one.recall for one in champions_on(log, ("m", "p"))] == [0.4, 0.9]


def test_the_marks_are_the_best_of_each_measure_and_side() -> None:
    larger = dataclasses.replace(
        INCUMBENT, version="3", kernel=0.3, resolution_px=128, at128=0.3, recall=0.45
    )
    found = high_water_marks([INCUMBENT, challenger(label_ap=0.69), larger])
    assert [(mark.name, mark.value, mark.version) for mark in found] == [
        ("kid at 64 px", 0.08, "2"),
        ("kid at 128 px", 0.3, "3"),
        ("kid_at128", 0.3, "3"),
        ("label AP", 0.7, "1"),
        ("recall", 0.45, "3"),
        ("spread", 0.88, "1"),
        ("memory ratio", 1.0, "1"),
        ("share of copied faces", 0.01, "1"),
    ]
    assert found[4].standard_error == 0.005
    assert "kid_at128" not in [mark.name for mark in high_water_marks([INCUMBENT])]


def test_an_evaluation_is_read_and_kept_by_its_own_names() -> None:
    measured = evaluation(12.5, label_ap=None, trained_on_features=["efficientnet_lite0"])
    found = MeasuredVersion.of("7", measured)
    assert (found.version, found.kernel_metric, found.kernel) == ("7", "kid", 12.5)
    assert (found.kernel_se, found.at128, found.resolution_px) == (0.5, 12.5, 64)
    assert (found.label_ap, found.recall, found.memory_ratio) == (None, 0.4, 1.0)
    assert (found.spread, found.spread_sigma) == (0.95, 0.001)
    assert found.terms == ("m" * 64, "p" * 64)
    assert (found.extractor, found.trained_on_features) == ("inception", ("efficientnet_lite0",))
    assert MeasuredVersion.of("7", found.to_json()) == found
    older = {name: value for name, value in measured.items() if not name.startswith("spread")}
    assert MeasuredVersion.of("7", older).spread is None


@pytest.mark.parametrize("missing", ["kernel_metric", "kid_se", "resolution_px", "repeats"])
def test_an_evaluation_of_an_older_protocol_is_refused_with_the_way_out(missing: str) -> None:
    measured = evaluation(12.5)
    del measured[missing]
    with pytest.raises(RegistryError, match=r"older protocol.*or run `omokage promote 7`"):
        MeasuredVersion.of("7", measured)


def test_the_gate_suggests_every_extractor_that_there_is() -> None:
    assert sorted(EXTRACTORS) == sorted(extractors.EXTRACTORS)
