"""Labels by name: to rows of 0 and 1, back, and rows as typical as the real ones."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from dataset.errors import UsageError, listed, nearest

Rows = npt.NDArray[np.float32]  # [N,L] of 0 and 1


def split_names(text: str) -> list[str]:
    """Splits "blonde_hair, blue_eyes" into names; spaces inside a name become underscores."""
    return [name.strip().replace(" ", "_") for name in text.split(",") if name.strip()]


def label_row(names: Iterable[str], known: Sequence[str]) -> Rows:
    """Returns [L] with 1 for each of `names`; raises UsageError naming every unknown one."""
    names = list(names)
    faults = [f'unknown label "{n}"{nearest(n, known)}' for n in names if n not in known]
    if faults:
        raise UsageError(f"the generator knows {', '.join(known)}:\n{listed(faults)}")
    return np.array([label in names for label in known], dtype=np.float32)


def label_rows(rows: Iterable[Iterable[str]], known: Sequence[str]) -> Rows:
    """Returns [N,L], a row for each list of names; raises UsageError naming unknown ones."""
    return np.stack([label_row(names, known) for names in rows])


def names_of(row: npt.NDArray[np.generic], known: Sequence[str]) -> list[str]:
    """Returns the names of a row [L] of 0 and 1."""
    return [label for label, has in zip(known, row, strict=True) if has]


def typical_labels(rows: npt.NDArray[np.generic], n: int, seed: int) -> Rows:
    """Draws n rows [n,L] of labels that occur together, from the real rows [M,L], by `seed`.

    Labels are never drawn one by one: a face with no hair colour, or with five, is not typical.
    """
    picked = np.random.default_rng(seed).integers(len(rows), size=n)
    return np.asarray(rows[picked], dtype=np.float32)
