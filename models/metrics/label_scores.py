"""Do fakes show the labels that they were asked for? Numbers from a judge's probabilities."""

from typing import Any

import numpy as np
import numpy.typing as npt

from models.tagger.scores import Numbers, average_precision


def average_precisions(probabilities: Numbers, asked: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns each label's average precision [L], 0 to 1; nan where no row has the label.

    probabilities [N,L] of the judge, asked [N,L] of 0 and 1: the labels that each fake was drawn
    for, or that each real has. Chance gives the part of rows that have the label.
    """
    assert probabilities.shape == asked.shape, (probabilities.shape, asked.shape)
    found = [
        average_precision(probabilities[:, label], asked[:, label] > 0)
        for label in range(asked.shape[1])
    ]
    return np.array([np.nan if one is None else one for one in found], dtype=np.float64)


def flip_success(with_label: Numbers, without: Numbers) -> float:
    """Returns the share of pairs in which the label is likelier where it was asked for, 0 to 1.

    with_label, without [K]: the judge's probabilities of a label on two fakes that differ in that
    label alone. Equal ones are failures; nan if there is no pair.
    """
    assert with_label.shape == without.shape, (with_label.shape, without.shape)
    return float((with_label > without).mean()) if len(with_label) else float("nan")
