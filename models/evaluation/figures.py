"""Figures of an evaluation: truncation curve, label chart, grids of fakes, reals, neighbours."""

import io
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset.errors import TrainingError
from dataset.store import Store
from models.evaluation.fakes import FakeSet
from models.evaluation.feature_rows import FeatureRows, Pictures
from models.evaluation.plan import Split
from models.families.base import GeneratorNet
from models.metrics.neighbours import Memorization, blocks, squared_distances
from models.sampling.draw import CHUNK, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE, LABELS = "truncation.png", "labels.png"
INK, GRID = "#2b2a33", "#d9d6cf"
FAKE, REAL, FLIP, SPREAD = "#5b6fb5", "#c4c1ba", "#d08a3c", "#5f9a6b"
_DPI = 80


def truncation_png(points: Sequence[Mapping[str, Any]], *, metric: str, fakes: int) -> bytes:
    """Draws distance, precision, recall and spread over psi.

    Raises TrainingError without matplotlib.
    """
    figure = _figure(width=6.4, height=3.6)
    left = figure.subplots()
    psis = [point["psi"] for point in points]
    _plain(left)
    left.plot(psis, [point[metric] for point in points], "o-", color=INK, label=metric)
    left.set_xlabel(f"psi ({fakes:,} fakes a point)", color=INK)
    left.set_ylabel(metric, color=INK)
    left.set_ylim(0, 1.08 * max(point[metric] for point in points) or 1.0)
    right = left.twinx()
    for name, colour in (("precision", FAKE), ("recall", FLIP), ("spread", SPREAD)):
        right.plot(psis, [point[name] for point in points], "s--", color=colour, label=name)
    right.set_ylim(0, 1.02 * max(1.0, *(point["spread"] or 0.0 for point in points)))
    right.tick_params(colors=INK, length=0)
    right.spines[["top", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
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
    for shift, column, colour, name in ((-0.2, 0, FAKE, "fakes"), (0.2, 1, REAL, "reals")):
        places = [place + shift for place in range(len(names))]
        widths = [scores[name][column] or 0.0 for name in names]
        axes.barh(places, widths, height=0.38, color=colour, label=name)
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


def write_grids(
    store: Store,
    out: str,
    *,
    generator: GeneratorNet,
    fakes: FakeSet,
    rows: FeatureRows,
    memory: Memorization,
    reals: Split,
    train: Split,
    train_rows: FeatureRows,
) -> dict[str, str]:
    """Writes the grids of fakes, reals and neighbours into `out`; returns their paths.

    rows, memory: of the fakes. train, train_rows: at the fakes' side.
    """
    table = neighbours_table(
        fakes,
        generator,
        rows=rows,
        memory=memory,
        train=train,
        train_rows=train_rows,
    )
    shown = first_fakes(fakes, generator)
    write_grid(store, f"{out}/{FAKES}", shown)
    write_grid(store, f"{out}/{REALS}", reals.pictures(slice(SHOWN)))
    write_grid(store, f"{out}/{NEIGHBOURS}", table, columns=1 + NEAREST_REALS)
    names = {"fakes_grid": FAKES, "reals_grid": REALS, "neighbours_grid": NEIGHBOURS}
    return {name: f"{out}/{file}" for name, file in names.items()}


def write_charts(
    store: Store, out: str, result: Mapping[str, Any], *, curve_fakes: int
) -> dict[str, str]:
    """Draws the charts that have data; says on stderr that matplotlib is missing."""
    paths = {}
    try:
        if len(result["truncation"]) > 1:
            drawn = truncation_png(
                result["truncation"],
                metric=result["metric"],
                fakes=curve_fakes,
            )
            paths["truncation_chart"] = f"{out}/{CURVE}"
            store.write_bytes(paths["truncation_chart"], drawn, durable=False)
        if result["label_ap_by_label"]:
            drawn = labels_png(result["label_ap_by_label"], result["flip_by_label"])
            paths["labels_chart"] = f"{out}/{LABELS}"
            store.write_bytes(paths["labels_chart"], drawn, durable=False)
    except TrainingError as error:
        print(f"no charts are drawn: {error}", file=sys.stderr)
    return paths


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


FAKES, REALS, NEIGHBOURS = "fakes.png", "reals.png", "neighbours.png"
SHOWN = 32  # pictures on fakes.png and reals.png
COLUMNS = 8
NEAREST_FAKES = 8  # rows of neighbours.png
NEAREST_REALS = 3  # beside each


def first_fakes(fakes: FakeSet, generator: GeneratorNet) -> Pictures:
    """Draws the first fakes again, in the chunk that they were measured in."""
    return fakes.draw(generator, 0, min(CHUNK, len(fakes)))[:SHOWN]


def neighbours_table(
    fakes: FakeSet,
    generator: GeneratorNet,
    *,
    rows: FeatureRows,
    memory: Memorization,
    train: Split,
    train_rows: FeatureRows,
) -> Pictures:
    """Returns [fake, its nearest training reals, the next fake, …] for the fakes nearest to any.

    train: at the fakes' side. NEAREST_REALS + 1 columns make a row a fake.
    """
    chosen = np.argsort(memory.distances, kind="stable")[:NEAREST_FAKES]
    nearest = _nearest(rows.features[chosen], train_rows, NEAREST_REALS)
    cells = []
    for place, reals in zip(chosen.tolist(), nearest, strict=True):
        (fake,) = fakes.draw(generator, place, place + 1)
        cells.append(fake[None])
        cells.append(train.pictures(reals))
    return np.concatenate(cells)


def write_grid(store: Store, path: str, pictures: Pictures, *, columns: int = COLUMNS) -> None:
    """Writes pictures [N,H,W,3] as a PNG, `columns` in a row."""
    _write(store, path, grid(pictures, columns))


def _write(store: Store, path: str, picture: Image.Image) -> None:
    sheet = io.BytesIO()
    picture.save(sheet, "PNG")
    store.write_bytes(path, sheet.getvalue(), durable=False)


def _nearest(
    features: npt.NDArray[np.floating], train: FeatureRows, count: int
) -> npt.NDArray[np.int64]:
    """Returns the rows [n,count] of the training reals nearest to features [n,F], nearest first."""
    wanted = np.asarray(features, dtype=np.float64)
    apart = [squared_distances(wanted, rows) for _, rows in blocks(train.features, 1000)]
    return np.argsort(np.concatenate(apart, axis=1), axis=1, kind="stable")[:, :count]
