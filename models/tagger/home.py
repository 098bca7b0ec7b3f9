"""A tagger of a home: trained on its tagged faces, scored on held-out ones, with a report."""

import dataclasses
import io
import sys

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from dataset.errors import ConfigError, EmptyStageError
from dataset.progress import progress
from dataset.store import Store, digest_of
from models.tagger.data import HomeFaces, part_of, read_crops
from models.tagger.model import FACTS, LabelModel, Probabilities, Tagger, TaggerConfig, load
from models.tagger.scores import BINS, Numbers, Scores, Truths, reliability, score
from models.tagger.train import MIN_ROWS, Progress, train_tagger

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

    Returns a PNG of at most MAX_CHART_BYTES, or None, reported on stderr, without matplotlib.
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


TAGGERS = "taggers"
MAX_HELD_OUT = 10_000  # more rows do not make an average precision noticeably surer
MAX_HELD_OUT_ONNX = 1_000  # a large model takes half a second a picture


@dataclasses.dataclass(frozen=True)
class Scored:
    """A model that was scored on held-out faces: `scores` is None if none is held out."""

    folder: str
    model: LabelModel
    scores: Scores | None
    reused: bool


def tagger_id(faces: HomeFaces, config: TaggerConfig, eval_frac: float) -> str:
    """Returns the name of a tagger: what it learnt from, and how."""
    how = digest_of({"config": config.digest, "eval_frac": eval_frac})
    return f"{faces.tagged_digest[:12]}-{how[:12]}"


def trained_tagger(
    store: Store,
    faces: HomeFaces,
    config: TaggerConfig,
    *,
    eval_frac: float = 0.1,
    threshold: float = 0.25,
    on_progress: Progress,
) -> Scored:
    """Trains on the tagged faces of the `train` split and scores on those of `eval`.

    Leaves taggers/<id>/ with weights, facts, scores and chart; a whole one of that id is loaded
    instead. Raises EmptyStageError if too few faces have tags, ConfigError for an `eval_frac` or
    `threshold` that is not between 0 and 1.
    """
    _check_part("eval_frac", eval_frac)
    _check_part("threshold", threshold)
    folder = f"{TAGGERS}/{tagger_id(faces, config, eval_frac)}"
    if store.exists(f"{folder}/{FACTS}"):
        model = load(store.url(folder), device=config.torch_device())
        print(f"already trained: {store.url(folder)}", file=sys.stderr)
        scores = stored_scores(store, folder, threshold)
        if scores is None:
            scores = evaluate_at_home(
                store, faces, model, folder, eval_frac=eval_frac, threshold=threshold
            )
        return Scored(folder, model, scores, reused=True)
    model = _train(store, faces, config, eval_frac=eval_frac, on_progress=on_progress)
    model.save(store.url(folder))
    scores = evaluate_at_home(store, faces, model, folder, eval_frac=eval_frac, threshold=threshold)
    return Scored(folder, model, scores, reused=False)


def evaluate_at_home(
    store: Store,
    faces: HomeFaces,
    model: LabelModel,
    folder: str,
    *,
    eval_frac: float = 0.1,
    threshold: float = 0.25,
    at_most: int = MAX_HELD_OUT,
) -> Scores | None:
    """Scores a model on the tagged `eval` faces, `at_most` so many, and writes the report.

    Returns None, and writes nothing, if no tagged face is held out.
    """
    held = np.flatnonzero(faces.in_split("eval", eval_frac))[:at_most]
    if not len(held):
        return None
    rows, truths = faces.tagged.take(pa.array(held)), faces.truths[held]
    with progress("held out", len(held), unit="faces") as advance:
        images = read_crops(store, rows, side_px=model.input_px, advance=advance)
    said = model.probabilities(images)
    raw: Probabilities = model.raw_probabilities(images) if isinstance(model, Tagger) else said
    scores = score(said, truths, faces.labels, raw=raw, threshold=threshold)
    write_report(store, folder, scores, probabilities=said, raw=raw, truths=truths)
    return scores


def _train(
    store: Store,
    faces: HomeFaces,
    config: TaggerConfig,
    *,
    eval_frac: float,
    on_progress: Progress,
) -> Tagger:
    # By face_id, a digest: the first so many are a fair sample, and no more are ever shown.
    most = int(config.total_kimg * 1000)
    chosen = np.flatnonzero(faces.in_split("train", eval_frac))[:most]
    if len(chosen) < MIN_ROWS:
        raise EmptyStageError(
            f"A tagger cannot be trained: {len(chosen):,} faces of the train split have tags, "
            f"{MIN_ROWS} or more are wanted. Crawl tagged posts too, or give an ONNX tagger."
        )
    rows, truths = faces.tagged.take(pa.array(chosen)), faces.truths[chosen]
    held: npt.NDArray[np.bool_] = np.array(
        [part_of(picture, config.calibration_frac) for picture in rows["sha256"].to_pylist()], bool
    )
    with progress("crops", len(chosen), unit="faces") as advance:
        images = read_crops(store, rows, side_px=config.input_px, advance=advance)
    return train_tagger(
        images,
        truths,
        label_names=faces.labels,
        config=config,
        progress=on_progress,
        calibration_rows=held,
        data_digest=faces.tagged_digest,
    )


def stored_scores(store: Store, folder: str, threshold: float) -> Scores | None:
    """Returns the scores of a report that was written for this threshold, else None."""
    path = f"{folder}/{SCORES}"
    if not store.exists(path):
        return None
    try:
        scores = Scores.from_json(store.read_json(path))
    except (TypeError, KeyError):
        print(f"{store.url(path)} is of another version: measured again", file=sys.stderr)
        return None
    return scores if scores.threshold == threshold else None


def _check_part(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value:g}; a number between 0 and 1 wanted")
