"""Charts: the labels' frequencies and pairs, the curves of a training and of a comparison."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter, ScalarFormatter
from PIL import Image

from dataset.labels import OUTNUMBERED, TOO_FREQUENT, TOO_RARE, LabelsFile
from dataset.store import Store

CUT_SHOWN = 12  # the most frequent of the tags that were cut
INK, GRID = "#2b2a33", "#d9d6cf"
KEPT, CUT = "#5b6fb5", "#c4c1ba"
LIFTS = ("never", "1/4", "1/2", "as by chance", "2x", "4x")
_DPI = 80
PROGRESS = "progress.jsonl"
GROWTH = "growth.gif"
# What a curve is, in the words of the legend; other numbers of a tick are not drawn.
LOSSES = {
    "d": ("critic: real from fake", "#5b6fb5"),
    "g": ("generator: fooling it", "#b5473c"),
}
LABEL_LOSSES = {
    "d_labels": ("critic: labels of reals", "#5b6fb5"),
    "g_labels": ("generator: labels asked for", "#b5473c"),
}
_POINTS = 400  # points a curve: more than the picture is wide in pixels
_COMPARISON_DPI = 90
_COLOURS = 128  # of the palette: flat charts need no more, and take a third of the bytes


def labels_chart(made: LabelsFile) -> dg.MarkdownMetadataValue:
    """Returns both charts of `labels.json` as one inline PNG (Markdown)."""
    content = base64.b64encode(labels_png(made)).decode()
    return dg.MetadataValue.md(f"![labels](data:image/png;base64,{content})")


def labels_png(made: LabelsFile) -> bytes:
    """Draws bars of the labels' parts, cut tags in grey, beside the lift of each pair."""
    bars = _bars(made)
    side = max(6.0, 0.27 * len(bars), 0.3 * len(made.labels) + 2.2)  # inches, all rows legible
    figure = Figure(figsize=(5.4 + side + 0.6, side), dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    left, right = figure.subplots(1, 2, width_ratios=(4.6, side))
    _draw_bars(left, made, bars)
    _draw_pairs(right, made)
    return png_of(figure)


def lift(together: npt.NDArray[np.int64], crops: int) -> npt.NDArray[np.float64]:
    """Returns how much more often each pair comes than by chance: P(a, b) / P(a)P(b), [L, L].

    1 means by chance, 0 never; the diagonal, where it means nothing, is nan.
    """
    alone = together.diagonal().astype(np.float64)
    chance = np.outer(alone, alone) / crops
    found = np.divide(together, chance, out=np.ones(chance.shape), where=chance > 0)
    np.fill_diagonal(found, np.nan)
    return found


def _bars(made: LabelsFile) -> list[tuple[str, float, bool]]:
    """Tag, part of the crops, and whether it is a label; the most frequent first."""
    why = (TOO_RARE, TOO_FREQUENT, OUTNUMBERED)
    cut = [tag for tag in made.fractions if tag in made.cut and made.cut[tag].why in why]
    # A tag that was too frequent is always shown: it may be the one that is missed.
    shown = {*made.labels, *cut[:CUT_SHOWN]}
    return [(tag, part, tag in made.labels) for tag, part in made.fractions.items() if tag in shown]


def _draw_bars(axes: Axes, made: LabelsFile, bars: Sequence[tuple[str, float, bool]]) -> None:
    places = range(len(bars))
    colours = [KEPT if kept else CUT for _, _, kept in bars]
    axes.barh(places, [100 * part for _, part, _ in bars], color=colours, height=0.72)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # over the limits' lines
    for place, (_, part, _) in enumerate(bars):
        axes.text(
            100 * part + 0.6, place, f"{part:.1%}", va="center", fontsize=8, color=INK, bbox=box
        )
    for limit in (made.settings["min_frac"], made.settings["max_frac"]):
        axes.axvline(100 * limit, color="#b5473c", linewidth=1, linestyle="--")
    widest = max(part for _, part, _ in bars)
    axes.set_xlim(0, 100 * max(made.settings["max_frac"], widest) * 1.12)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_yticks(places, [tag for tag, _, _ in bars], fontsize=8.5)
    axes.set_title(f"{len(made.labels)} labels on {made.crops:,} crops (%)", fontsize=10)
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for name in ("top", "right", "left"):
        axes.spines[name].set_visible(False)


def _draw_pairs(axes: Axes, made: LabelsFile) -> None:
    """The lift on a scale of doublings, cut off at a quarter and at four times."""
    found = lift(np.array(made.together), made.crops)
    shown = np.log2(np.clip(found, 2.0**-3, 2.0**2))
    # Steps of half a doubling, one of them about chance: so few colours outlive the palette.
    steps = colormaps["RdBu_r"].resampled(13).with_extremes(bad="#efece6")
    picture = axes.imshow(shown, cmap=steps, vmin=-3.25, vmax=3.25, interpolation="nearest")
    places = range(len(made.labels))
    axes.set_xticks(places, made.labels, rotation=90, fontsize=8.5)
    axes.set_yticks(places, made.labels, fontsize=8.5)
    axes.tick_params(colors=INK, length=0)
    axes.set_title("Two labels together, against chance", fontsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)
    assert axes.figure is not None
    bar = axes.figure.colorbar(picture, ax=axes, shrink=0.6, aspect=30)
    bar.set_ticks([-3, -2, -1, 0, 1, 2], labels=LIFTS)
    bar.ax.set_ylim(-3.25, 2.25)
    bar.ax.tick_params(labelsize=8, colors=INK, length=0)


def png_of(figure: Figure) -> bytes:
    """Draws a figure of flat colours off screen; returns a small PNG."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")  # a Figure of its own has nothing of pyplot
    picture = Image.open(drawn).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def curves_chart(store: Store, folder: str) -> dg.MarkdownMetadataValue:
    """Returns the losses of the training in `folder` as one inline PNG (Markdown)."""
    content = base64.b64encode(curves_png(read_ticks(store, folder))).decode()
    return dg.MetadataValue.md(f"![losses](data:image/png;base64,{content})")


def growth_preview(
    store: Store, folder: str, *, images_seen: int, max_bytes: int
) -> dg.MarkdownMetadataValue:
    """Returns how the pictures of the training in `folder` grew as one small inline GIF (Markdown).

    images_seen: by its last sheet. Frames are left out until it has at most max_bytes.
    """
    from models.training.run_folder import growth_gif  # imports torch

    for frames in (8, 6, 4, 2):
        small = growth_gif(store, folder, up_to=images_seen, side_px=128, frames=frames, colours=64)
        text = f"![growth](data:image/gif;base64,{base64.b64encode(small).decode()})"
        if len(text) <= max_bytes:
            break
    return dg.MetadataValue.md(text)


def read_ticks(store: Store, folder: str) -> list[dict[str, float]]:
    """Returns the metrics of each tick of a training, in order; [] before the first.

    A last line without its end is left out: its writer was killed.
    """
    path = f"{folder}/{PROGRESS}"
    if not store.exists(path):
        return []
    return [json.loads(line) for line in store.read_bytes(path).split(b"\n")[:-1]]


def curves_png(ticks: Sequence[Mapping[str, float]]) -> bytes:
    """Draws the losses against thousands of pictures seen, adversarial beside those of labels."""
    figure = Figure(figsize=(9.0, 2.9), dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    left, right = figure.subplots(1, 2)
    shown = _thinned(ticks)
    _draw_losses(left, shown, LOSSES, title="Losses")
    _draw_losses(right, shown, LABEL_LOSSES, title="Losses of the labels")
    return png_of(figure)


def _thinned(ticks: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Every so manieth tick, the last one always."""
    step = max(1, -(-len(ticks) // _POINTS))
    return list(ticks[::-1][::step])[::-1]


def _draw_losses(
    axes: Axes,
    ticks: Sequence[Mapping[str, float]],
    curves: Mapping[str, tuple[str, str]],
    *,
    title: str,
) -> None:
    for name, (words, colour) in curves.items():
        drawn = [tick for tick in ticks if name in tick]
        if drawn:
            seen = [tick["images_seen"] / 1000 for tick in drawn]
            axes.plot(
                seen, [tick[name] for tick in drawn], color=colour, label=words, linewidth=1.3
            )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("thousands of pictures seen", fontsize=8.5, color=INK)
    axes.tick_params(colors=INK, length=0, labelsize=8)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    if axes.lines:
        axes.legend(fontsize=8, frameon=False)
    for name in ("top", "right"):
        axes.spines[name].set_visible(False)


def comparison_png(entrants: Sequence[Mapping[str, Any]]) -> bytes:
    """Draws the curves of outcomes in two charts side by side, scores on a log scale."""
    drawn = [one for one in entrants if one["curve"]]
    several = len({one["score"] for one in drawn}) > 1  # by extractors that are not to be compared
    figure = Figure(figsize=(10.5, max(4.0, 0.26 * len(drawn) + 1.4)), dpi=_COMPARISON_DPI)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    left, right = figure.subplots(1, 2, sharey=True)
    colours = colormaps["tab10" if len(drawn) <= 10 else "tab20"]
    for number, one in enumerate(drawn):
        scores = [point["score"] for point in one["curve"]]
        for axes, key in ((left, "images_seen"), (right, "minutes")):
            places = [point[key] for point in one["curve"]]
            axes.plot(
                places, scores, "o-", color=colours(number % colours.N), markersize=3,
                linewidth=1.4, label=f"{one['name']}, {one['score']}" if several else one["name"],
            )  # fmt: skip
    _dress_axes(left, "pictures seen")
    _dress_axes(right, "minutes of training")
    left.xaxis.set_major_formatter(EngFormatter(sep=""))
    score = "score" if several or not drawn else drawn[0]["score"]
    left.set_ylabel(score, fontsize=9, color=INK)
    if drawn:
        # In the table's order, which is not that of the curves' ends.
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside right upper", fontsize=8.5, frameon=False,
        )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _dress_axes(axes: Axes, words: str) -> None:
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
