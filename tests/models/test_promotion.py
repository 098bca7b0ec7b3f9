"""The gate moves the champion for a clear win on equal terms only."""

import dataclasses

import pytest

from models.promotion import Measured, decide

INCUMBENT = Measured("1", distance=100.0, sigma=0.2, manifest="m", protocol="p")


def challenger(distance: float, sigma: float = 0.2) -> Measured:
    return Measured("2", distance=distance, sigma=sigma, manifest="m", protocol="p")


def test_the_first_version_becomes_champion() -> None:
    assert decide(challenger(500.0), None).moves


@pytest.mark.parametrize(
    ("distance", "sigma", "moves"),
    [
        (97.9, 0.2, True),  # 2.1 % better
        (98.1, 0.2, False),  # 1.9 %: within the margin
        (96.0, 1.5, False),  # 4 better, but 3 sigma are 4.5
        (95.0, 1.5, True),
        (100.0, 0.0, False),
        (120.0, 0.2, False),
    ],
)
def test_a_win_must_exceed_three_sigma_and_two_percent(
    distance: float, sigma: float, moves: bool
) -> None:
    decision = decide(challenger(distance, sigma), INCUMBENT)
    assert decision.moves is moves
    assert f"{distance:.2f}" in decision.reason
    assert "100.00" in decision.reason


def test_the_champion_does_not_challenge_itself() -> None:
    assert not decide(INCUMBENT, INCUMBENT).moves


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(challenger(1.0), manifest="other"),
        dataclasses.replace(challenger(1.0), protocol="other"),
    ],
    ids=["manifest", "protocol"],
)
def test_numbers_of_unequal_terms_are_not_compared(other: Measured) -> None:
    with pytest.raises(ValueError, match="different"):
        decide(other, INCUMBENT)
