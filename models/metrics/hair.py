"""Does the asked-for hair colour show? Judged by mean colours, without any network.

Crude on purpose: it needs no training and no weights, and the reals' own score is its ceiling.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from models.labels import Rows

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
