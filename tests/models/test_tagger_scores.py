import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tagger.home import MAX_CHART_BYTES, chart, table
from models.tagger.model import sigmoid
from models.tagger.scores import Scores, average_precision, calibration_error, reliability, score
from models.tagger.train import fit


@pytest.mark.parametrize(
    ("scores", "truths", "wanted"),
    [
        ([0.9, 0.8, 0.1], [1, 1, 0], 1.0),
        ([0.9, 0.8, 0.1], [0, 0, 1], 1 / 3),
        ([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0], (1 + 2 / 3) / 2),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0], 0.25),
        ([0.9, 0.5, 0.5], [0, 1, 0], 1 / 3),
    ],
)
def test_average_precision_is_the_one_worked_out_by_hand(
    scores: list[float], truths: list[int], wanted: float
) -> None:
    assert average_precision(np.array(scores), np.array(truths, bool)) == pytest.approx(wanted)


def test_a_label_that_no_row_has_has_no_average_precision() -> None:
    assert average_precision(np.array([0.3, 0.4]), np.zeros(2, bool)) is None


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.7]), st.booleans()), min_size=1), st.randoms()
)
def test_the_order_of_rows_changes_no_average_precision(
    rows: list[tuple[float, bool]], random: object
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    before, after = (
        average_precision(np.array([s for s, _ in some]), np.array([t for _, t in some]))
        for some in (rows, shuffled)
    )
    assert before == (None if after is None else pytest.approx(after))


def test_what_is_said_and_so_has_no_calibration_error() -> None:
    said = np.repeat([0.2, 0.8], 100)
    true = np.concatenate([np.arange(100) < 20, np.arange(100) < 80])
    assert calibration_error(said, true) == pytest.approx(0)
    assert calibration_error(said, ~true) == pytest.approx(0.6)
    assert calibration_error(np.ones(4), np.zeros(4, bool)) == 1


def test_reliability_counts_every_row_once_even_at_the_ends() -> None:
    said, true, rows = reliability(
        np.array([0.0, 0.05, 1.0]), np.array([False, True, True]), bins=10
    )
    assert rows.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert (said[0], true[0], said[9], true[9]) == (0.025, 0.5, 1.0, 1.0)
    assert np.isnan(said[1:9]).all()


def test_precision_and_recall_are_those_at_the_threshold() -> None:
    said = np.array([[0.9], [0.25], [0.24], [0.1]])
    found = score(said, np.array([[True], [False], [True], [True]]), ["a"], threshold=0.25)
    (one,) = found.labels
    assert (one.precision, one.predicted) == (0.5, 0.5)
    assert one.recall == pytest.approx(1 / 3)
    assert Scores.from_json(found.to_json()) == found


def test_calibration_finds_the_slope_and_shift_that_bent_the_logits() -> None:
    rng = np.random.default_rng(0)
    true_logits = rng.normal(-1, 2, (20_000, 2))
    truths = rng.random((20_000, 2)) < sigmoid(true_logits)
    bent = ((true_logits - [0.5, -1]) / [0.5, 2]).astype(np.float32)
    found = fit(bent, truths)
    assert found.slope == pytest.approx([0.5, 2], rel=0.08)
    assert found.shift == pytest.approx([0.5, -1], abs=0.08)
    for place in range(2):
        raw = calibration_error(sigmoid(bent[:, place].astype(np.float64)), truths[:, place])
        after = calibration_error(found.probabilities(bent)[:, place], truths[:, place])
        assert after < 0.02 < raw


@pytest.mark.parametrize("truths", [[False] * 4, [True] * 4, [True, True, False, False]])
def test_calibration_leaves_alone_what_it_cannot_mend(truths: list[bool]) -> None:
    logits = np.array([[-2.0], [-1], [1], [2]], np.float32)  # the last case: the wrong way round
    found = fit(logits, np.array(truths)[:, None])
    assert (found.slope.tolist(), found.shift.tolist()) == ([1.0], [0.0])


def test_a_perfectly_separated_label_gets_finite_numbers() -> None:
    logits = np.array([[-2.0], [-1], [1], [2]], np.float32)
    found = fit(logits, np.array([[False], [False], [True], [True]]))
    said = found.probabilities(logits)[:, 0]
    assert np.isfinite(said).all()
    assert (np.diff(said) > 0).all()


def test_the_report_names_every_label_and_the_chart_stays_small() -> None:
    rng = np.random.default_rng(0)
    names = [f"label_{number}" for number in range(60)]
    said = rng.random((400, 60))
    truths = rng.random((400, 60)) < said
    truths[:, 3] = False
    scores = score(said, truths, names, raw=said**2)
    lines = table(scores).splitlines()
    assert len(lines) == 63
    assert lines[5].startswith("| label_3 | 0 | 0.000 |  |")
    png = chart(scores, probabilities=said, raw=said**2, truths=truths)
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert len(png) <= MAX_CHART_BYTES
