"""Outcomes of the entrants of a comparison, and their report: Markdown, curves, sample grids."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset.store import Store
from models.families.base import GeneratorNet
from models.io.generators import TRAIN, load_generator
from models.labels import Rows, typical_labels
from models.metrics.extractors import unfit_to_rank
from models.metrics.label_control import hair_labels
from models.sampling.draw import draw, grid, titled
from models.sampling.tables import swap_table
from models.training.progress_log import read_ticks

OUTCOME = "outcome.json"  # written last: where it stands, the entrant is done
MEASURED, FAILED = "measured", "failed"
# What an evaluation may say beside its distance; a family without labels has no label AP.
FIGURES = (
    "sigma",
    "recall",
    "precision",
    "coverage",
    "spread",
    "spread_within_labels",
    "label_ap",
    "real_label_ap",
    "label_chance",
    "flip_success",
    "hair_colour_hits",
    "real_hair_colour_hits",
    "memory_ratio",
    "copied_frac",
    "real_fd",
    "real_fd_at128",
    "trained_on_features",
    "fakes",
    "repeats",
    "reference_rows",
    "protocol_digest",
)


def measured(store: Store, out: str, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Returns the outcome of a training in the folder `out` and its evaluation."""
    facts = store.read_json(f"{out}/generator/{TRAIN}")
    generator = load_generator(store.url(f"{out}/generator"))
    metric = evaluation["metric"]
    return {
        "state": MEASURED,
        "images_seen": facts["images_seen"],
        "minutes": round(facts["train_seconds"] / 60, 3),
        "device": facts["device"],
        "torch": facts["torch"],
        "commit": facts["commit"],
        "parameters": sum(weight.numel() for weight in generator.parameters()),
        "resolution_px": generator.spec.resolution_px,
        "reference_px": evaluation["protocol"]["reference_px"],
        "metric": metric,
        "extractor": evaluation["protocol"]["extractor"],
        "psi": evaluation["protocol"]["psi"],
        "distance": evaluation[metric],
        "distance_at128": evaluation[f"{metric}_at128"],
        "kernel_distance": evaluation[evaluation["kernel_metric"]],
        **{name: evaluation[name] for name in FIGURES if evaluation.get(name) is not None},
        **curve(store, out),
    }


def failed(store: Store, out: str, fault: str, *, lasting: bool) -> dict[str, Any]:
    """Returns the outcome of a training that ended with a fault, with its curve so far.

    lasting: whether it would end so again, and is not to be tried again.
    """
    rows = read_ticks(store, out)
    seen = {"images_seen": int(rows[-1]["images_seen"])} if rows else {}
    return {"state": FAILED, "fault": fault, "lasting": lasting, **seen, **curve(store, out)}


def stands(outcome: dict[str, Any], **protocol: Any) -> bool:
    """Tells whether an outcome needs no work: measured by these options, or failed for good."""
    if outcome["state"] == FAILED:
        return bool(outcome["lasting"])
    return bool({"psi": 1.0, **outcome["asked"]} == protocol)  # older ones had no other psi


def curve(store: Store, out: str) -> dict[str, Any]:
    """Returns {"curve": [{images_seen, minutes, score}], "score": name}; no point, no name."""
    points, name = [], ""
    for row in read_ticks(store, out):
        scores = [key for key in row if key.startswith("snapshot_")]
        if scores:
            name = scores[0]
            point = {key: row[key] for key in ("images_seen", "minutes")}
            points.append({**point, "score": row[name]})
    return {"curve": points, "score": name}


CURVES, GRIDS = "curves.png", "grids.jpg"
Outcome = Mapping[str, Any]
_MEANINGS = {
    "spread": "Spread is how far apart two fakes are, over how far apart two real faces are: 0 is "
    "one picture again and again, 1 as varied as the reals.",
    "label_ap": "Label AP is how well a judge, who never saw the training pictures, finds the "
    "asked-for labels on the fakes.",
    "flip_success": "A label shows where the judge finds it likelier on a fake that was asked for "
    "it than on the same one without.",
    "hair_colour_hits": "Hair is the share of asked-for hair colours that show.",
    "memory_ratio": "Memory is the distance to the nearest training face: 1 is that of unseen real "
    "ones, 0 would be copies.",
}


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Returns the outcomes, the least distance first; those without one last, as they came.

    Entrants of one side are compared at that side, others at 128 px. Where `undecided` has a
    reason, all stay as they came.
    """
    done = [one for one in outcomes if one["state"] == MEASURED]
    rest = [one for one in outcomes if one["state"] != MEASURED]
    if not undecided(done):
        done.sort(key=_at128 if _several_sides(done) else _own)
    return done + rest


def undecided(outcomes: Sequence[Outcome]) -> str:
    """Returns why the distances decide nothing, and the way out; "" if they do."""
    done = [one for one in outcomes if one["state"] == MEASURED]
    for one in done:
        if why := unfit_to_rank(one.get("extractor", ""), one.get("trained_on_features", ())):
            return f"{one['name']}: {why} for all."
    if len({one["protocol_digest"] for one in done}) > 1:
        return "Not all were measured by one protocol: measure them again to compare."
    return ""


def _own(one: Outcome) -> float:
    return float(one["distance"])


def _at128(one: Outcome) -> float:
    return float(one.get("distance_at128", one["distance"]))  # by the old protocol that was it


def _several_sides(entrants: Sequence[Outcome]) -> bool:
    return len({one["resolution_px"] for one in entrants if one["state"] == MEASURED}) > 1


def results(plan: Mapping[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns what results.json says: the plan, the manifest, and every outcome, best first.

    "best" is None if none was measured, or if the distances decide nothing.
    """
    order = ranked(outcomes)
    is_decided = bool(order) and order[0]["state"] == MEASURED and not undecided(order)
    return {"plan": plan, "best": order[0]["name"] if is_decided else None, "entrants": order}


