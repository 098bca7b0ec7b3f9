"""What became of an entrant: its training, its evaluation and its curve, or why there is none."""

import json
from typing import Any

from dataset.store import Store
from models.io.generators import TRAIN, load_generator
from models.training.progress_log import PROGRESS

OUTCOME = "outcome.json"  # written last: where it stands, the entrant is done
MEASURED, FAILED = "measured", "failed"
# What an evaluation may say beside its distance; a family without labels has no label AP.
FIGURES = (
    "sigma",
    "recall",
    "precision",
    "label_ap",
    "real_label_ap",
    "label_chance",
    "flip_success",
    "hair_colour_hits",
    "real_hair_colour_hits",
    "memory_ratio",
    "copied_frac",
    "real_fd",
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
        "distance": evaluation[metric],
        **{name: evaluation[name] for name in FIGURES if evaluation.get(name) is not None},
        **curve(store, out),
    }


def failed(store: Store, out: str, fault: str, *, lasting: bool) -> dict[str, Any]:
    """Returns the outcome of a training that ended with a fault, with its curve so far.

    lasting: whether it would end so again, and is not to be tried again.
    """
    rows = _ticks(store, out)
    seen = {"images_seen": int(rows[-1]["images_seen"])} if rows else {}
    return {"state": FAILED, "fault": fault, "lasting": lasting, **seen, **curve(store, out)}


def stands(outcome: dict[str, Any], *, fakes: int, repeats: int) -> bool:
    """Tells whether an outcome needs no work: measured on so many fakes, or failed for good."""
    if outcome["state"] == FAILED:
        return bool(outcome["lasting"])
    return bool(outcome["asked"] == {"fakes": fakes, "repeats": repeats})


def curve(store: Store, out: str) -> dict[str, Any]:
    """Returns {"curve": [{images_seen, minutes, score}], "score": name}; no point, no name."""
    points, name = [], ""
    for row in _ticks(store, out):
        scores = [key for key in row if key.startswith("snapshot_")]
        if scores:
            name = scores[0]
            point = {key: row[key] for key in ("images_seen", "minutes")}
            points.append({**point, "score": row[name]})
    return {"curve": points, "score": name}


def _ticks(store: Store, out: str) -> list[dict[str, Any]]:
    path = f"{out}/{PROGRESS}"
    if not store.exists(path):
        return []
    return [json.loads(line) for line in store.read_bytes(path).splitlines()]
