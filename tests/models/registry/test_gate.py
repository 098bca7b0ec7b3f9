"""The gate moves the champion for a clear win on equal terms only, and says why it did not."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.registry.gate import MAX_COPIED_FRAC, MIN_MEMORY_RATIO, MeasuredVersion, decide

INCUMBENT = MeasuredVersion(
    "1",
    metric="fid",
    distance=100.0,
    sigma=0.2,
    manifest="m",
    protocol="p",
    label_ap=0.70,
    label_ap_sigma=0.002,
    recall=0.40,
    recall_sigma=0.01,
    memory_ratio=1.0,
    copied_frac=0.01,
)
CLEARLY_BETTER = 90.0


def challenger(distance: float = CLEARLY_BETTER, **changes: Any) -> MeasuredVersion:
    return dataclasses.replace(INCUMBENT, version="2", distance=distance, **changes)


def test_the_first_version_becomes_champion() -> None:
    decision = decide(challenger(500.0), None)
    assert decision.moves
    assert decision.reason == "version 2 is the first: there was no champion"


@pytest.mark.parametrize(
    ("distance", "sigma", "moves"),
    [
        (97.9, 0.2, True),  # 2.1 % better
        (98.1, 0.2, False),  # 1.9 %: within the margin
        (96.0, 1.5, False),  # 4 better, but 3 sigma are 4.5
        (95.0, 1.5, True),
        (100.0, 0.0, False),
        (120.0, 0.2, False),
        (math.nan, 0.2, False),
    ],
)
def test_a_win_must_exceed_three_sigma_and_two_percent(
    distance: float, sigma: float, moves: bool
) -> None:
    decision = decide(challenger(distance, sigma=sigma), INCUMBENT)
    assert decision.moves is moves
    assert f"{distance:.2f}" in decision.reason
    assert "100.00" in decision.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"label_ap": 0.68},
            "label AP is worse: 0.680 against 0.700, 0.020 worse, at most 0.010 allowed",
        ),
        (
            {"recall": 0.36},
            "recall is worse: 0.360 against 0.400, 0.040 worse, at most 0.030 allowed",
        ),
        (
            {"memory_ratio": 0.8},
            "memory ratio is worse: 0.800 against 1.000, 0.200 worse, at most 0.100 allowed",
        ),
        (
            {"copied_frac": 0.05},
            "share of copied faces is worse: 0.050 against 0.010, 0.040 worse, "
            "at most 0.020 allowed",
        ),
        ({"label_ap": None}, "label AP was not measured, the champion has 0.700"),
        ({"recall": None}, "recall was not measured, the champion has 0.400"),
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
        {"label_ap": 0.65, "label_ap_sigma": 0.02},
        {"recall": 0.371},
        {"recall": 0.2, "recall_sigma": 0.07},
        {"memory_ratio": 0.91},
        {"copied_frac": 0.029},
    ],
)
def test_what_is_worse_within_its_noise_stands_in_no_ones_way(changes: dict[str, Any]) -> None:
    assert decide(challenger(**changes), INCUMBENT).moves


def test_faces_further_than_unseen_ones_are_no_merit_of_the_champion() -> None:
    far = dataclasses.replace(INCUMBENT, memory_ratio=2.5)
    assert decide(challenger(memory_ratio=1.05), far).moves


def test_every_failed_condition_is_named() -> None:
    decision = decide(challenger(99.0, label_ap=0.1, recall=0.0, memory_ratio=0.0), INCUMBENT)
    named = ("gain 1.00", "label AP is worse", "recall is worse", "memory ratio is worse")
    assert all(words in decision.reason for words in (*named, "it memorises"))


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


def test_the_first_needs_a_distance_that_is_a_number() -> None:
    assert not decide(challenger(math.nan), None).moves


def test_labels_win_over_none_at_all() -> None:
    without = dataclasses.replace(INCUMBENT, label_ap=None)
    assert decide(challenger(), without).moves
    assert decide(challenger(label_ap=None), without).moves


def test_the_champion_does_not_challenge_itself() -> None:
    assert not decide(INCUMBENT, INCUMBENT).moves


@pytest.mark.parametrize("term", ["manifest", "protocol", "metric"])
def test_numbers_of_unequal_terms_are_not_compared(term: str) -> None:
    with pytest.raises(ValueError, match="different"):
        decide(challenger(1.0, **{term: "other"}), INCUMBENT)


distances = st.floats(0, 1e4)
sigmas = st.floats(0, 100)
shares = st.none() | st.floats(0, 1)


@given(ours=distances, theirs=distances, sigma=sigmas, label_ap=shares, recall=shares)
def test_never_moves_for_a_gain_within_three_sigma_or_two_percent(
    ours: float, theirs: float, sigma: float, label_ap: float | None, recall: float | None
) -> None:
    incumbent = dataclasses.replace(INCUMBENT, distance=theirs)
    candidate = challenger(ours, sigma=sigma, label_ap=label_ap, recall=recall)
    decision = decide(candidate, incumbent)
    if theirs - ours <= max(3 * max(sigma, 0.2), 0.02 * theirs):
        assert not decision.moves
    elif decision.moves:
        assert label_ap is not None
        assert label_ap >= 0.69 - 1e-9
    assert decision.reason


def test_an_evaluation_is_read_with_its_own_metric() -> None:
    evaluation = {
        "metric": "fid",
        "fid": 12.5,
        "sigma": 0.1,
        "manifest_digest": "m",
        "protocol_digest": "p",
        "label_ap": None,
        "recall": 0.5,
        "recall_sigma": 0.01,
        "memory_ratio": 1.2,
        "copied_frac": 0.0,
    }
    found = MeasuredVersion.of("7", evaluation)
    assert (found.version, found.metric, found.distance) == ("7", "fid", 12.5)
    assert (found.label_ap, found.recall, found.memory_ratio) == (None, 0.5, 1.2)
    assert (found.manifest, found.protocol) == ("m", "p")