def markdown(result: Mapping[str, Any], *, pictures: Mapping[str, str] | None = None) -> str:
    """Returns the report: what was done, the table, faults, curves and grids.

    result is of `results`. pictures gives the addresses of CURVES and GRIDS (default: beside the
    report); one that is left out is not shown.
    """
    shown = {CURVES: CURVES, GRIDS: GRIDS} if pictures is None else pictures
    entrants = result["entrants"]
    parts = [_done(result), table(entrants), _notes(entrants), _faults(entrants)]
    if CURVES in shown and any(one["curve"] for one in entrants):
        parts.append(
            f"![score against pictures seen and against training time]({shown[CURVES]})\n\n"
            "Curves: the score of snapshots, a distance to training pictures on few fakes. It "
            "shows the way of a training; the table's distance is the one to compare by."
        )
    if GRIDS in shown and any(one["state"] == MEASURED for one in entrants):
        parts.append(
            f"![the same seeds and labels by each entrant, a row each]({shown[GRIDS]})\n\n"
            "Each column has one seed and the labels of one real face; each row is an entrant, in "
            "the order of the table."
        )
    return "\n\n".join(part for part in parts if part) + "\n"


def table(entrants: Sequence[Outcome]) -> str:
    """Returns the table of outcomes; columns that no entrant fills are left out."""
    columns = [(head, cell) for head, cell in _columns(entrants) if any(map(cell, entrants))]
    heads = [head for head, _ in columns]
    lines = [heads, ["---"] * len(heads)]
    lines += [[cell(one) or "–" for _, cell in columns] for one in entrants]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _columns(entrants: Sequence[Outcome]) -> list[tuple[str, Callable[[Outcome], str]]]:
    several = len({one["preset"] for one in entrants}) > 1
    metric = next((one["metric"] for one in entrants if "metric" in one), "distance")
    return [
        ("entrant", lambda one: f"**{one['name']}**"),
        ("what differs", lambda one: _difference(one, with_preset=several)),
        ("side", lambda one: f"{one['resolution_px']} px" if "resolution_px" in one else ""),
        ("pictures seen", lambda one: f"{one['images_seen']:,}" if "images_seen" in one else ""),
        ("minutes", lambda one: f"{one['minutes']:.1f}" if "minutes" in one else ""),
        (f"`{metric}`", _distance),
        (f"`{metric}_at128`", _with_reals if _several_sides(entrants) else lambda _one: ""),
        ("kernel distance", lambda one: _number(one, "kernel_distance")),
        ("precision", lambda one: _number(one, "precision")),
        ("recall", lambda one: _number(one, "recall")),
        ("coverage", lambda one: _number(one, "coverage")),
        ("spread", lambda one: _number(one, "spread")),
        ("spread within labels", lambda one: _number(one, "spread_within_labels")),
        ("label AP", lambda one: _number(one, "label_ap")),
        ("labels that show", lambda one: _percent(one, "flip_success")),
        ("hair", lambda one: _percent(one, "hair_colour_hits")),
        ("memory", lambda one: _number(one, "memory_ratio")),
        ("parameters of G", lambda one: f"{one['parameters']:,}" if "parameters" in one else ""),
    ]


def _difference(one: Outcome, *, with_preset: bool) -> str:
    overrides = [f"`{text}`" for text in one["own"]]
    return ", ".join([f"`{one['preset']}`", *overrides] if with_preset else overrides)


def _distance(one: Outcome) -> str:
    if "distance" not in one:
        return "failed"
    sigma = one.get("sigma")
    return f"{one['distance']:.1f}" + (f" ± {sigma:.1f}" if sigma else "")


def _with_reals(one: Outcome) -> str:
    if "distance_at128" not in one:
        return ""
    return f"{one['distance_at128']:.1f} (reals {one['real_fd_at128']:.0f})"


def _number(one: Outcome, name: str) -> str:
    return f"{one[name]:.3f}" if name in one else ""


def _percent(one: Outcome, name: str) -> str:
    return f"{one[name]:.0%}" if name in one else ""


