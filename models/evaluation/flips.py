"""Pairs of label rows that differ in one label: does the picture follow the flip?"""

from collections.abc import Mapping, Sequence

import numpy as np

from models.labels import Rows, typical_labels

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
