"""What MLflow says of the registered model and of each version, in Markdown, for strangers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.registry.gate import OLD_METRIC

METRIC = "omokage.metric"  # a version's tag: which of its tags is the distance

# Metric, what it means, which way is better; in the order in which they are shown.
NUMBERS = {
    "label_ap": ("label average precision", "1 is best: how surely asked-for labels are seen"),
    "recall": ("recall", "1 is best: how much of the real variety it draws"),
    "precision": ("precision", "1 is best: how many of its faces could be real"),
    "memory_ratio": ("memory ratio", "1 as far from training faces as unseen ones, 0 copies"),
}


@dataclass(frozen=True)
class Links:
    """Where people open what belongs to a version; an empty text is no link."""

    dagster_run: str
    asset: str
    mlflow_run: str


def distance_in_words(tags: Mapping[str, str]) -> str:
    """Returns a version's distance by its tags, such as `fid 12.34`; "" if it bears none."""
    metric = tags.get(METRIC, OLD_METRIC)
    value = tags.get(f"omokage.{metric}", "")
    return f"{metric} {value}" if value else ""


def model_page(model: str) -> str:
    """Returns the description of the registered model."""
    return f"""Draws anime faces from labels such as `blonde_hair,blue_eyes`. Trained on drawn faces
that boards rate as safe; every version is one trained generator.

The aliases: **champion** is the version to use; **previous** is the one before it, to which
`omokage rollback` goes back; **challenger** is the newest one that was measured and did not win.
The tags `omokage.move.…` are the history of the champion: from, to, by whom, why and when.

{_usage(model, "champion")}"""


def version_page(
    model: str, *, facts: Mapping[str, Any], evaluation: Mapping[str, Any], links: Links
) -> str:
    """Returns the description of a version.

    facts: the generator's train.json with `side_px` and `labels` of its spec.
    """
    labels = facts["labels"]
    parts = [
        f"Draws anime faces of {facts['side_px']} x {facts['side_px']} pixels"
        + (f" from {len(labels)} labels." if labels else ", without labels."),
        f"Family **{facts['family']}**, trained on **{facts['pictures']:,} faces** "
        f"(manifest `{evaluation['manifest_digest'][:12]}`), "
        f"{facts['images_seen'] / 1000:,.1f} thousand pictures shown"
        + (f", by commit `{facts['commit'][:12]}`." if facts.get("commit") else "."),
        _numbers(evaluation),
        *([f"Labels: {', '.join(f'`{label}`' for label in labels)}."] if labels else []),
        _usage(model, "champion"),
        _links(links),
    ]
    return "\n\n".join(part for part in parts if part)


def _numbers(evaluation: Mapping[str, Any]) -> str:
    metric = evaluation.get("metric", OLD_METRIC)
    rows = [
        f"| {metric} | {evaluation[metric]:.2f} ± {evaluation['sigma']:.2f} | distance to unseen "
        f"real faces, 0 is best; other real faces have {evaluation['real_fd']:.2f} |"
    ]
    for key, (name, meaning) in NUMBERS.items():
        if evaluation.get(key) is not None:
            rows.append(f"| {name} | {evaluation[key]:.3f} | {meaning} |")
    protocol = (
        f"Measured on {evaluation['fakes']:,} drawn faces against {evaluation['reference_rows']:,} "
        f"real ones, protocol `{evaluation['protocol_digest'][:12]}`."
    )
    return "\n".join(["| number | value | meaning |", "| --- | ---: | --- |", *rows, "", protocol])


def _usage(model: str, alias: str) -> str:
    return f"""```python
import mlflow, pandas
mlflow.set_tracking_uri("…")  # this server
model = mlflow.pyfunc.load_model("models:/{model}@{alias}")
rows = pandas.DataFrame({{"labels": ["blonde_hair,blue_eyes"]}})
# uint8 [4, H, W, 3]
faces = model.predict(rows, params={{"seed": 7, "n": 4, "psi": 0.7}})
```"""


def _links(links: Links) -> str:
    named = {
        "Dagster run": links.dagster_run,
        "asset in Dagster": links.asset,
        "training and its pictures": links.mlflow_run,
    }
    return " · ".join(f"[{name}]({url})" for name, url in named.items() if url)
