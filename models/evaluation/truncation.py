"""The truncation curve: what is gained in likeness, and lost in variety, by a smaller psi."""

from typing import Any

from models.evaluation.axes import Axes
from models.evaluation.measuring import Measured
from models.metrics.frechet import statistics
from models.metrics.manifold import precision_recall


def curve_point(
    psi: float, fakes: Measured, reals: Measured, axes: Axes, *, metric: str, neighbours: int
) -> dict[str, Any]:
    """Returns a point of the curve: psi, distance, precision and recall of these fakes.

    Few fakes have a larger distance than many, so the points are compared with each other and not
    with the evaluation's own distance.
    """
    precision, recall = precision_recall(reals.features, fakes.features, k=neighbours)
    return {
        "psi": psi,
        metric: axes.distance(statistics(fakes.features)),
        "precision": precision,
        "recall": recall,
    }
