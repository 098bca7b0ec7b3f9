"""What is told of a tagger: its scores as JSON, as a table, and as a chart."""

import io
import sys

import numpy as np
from PIL import Image

from dataset.store import Store
from models.tagger.scores import BINS, Numbers, Scores, Truths, reliability

SCORES = "scores.json"
TABLE = "scores.md"
CHART = "chart.png"
MAX_CHART_BYTES = 100_000

_INK, _FAINT, _OURS, _RAW = "#333333", "#cccccc", "#2a6f97", "#e07a5f"


def write_report(
    store: Store,
    folder: str,
    scores: Scores,
    *,
    probabilities: Numbers,
    raw: Numbers,
    truths: Truths,
) -> None:
    """Writes scores.json, scores.md and, if matplotlib is installed, chart.png into `folder`.

    probabilities, raw (before calibration) and truths are [N,L] of the held-out rows.
    """
    png = chart(scores, probabilities=probabilities, raw=raw, truths=truths)
    if png is not None:
        store.write_bytes(f"{folder}/{CHART}", png, durable=False)
    store.write_bytes(f"{folder}/{TABLE}", f"{table(scores)}\n".encode(), durable=False)
    store.write_json(f"{folder}/{SCORES}", scores.to_json())


def table(scores: Scores) -> str:
    """Returns the scores as a Markdown table, the labels in their order, the means last."""
    at = f"{scores.threshold:g}"
    lines = [
        "| label | rows | frequency | AP | ECE before | ECE "
        f"| precision at {at} | recall at {at} |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in scores.labels:
        cells = [row.frequency, row.ap, row.raw_ece, row.ece, row.precision, row.recall]
        shown = " | ".join(_number(cell) for cell in cells)
        lines.append(f"| {row.label} | {row.rows:,} | {shown} |")
    means = [scores.mean_frequency, scores.mean_ap, scores.mean_raw_ece, scores.mean_ece]
    lines.append(f"| **mean** | {scores.rows:,} | {' | '.join(map(_number, means))} | | |")
    return "\n".join(lines)


def chart(scores: Scores, *, probabilities: Numbers, raw: Numbers, truths: Truths) -> bytes | None:
    """Draws average precision beside frequency, and the reliability of all labels together.

    Returns a PNG of at most MAX_CHART_BYTES, or None, told on stderr, without matplotlib.
    """
    try:
        from matplotlib.figure import Figure  # absent on a machine that only trains
    except ImportError:
        print("matplotlib is not installed: no chart of the tagger is drawn", file=sys.stderr)
        return None
    figure = Figure(figsize=(9, max(3.6, 0.9 + 0.22 * len(scores.labels))), layout="constrained")
    bars, lines = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_bars(bars, scores)
    lines.plot((0, 1), (0, 1), color=_FAINT, linewidth=1)
    for said, colour, name in ((raw, _RAW, "network's own"), (probabilities, _OURS, "calibrated")):
        x, y, _ = reliability(said.reshape(-1), truths.reshape(-1), bins=BINS)
        lines.plot(x, y, color=colour, marker="o", markersize=3, linewidth=1.5, label=name)
    lines.axvline(scores.threshold, color=_INK, linewidth=0.8, linestyle=":")
    lines.set(
        xlim=(0, 1), ylim=(0, 1), aspect="equal",
        xlabel="probability that is said", ylabel="part that is true",
        title="Reliability, all labels",
    )  # fmt: skip
    lines.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return _small(buffer.getvalue())


def _draw_bars(axes, scores: Scores) -> None:  # type: ignore[no-untyped-def]  # matplotlib's axes
    rows = sorted(scores.labels, key=lambda row: (row.ap or 0.0, row.label))
    places = np.arange(len(rows))
    axes.barh(places, [row.ap or 0.0 for row in rows], color=_OURS, label="average precision")
    axes.barh(places, [row.frequency for row in rows], color=_RAW, label="frequency (chance)")
    axes.set_yticks(places, [row.label.replace("_", " ") for row in rows], fontsize=8)
    mean = "" if scores.mean_ap is None else f", mean {scores.mean_ap:.3f}"
    axes.set(xlim=(0, 1), title=f"Average precision on {scores.rows:,} held-out faces{mean}")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _small(png: bytes) -> bytes:
    """Fewer colours, then fewer pixels, until it fits: a chart of many labels grows long."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    while True:
        buffer = io.BytesIO()
        picture.quantize(64).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= MAX_CHART_BYTES:
            return buffer.getvalue()
        size = (picture.width * 3 // 4, picture.height * 3 // 4)
        picture = picture.resize(size, Image.Resampling.LANCZOS)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
