"""Label control: do pictures show the labels that they were drawn for?

Average precision and flip success by a judge's scores; hair colour by mean colours, without any
network: crude on purpose, it needs no training and no weights, and the reals' own score is its
ceiling.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from models.labels import Rows, typical_labels
from models.tagger.scores import Numbers, average_precision


def average_precisions(probabilities: Numbers, labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns each label's average precision [L], 0 to 1; nan where no row has the label.

    probabilities [N,L] of the judge, labels [N,L] of 0 and 1: the labels that each fake was drawn
    for, or that each real has. Chance gives the part of rows that have the label.
    """
    assert probabilities.shape == labels.shape, (probabilities.shape, labels.shape)
    found = [
        average_precision(probabilities[:, label], labels[:, label] > 0)
        for label in range(labels.shape[1])
    ]
    return np.array([np.nan if one is None else one for one in found], dtype=np.float64)


def flip_success(with_label: Numbers, without: Numbers) -> float:
    """Returns the share of pairs in which the label is likelier where it was wanted, 0 to 1.

    with_label, without [K]: the judge's probabilities of a label on two fakes that differ in that
    label alone. Equal ones are failures; nan if there is no pair.
    """
    assert with_label.shape == without.shape, (with_label.shape, without.shape)
    return float((with_label > without).mean()) if len(with_label) else float("nan")


COLOURS = """
    aqua black blonde blue brown dark_blue dark_green gray green grey light_blue light_brown
    orange pink purple red silver white yellow
"""

Pictures = npt.NDArray[np.uint8]  # [N,H,W,3], RGB


def hair_labels(labels: Sequence[str]) -> list[int]:
    """Returns the columns of the labels that name a hair colour."""
    names = {f"{colour}_hair" for colour in COLOURS.split()}
    return [column for column, label in enumerate(labels) if label in names]


def hair_tones(pictures: Pictures) -> npt.NDArray[np.float64]:
    """Returns the median Lab colour [N,3] of the band where a face crop shows its hair.

    The band is the crop's upper sixth to third and its middle half: above the eyes, in the head.
    """
    _, height, width, _ = pictures.shape
    band = pictures[:, height // 6 : height // 3, width // 4 : width - width // 4]
    lab = [cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2LAB) for picture in band]
    pixels = np.stack(lab).reshape(len(lab), -1, 3).astype(np.float64)
    tones: npt.NDArray[np.float64] = np.median(pixels, axis=1)
    return tones


def tones_by_label(tones: npt.NDArray[np.float64], rows: Rows) -> npt.NDArray[np.float64]:
    """Returns the reals' mean tone [K,3] for each of K hair labels (rows [N,K]); nan if none."""
    means = [
        tones[rows[:, column] > 0].mean(axis=0) if rows[:, column].any() else [np.nan] * 3
        for column in range(rows.shape[1])
    ]
    return np.array(means, dtype=np.float64)


def hits(tones: npt.NDArray[np.float64], rows: Rows, means: npt.NDArray[np.float64]) -> float:
    """Returns the share of pictures whose nearest mean tone is that of one of their hair labels.

    tones [N,3], rows [N,K] of 0 and 1, means [K,3]; pictures without a hair label do not count;
    nan if none counts.
    """
    if not rows.shape[1]:  # no label names a hair colour
        return float("nan")
    distance = np.linalg.norm(tones[:, None] - means[None], axis=2)
    nearest = np.where(np.isnan(distance), np.inf, distance).argmin(axis=1)
    judged = rows.sum(axis=1) > 0
    if not judged.any():
        return float("nan")
    right = rows[np.arange(len(rows)), nearest] > 0
    return float(right[judged].mean())


ONE_OF_A_KIND = ("hair_length", "hair_colour", "eye_colour")  # groups of which a face has one


def flipped_pairs(
    rows: Rows,
    labels: Sequence[str],
    label: str,
    *,
    groups: Mapping[str, str],
    count: int,
    seed: int,
) -> tuple[Rows, Rows]:
    """Returns typical rows with the label and the same ones without it, both [count,L].

    rows [M,L]: the reals' labels, of which `count` are drawn by `seed`. In a group of which a face
    has one (hair colour, eye colour, hair length), setting a label clears the others, and a row
    without it has its own other one, or the group's most frequent other one.
    """
    column = list(labels).index(label)
    bases = typical_labels(rows, count, seed)
    siblings = _siblings(labels, label, groups)
    with_label, without = bases.copy(), bases.copy()
    with_label[:, siblings] = 0
    with_label[:, column] = 1
    without[:, column] = 0
    if siblings:
        usual = siblings[int(np.argmax(rows[:, siblings].sum(axis=0)))]
        bare = without[:, siblings].sum(axis=1) == 0
        without[bare, usual] = 1
    return with_label, without


def _siblings(labels: Sequence[str], label: str, groups: Mapping[str, str]) -> list[int]:
    """Returns the columns of the labels that cannot stand beside this one."""
    group = groups.get(label, "")
    if group not in ONE_OF_A_KIND:
        return []
    return [c for c, other in enumerate(labels) if other != label and groups.get(other) == group]
