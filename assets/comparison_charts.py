"""The curves of a comparison as a PNG: the score against pictures seen and against minutes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter, ScalarFormatter

GRID, INK = "#d9d6cf", "#2b2a33"
_DPI = 90


def curves_png(entrants: Sequence[Mapping[str, Any]]) -> bytes:
    """Draws the curves of outcomes in two charts side by side, scores on a log scale."""
    drawn = [one for one in entrants if one["curve"]]
    figure = Figure(figsize=(10.5, max(4.0, 0.26 * len(drawn) + 1.4)), dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    left, right = figure.subplots(1, 2, sharey=True)
    colours = colormaps["tab10" if len(drawn) <= 10 else "tab20"]
    for number, one in enumerate(drawn):
        scores = [point["score"] for point in one["curve"]]
        for axes, key in ((left, "images_seen"), (right, "minutes")):
            places = [point[key] for point in one["curve"]]
            axes.plot(
                places, scores, "o-", color=colours(number % colours.N), markersize=3,
                linewidth=1.4, label=one["name"],
            )  # fmt: skip
    _dress(left, "pictures seen")
    _dress(right, "minutes of training")
    left.xaxis.set_major_formatter(EngFormatter(sep=""))
    left.set_ylabel(next((one["score"] for one in drawn), "score"), fontsize=9, color=INK)
    if drawn:
        # In the table's order, which is not that of the curves' ends.
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside right upper", fontsize=8.5, frameon=False,
        )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _dress(axes: Axes, words: str) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.tick_params(colors=INK, labelsize=8, which="both")
    if axes.get_ylim()[1] > 10 * axes.get_ylim()[0]:  # minor ticks would crowd each other
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(words, fontsize=9, color=INK)
    axes.set_xlim(left=0)
    axes.grid(color=GRID, linewidth=0.6, which="both")
    for name in ("top", "right"):
        axes.spines[name].set_visible(False)
