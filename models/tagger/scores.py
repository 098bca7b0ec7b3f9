"""How good probabilities are: average precision, calibration error, precision and recall.

All pure: probabilities [N] or [N,L] in 0 to 1 and truths of the same shape in, numbers out.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.floating[Any]]
Truths = npt.NDArray[np.bool_]

BINS = 15  # of equal width, for the calibration error


@dataclasses.dataclass(frozen=True)
class LabelScore:
    """One label on a held-out part; what has no meaning (no row has the label) is None.

    Attributes:
        label: its name.
        rows: held-out rows that have it.
        frequency: part of the rows, which is the average precision of chance.
        ap: average precision, 0 to 1.
        ece: expected calibration error after calibration, 0 to 1.
        raw_ece: the same before it.
        precision, recall: of "probability >= threshold".
        predicted: part of the rows at or above the threshold.

    """

    label: str
    rows: int
    frequency: float
    ap: float | None
    ece: float
    raw_ece: float
    precision: float | None
    recall: float | None
    predicted: float


@dataclasses.dataclass(frozen=True)
class Scores:
    """All labels on a held-out part of `rows` rows, and their means."""

    rows: int
    threshold: float
    mean_ap: float | None  # over the labels that some row has
    mean_frequency: float
    mean_ece: float
    mean_raw_ece: float
    labels: tuple[LabelScore, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return {**dataclasses.asdict(self), "labels": [dataclasses.asdict(s) for s in self.labels]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Scores":
        """Reads `to_json`'s value; raises TypeError or KeyError for another."""
        labels = tuple(LabelScore(**score) for score in value["labels"])
        return cls(**{**value, "labels": labels})


def score(
    probabilities: Numbers,
    truths: Truths,
    label_names: Sequence[str],
    *,
    raw: Numbers | None = None,
    threshold: float = 0.25,
) -> Scores:
    """Scores probabilities [N,L] against truths [N,L], N at least 1.

    raw: the probabilities before calibration (default: the same).
    """
    before = probabilities if raw is None else raw
    rows = [
        _label_score(
            name,
            probabilities[:, place].astype(np.float64),
            truths[:, place],
            raw=before[:, place].astype(np.float64),
            threshold=threshold,
        )
        for place, name in enumerate(label_names)
    ]
    known = [row.ap for row in rows if row.ap is not None]
    return Scores(
        rows=len(truths),
        threshold=threshold,
        mean_ap=float(np.mean(known)) if known else None,
        mean_frequency=float(np.mean([row.frequency for row in rows])),
        mean_ece=float(np.mean([row.ece for row in rows])),
        mean_raw_ece=float(np.mean([row.raw_ece for row in rows])),
        labels=tuple(rows),
    )


def average_precision(scores: Numbers, truths: Truths) -> float | None:
    """Area under precision over recall, by steps: sum of (R_k - R_(k-1))·P_k over the thresholds k.

    scores [N], truths [N]; rows of equal score enter together, so their order does not matter.
    Chance gives the part of true rows. Returns None if no row is true.
    """
    total = int(truths.sum())
    if not total:
        return None
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_tie = np.append(ordered[1:] != ordered[:-1], True)
    hits = np.cumsum(truths[order])[last_of_tie]
    taken = np.flatnonzero(last_of_tie) + 1
    gained = np.diff(hits, prepend=0) / total
    return float((gained * hits / taken).sum())


def calibration_error(probabilities: Numbers, truths: Truths, *, bins: int = BINS) -> float:
    """Expected calibration error: mean |said - true| over bins of equal width, weighted by rows.

    probabilities [N] in 0 to 1, truths [N]; returns 0 (as said, so it is) to 1.
    Source: Guo et al. 2017, arXiv:1706.04599, equation 3, for one label's own probability.
    """
    said, true, rows = reliability(probabilities, truths, bins=bins)
    full = rows > 0
    return float((np.abs(said[full] - true[full]) * rows[full]).sum() / max(1, rows.sum()))


def reliability(
    probabilities: Numbers, truths: Truths, *, bins: int = BINS
) -> tuple[Numbers, Numbers, npt.NDArray[np.int64]]:
    """Returns for each bin the mean probability, the part of true rows (both NaN if empty), rows.

    A probability of exactly 1 falls into the last bin.
    """
    place = np.clip((probabilities * bins).astype(np.int64), 0, bins - 1)
    rows = np.bincount(place, minlength=bins)
    empty = np.where(rows > 0, rows, np.nan)
    said = np.bincount(place, weights=probabilities, minlength=bins) / empty
    true = np.bincount(place, weights=truths.astype(np.float64), minlength=bins) / empty
    return said, true, rows.astype(np.int64)


def _label_score(
    name: str, probabilities: Numbers, truths: Truths, *, raw: Numbers, threshold: float
) -> LabelScore:
    taken = probabilities >= threshold
    right = int((taken & truths).sum())
    rows = int(truths.sum())
    return LabelScore(
        label=name,
        rows=rows,
        frequency=float(truths.mean()),
        ap=average_precision(probabilities, truths),
        ece=calibration_error(probabilities, truths),
        raw_ece=calibration_error(raw, truths),
        precision=right / int(taken.sum()) if taken.any() else None,
        recall=right / rows if rows else None,
        predicted=float(taken.mean()),
    )
