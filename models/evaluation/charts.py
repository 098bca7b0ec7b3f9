"""Charts of an evaluation: the truncation curve, and how well each label is obeyed."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataset.errors import TrainingError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE, LABELS = "truncation.png", "labels.png"
INK, GRID = "#2b2a33", "#d9d6cf"
FAKE, REAL, FLIP = "#5b6fb5", "#c4c1ba", "#d08a3c"
_DPI = 80


def truncation_png(points: Sequence[Mapping[str, Any]], *, metric: str, fakes: int) -> bytes:
    """Draws distance, precision and recall over psi; raises TrainingError without matplotlib."""
    figure = _figure(width=6.4, height=3.6)
    left = figure.subplots()
    psis = [point["psi"] for point in points]
    _plain(left)
    left.plot(psis, [point[metric] for point in points], "o-", color=INK, label=metric)
    left.set_xlabel(f"psi ({fakes:,} fakes a point)", color=INK)
    left.set_ylabel(metric, color=INK)
    left.set_ylim(bottom=0)
    right = left.twinx()
    for name, colour in (("precision", FAKE), ("recall", FLIP)):
        right.plot(psis, [point[name] for point in points], "s--", color=colour, label=name)
    right.set_ylim(0, 1.02)
    right.tick_params(colors=INK, length=0)
    right.spines[["top", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return _png(figure)


def labels_png(
    scores: Mapping[str, Sequence[float | None]], flips: Mapping[str, float | None]
) -> bytes:
    """Draws each label's [fake, real] average precision as bars, its flip success as a point.

    The labels that the fakes show best come first. Raises TrainingError without matplotlib.
    """
    names = sorted(scores, key=lambda name: -(scores[name][0] or 0.0))
    figure = _figure(width=6.4, height=1.2 + 0.27 * len(names))
    axes = figure.subplots()
    _plain(axes)
    for shift, column, colour, told in ((-0.2, 0, FAKE, "fakes"), (0.2, 1, REAL, "reals")):
        places = [place + shift for place in range(len(names))]
        widths = [scores[name][column] or 0.0 for name in names]
        axes.barh(places, widths, height=0.38, color=colour, label=told)
    flipped = [(flips.get(name), place) for place, name in enumerate(names)]
    known = [(value, place) for value, place in flipped if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), "D", color=FLIP, markersize=4, label="flips")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("average precision by the judge; share of flips that show", color=INK)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return _png(figure)


def _figure(*, width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure  # absent on a machine that only trains
    except ImportError as error:
        raise TrainingError(
            f"charts need the package matplotlib: {error}. pip install matplotlib"
        ) from error
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _plain(axes: "Axes") -> None:
    axes.tick_params(colors=INK, length=0)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _png(figure: "Figure") -> bytes:
    drawn = io.BytesIO()
    # Without the program's version, the same numbers give the same bytes.
    figure.savefig(drawn, format="png", metadata={"Software": None})
    return drawn.getvalue()