def _done(result: Mapping[str, Any]) -> str:
    plan, entrants = result["plan"], result["entrants"]
    devices = sorted({str(one["device"]) for one in entrants if "device" in one})
    on = f" on {' and '.join(devices)}" if devices else ""
    return (
        f"{len(entrants)} entrants, {plan['budget_text']}{on}, seed {plan['seed']}, on the "
        f"manifest `{plan['manifest'][:12]}` of {plan['train_rows']:,} faces to learn from and "
        f"{plan['eval_rows']:,} to be measured against."
    )


def _notes(entrants: Sequence[Outcome]) -> str:
    """Says by what the numbers were measured, and what real pictures reach."""
    done = [one for one in entrants if one["state"] == MEASURED]
    if not done:
        return ""
    first = done[0]
    metric, is_old = first["metric"], any("distance_at128" not in one for one in done)
    side = "" if is_old else " at the entrant's own side"
    sentences = [
        f"`{metric}` is the distance to the eval split{side}, less is better, on "
        f"{first['fakes']:,} fakes"
        + (f" of {first['repeats']} sets each" if first.get("repeats", 1) > 1 else "")
        + (f", drawn with psi {first['psi']:g}" if first.get("psi", 1.0) != 1 else "")
        + "; ± is the spread of such sets."
    ]
    ceilings = [
        f"{words} {_of_reals(done, name, form)}"
        for name, words, form in (
            ("real_fd", "a distance of", ".0f"),
            ("real_label_ap", "a label AP of", ".3f"),
            ("real_hair_colour_hits", "hair of", ".0%"),
        )
        if any(name in one for one in done)
    ]
    if ceilings:
        sentences.append(f"Real training pictures reach {', '.join(ceilings)}.")
    if is_old:
        sentences.append(
            "**Old protocol:** the eval split had 128 px whatever the entrant's side, which a "
            "perfect generator of a smaller one cannot reach."
        )
    elif _several_sides(done):
        sentences.append(
            f"`{metric}_at128` is that to the eval split at 128 px, by which entrants of different "
            "sides are ordered; training pictures that went through the entrant's side are beside."
        )
    sentences += [words for name, words in _MEANINGS.items() if any(name in one for one in done)]
    if why := undecided(done):
        sentences.append(f"**Not ranked.** {why}")
    return " ".join(sentences)


def _of_reals(done: Sequence[Outcome], name: str, form: str) -> str:
    """Returns the values of that name, the least to the greatest where they are not the same."""
    found = sorted(float(one[name]) for one in done if name in one)
    ends = list(dict.fromkeys(format(value, form) for value in (found[0], found[-1])))
    return " to ".join(ends)


def _faults(entrants: Sequence[Outcome]) -> str:
    return "\n".join(
        f"- **{one['name']}** failed: {' '.join(one['fault'].split())}"
        for one in entrants
        if one["state"] != MEASURED
    )


COLUMNS = 10
CELL_PX = 64
GRIDS_BYTES = 170_000  # a picture for a page of documentation
TABLE_ROWS = 6


def side_by_side(
    folders: Mapping[str, str], rows: Rows, labels: Sequence[str], *, psi: float = 1.0
) -> bytes:
    """Draws a row an entrant, a column a seed with the labels of a real row; a JPEG's bytes.

    folders: entrant to its generator's address. rows [M,L] of `labels`: a manifest's eval rows.
    The JPEG is at most GRIDS_BYTES long.
    """
    labels_shown = typical_labels(rows, COLUMNS, 0)
    drawn = []
    for folder in folders.values():
        generator = load_generator(folder)
        shown = _known(generator, labels_shown, labels)
        pictures = draw(generator, shown, range(COLUMNS), psi=psi)
        drawn.append(np.stack([_fitted(picture) for picture in pictures]))
    sheet = titled(grid(np.concatenate(drawn), COLUMNS), list(folders), row_px=CELL_PX)
    return _jpeg(sheet)


def label_table(folder: str, rows: Rows, labels: Sequence[str]) -> Image.Image | None:
    """Draws the same characters with one hair colour after the other; None without hair labels.

    folder: the generator's address; the other arguments as in `side_by_side`.
    """
    generator = load_generator(folder)
    known, own = generator.spec.labels, _known(generator, rows, labels)
    frequent = sorted(hair_labels(known), key=lambda column: -own[:, column].sum())[:TABLE_ROWS]
    if not frequent:
        return None
    columns = max(4, 8 * 64 // generator.spec.resolution_px)
    return swap_table(generator, own, [known[column] for column in frequent], seeds=range(columns))


def _known(generator: GeneratorNet, rows: Rows, labels: Sequence[str]) -> Rows:
    """Returns the columns of the labels that the generator knows, in its order."""
    columns = [list(labels).index(name) for name in generator.spec.labels]
    return rows[:, columns]


def _fitted(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    side = (CELL_PX, CELL_PX)
    return np.asarray(Image.fromarray(picture).resize(side, Image.Resampling.LANCZOS))


def _jpeg(sheet: Image.Image) -> bytes:
    """Returns the sheet as a JPEG of at most GRIDS_BYTES: quality goes down first, then size."""
    while True:
        for quality in (92, 85, 78, 70, 60):
            buffer = io.BytesIO()
            sheet.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= GRIDS_BYTES:
                return buffer.getvalue()
        sheet = sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4))
