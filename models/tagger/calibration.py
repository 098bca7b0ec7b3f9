"""Calibration: a slope and a shift for each label's logit, so that 0.25 means one in four."""

import dataclasses

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]  # [N,L]

_STEPS = 100
_PRIOR = 1e-3  # pulls slope to 1 and shift to 0, which matters only where rows are few


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Probability = 1 / (1 + e^-(slope·logit + shift)); slope > 0 and shift are [L]."""

    slope: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]

    def probabilities(self, logits: Logits) -> npt.NDArray[np.float32]:
        """Returns the probabilities [N,L] of logits [N,L], 0 to 1."""
        return sigmoid(logits.astype(np.float64) * self.slope + self.shift).astype(np.float32)


def none_for(labels: int) -> Calibration:
    """Returns the calibration that changes nothing."""
    return Calibration(np.ones(labels, np.float32), np.zeros(labels, np.float32))


def fit(logits: Logits, truths: npt.NDArray[np.bool_]) -> Calibration:
    """Fits each label's slope and shift by the least cross-entropy on rows no weight was fitted to.

    logits, truths [N,L]. A label that no row or every row has keeps slope 1 and shift 0, and so
    does one whose logits rise where the label is absent: the order of rows is never turned round.
    Source: Platt 1999, with his smoothed targets (N+ + 1)/(N+ + 2) and 1/(N- + 2).
    """
    slopes, shifts = none_for(truths.shape[1]).slope, none_for(truths.shape[1]).shift
    for place in range(truths.shape[1]):
        slope, shift = _fitted(logits[:, place].astype(np.float64), truths[:, place])
        if slope > 0:
            slopes[place], shifts[place] = slope, shift
    return Calibration(slopes, shifts)


def sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns 1 / (1 + e^-x) without overflow."""
    return np.exp(-np.logaddexp(0, -x))


def _fitted(x: npt.NDArray[np.float64], truths: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Newton's steps on the convex cross-entropy of one label, halved while they do not help."""
    present = int(truths.sum())
    absent = len(truths) - present
    if not present or not absent:
        return 1.0, 0.0
    target = np.where(truths, (present + 1) / (present + 2), 1 / (absent + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)  # [N,2]
    start = np.array([1.0, 0.0])
    weights = start
    loss = _loss(design @ weights, target, weights - start)
    for _ in range(_STEPS):
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - target) + 2 * _PRIOR * (weights - start)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 2 * _PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6:
            tried = weights - size * step
            lower = _loss(design @ tried, target, tried - start)
            if lower < loss:
                break
            size /= 2
        else:
            break
        gained, weights, loss = loss - lower, tried, lower
        if gained < 1e-9 * max(1.0, loss):
            break
    return float(weights[0]), float(weights[1])


def _loss(
    logits: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    away: npt.NDArray[np.float64],
) -> float:
    entropy = np.logaddexp(0, logits) - target * logits
    return float(entropy.sum() + _PRIOR * (away**2).sum())
