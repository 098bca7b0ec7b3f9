"""The curves of one training, drawn small from its progress.jsonl."""

import base64
import json
from collections.abc import Mapping, Sequence

import dagster as dg
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from assets.charts import GRID, INK, png_of
from dataset.store import Store

PROGRESS = "progress.jsonl"
# What a curve is, in the words of the legend; other numbers of a tick are not drawn.
LOSSES = {
    "d": ("critic: real from fake", "#5b6fb5"),
    "g": ("generator: fooling it", "#b5473c"),
}
LABEL_LOSSES = {
    "d_labels": ("critic: labels of reals", "#5b6fb5"),
    "g_labels": ("generator: labels asked for", "#b5473c"),
}
_DRAWN = 400  # points a curve: more than the picture is wide in pixels
_DPI = 80


def curves_chart(store: Store, folder: str) -> dg.MarkdownMetadataValue:
    """Returns the losses of the training in `folder` as one inline PNG (Markdown)."""
    content = base64.b64encode(curves_png(read_ticks(store, folder))).decode()
    return dg.MetadataValue.md(f"![losses](data:image/png;base64,{content})")


def read_ticks(store: Store, folder: str) -> list[dict[str, float]]:
    """Returns what a training told at each tick, in order; [] if it told nothing."""
    path = f"{folder}/{PROGRESS}"
    if not store.exists(path):
        return []
    return [json.loads(line) for line in store.read_bytes(path).splitlines()]


def curves_png(ticks: Sequence[Mapping[str, float]]) -> bytes:
    """Draws the losses against thousands of pictures seen, adversarial beside those of labels."""
    figure = Figure(figsize=(9.0, 2.9), dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    left, right = figure.subplots(1, 2)
    shown = _thinned(ticks)
    _draw(left, shown, LOSSES, title="Losses")
    _draw(right, shown, LABEL_LOSSES, title="Losses of the labels")
    return png_of(figure)


def _thinned(ticks: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Every so manieth tick, the last one always."""
    step = max(1, -(-len(ticks) // _DRAWN))
    return list(ticks[::-1][::step])[::-1]


def _draw(
    axes: Axes,
    ticks: Sequence[Mapping[str, float]],
    curves: Mapping[str, tuple[str, str]],
    *,
    title: str,
) -> None:
    for name, (words, colour) in curves.items():
        told = [tick for tick in ticks if name in tick]
        if told:
            seen = [tick["images_seen"] / 1000 for tick in told]
            axes.plot(seen, [tick[name] for tick in told], color=colour, label=words, linewidth=1.3)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("thousands of pictures seen", fontsize=8.5, color=INK)
    axes.tick_params(colors=INK, length=0, labelsize=8)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    if axes.lines:
        axes.legend(fontsize=8, frameon=False)
    for name in ("top", "right"):
        axes.spines[name].set_visible(False)
