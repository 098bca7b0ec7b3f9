"""What people read of the registered model: run pages, version pages, links, sheets of samples."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset.labels import appearance
from dataset.manifest import Manifest
from dataset.schemas import manifest_schema
from dataset.store import Store
from models.registry.client import TrackingClient
from models.registry.gate import OLD_METRIC

if TYPE_CHECKING:
    from mlflow.entities import Dataset
    from mlflow.entities.model_registry import ModelVersion

    from models.families.base import GeneratorNet


SHEET = "champion.png"  # at the home's top, for people
LABELS_SHEET = "labels.png"
SHEET_COLUMNS = 10
SHEET_ROWS = 10
SHEET_PSI = 0.75  # for people: a little less variety, cleaner faces
HAIR_COLOUR = "hair_colour"


def swap_sheet(folder: str) -> bytes:
    """Draws the same characters with one hair colour after the other; returns the PNG's bytes.

    folder: path or URL of a generator, or of a registered model's files. Without hair colours it is
    the first labels; without labels, characters as they come.
    """
    from models.io.generators import load_generator, typical_rows
    from models.registry.program import ProgramGenerator, is_registered, registered_files
    from models.sampling.draw import draw, grid
    from models.sampling.tables import swap_table

    network: GeneratorNet
    if is_registered(Path(folder)):
        files = registered_files(Path(folder))
        folder, network = str(files), ProgramGenerator(files)
    else:
        network = load_generator(folder)
    # A family may know a part of the manifest's labels, in an order of its own, or none of them.
    known = network.spec.labels
    rows = typical_rows(folder, known)
    hair = [name for name in known if appearance().groups.get(name) == HAIR_COLOUR]
    if known:
        swapped, seeds = hair or known[:SHEET_ROWS], range(SHEET_COLUMNS)
        sheet = swap_table(network, rows, swapped, seeds=seeds, psi=SHEET_PSI)
    else:
        seeds = range(SHEET_COLUMNS * SHEET_ROWS)
        pictures = draw(network, rows[:1].repeat(len(seeds), axis=0), seeds, psi=SHEET_PSI)
        sheet = grid(pictures, SHEET_COLUMNS)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def champion_sheet(store: Store, tracking: TrackingClient, version: "ModelVersion") -> bytes:
    """Draws a version's sheet anew, to champion.png and into its MLflow run; returns the PNG.

    Raises RegistryError if neither this home nor MLflow has its weights.
    """
    from models.registry.program import version_files  # imports torch

    with version_files(store, tracking, version) as files:
        sheet = swap_sheet(store.url(files.folder) if files.is_training else files.folder)
    store.write_bytes(SHEET, sheet)
    if version.run_id:
        tracking.log_picture(version.run_id, LABELS_SHEET, sheet)
    return sheet


def generator_sheet(
    store: Store, tracking: TrackingClient, current: Mapping[str, Any], *, is_new: bool
) -> bytes:
    """Returns the generator's sheet, drawn and logged once."""
    path = f"{current['folder']}/{LABELS_SHEET}"
    if not is_new and store.exists(path):
        return store.read_bytes(path)
    sheet = swap_sheet(store.url(f"{current['folder']}/generator"))
    tracking.log_picture(current["mlflow_run"], LABELS_SHEET, sheet)
    store.write_bytes(path, sheet)  # last: where it stands, it is logged too
    return sheet


NOTE = "mlflow.note.content"  # where MLflow's UI looks for a description
# MLflow's UI opens in its view of language models unless a tag says what an experiment is.
KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"
TRAINING_VIEW = "workflowType=machine_learning"
CONTEXT = "mlflow.data.context"
DATASET = "manifest"
DIGEST_LENGTH = 36  # MLflow takes no longer one

EXPERIMENT_NOTE = """\
Trainings of anime-face generators, one run for each pair of training set and settings.

- **Compare runs** by `eval/…` (measured after training, under one protocol) on the same dataset; \
losses of different families mean different things.
- **Curves** are against pictures seen (the step is `images_seen`); the series `samples` under \
*Model metrics* and *Artifacts* shows the same characters as training goes on.
- **The best one** is version `@champion` of the registered model `{model}`.

Runs are made by the asset `generator` in Dagster: <{dagster}/assets/generator>.
"""

CURVES = {
    "d_loss": "the critic's loss, telling real faces from drawn ones",
    "g_loss": "the generator's loss against the critic",
    "d_label_loss": "how badly the critic tells the labels of real faces",
    "g_label_loss": "how badly it tells the asked-for labels on drawn faces",
    "r1_penalty": "slope of the critic on reals, which is held down",
    "r2_penalty": "the same on fakes",
    "slope_penalty": "gradient penalty of the losses wgan-gp and dragan",
    "path_penalty": "path length penalty",
    "energy_distance": "how far the features of drawn faces are from those of real ones",
    "pair_score": "the same of two faces drawn with a real one's labels, less how far they differ",
    "aug_p": "chance that a picture is shifted, scaled or turned before the critic sees it",
    "pictures_per_s": "speed",
    "memory_mb": "most memory taken so far (of the GPU, or of the process on a CPU)",
}


def run_url(tracking: TrackingClient, run_id: str) -> str:
    """Returns the address of a run's page in MLflow's UI."""
    page = f"{tracking.mlflow_url}/#/experiments/{tracking.experiment_id()}/runs/{run_id}"
    return f"{page}?{TRAINING_VIEW}"


def describe(
    tracking: TrackingClient, run_id: str, *, store: Store, manifest: Manifest, note: str
) -> None:
    """Names the manifest as the run's dataset, and writes the notes of run and experiment.

    However often the training goes on, the dataset stands there once; a note that a person has
    written onto the experiment stays. Raises RegistryError when MLflow refuses.
    """
    from mlflow.entities import DatasetInput, InputTag

    client, experiment = tracking.client(), tracking.experiment_id()
    dataset = _dataset(store, manifest)
    about = EXPERIMENT_NOTE.format(model=tracking.model, dagster=tracking.dagster_url)
    fault = f"MLflow at {tracking.place} did not take the description of run {run_id}"
    with tracking.explained(fault):
        inputs = client.get_run(run_id).inputs
        known = inputs.dataset_inputs if inputs is not None else []
        if dataset.digest not in [one.dataset.digest for one in known]:
            client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(CONTEXT, "training")])])
        client.set_tag(run_id, NOTE, note)
        for tag, value in ((NOTE, about), (KIND, TRAINING)):
            if tag not in client.get_experiment(experiment).tags:
                client.set_experiment_tag(experiment, tag, value)


def training_note(
    tracking: TrackingClient,
    manifest: Manifest,
    settings: Mapping[str, Any],
    *,
    folder: str,
    reason: str,
    dagster_run: str,
) -> str:
    """Returns a training's note: what is made from what, where to see more, how to read it."""
    shown = {name: meaning for name, meaning in CURVES.items() if name not in _absent(settings)}
    curves = "\n".join(f"| `train/{name}` | {meaning} |" for name, meaning in shown.items())
    return f"""\
A **{settings["family"]}** generator of {settings["resolution_px"]} px faces, trained {reason}.

- **Learns from** {manifest.train_rows:,} faces with {len(manifest.labels)} labels (manifest \
`{manifest.digest[:12]}`); {manifest.eval_rows:,} more are kept for judging it.
- **Length** {settings["total_kimg"]:g} thousand pictures, {settings["batch"]} a step.
- **Made by** Dagster run [{dagster_run[:8]}]({tracking.dagster_url}/runs/{dagster_run}), asset \
[generator]({tracking.dagster_url}/assets/generator).
- **Lies in** `{folder}` under the home. Stopped before its end, it goes on in this same run when \
`generator` is materialised again with the same settings.

**How to read the curves** (the step is the number of pictures seen)

| curve | what it is |
| --- | --- |
{curves}

`eval/…` are the numbers to compare generators by, measured when the training had ended.
"""


def _absent(settings: Mapping[str, Any]) -> set[str]:
    """The curves that a training with these settings does not have."""
    weights = {"r1_penalty": "r1_gamma", "r2_penalty": "r2_gamma", "path_penalty": "pl_weight"}
    weights |= {"energy_distance": "energy_weight", "pair_score": "pair_weight"}
    absent = {curve for curve, weight in weights.items() if not settings[weight]}
    return absent if settings["loss"] in ("wgan-gp", "dragan") else {*absent, "slope_penalty"}


def _dataset(store: Store, manifest: Manifest) -> "Dataset":
    from mlflow.entities import Dataset

    return Dataset(
        name=DATASET,
        digest=manifest.digest[:DIGEST_LENGTH],
        source_type=_source_type(store),
        source=json.dumps({"uri": store.url(manifest.folder)}),
        schema=json.dumps(_schema(manifest_schema(manifest.labels))),
        profile=json.dumps(_profile(manifest)),
    )


def _source_type(store: Store) -> str:
    scheme, separator, _ = store.root.partition("://")
    return scheme if separator else "local"


def _schema(declared: pa.Schema) -> dict[str, Any]:
    """The columns in the form that MLflow's UI shows."""
    return {
        "mlflow_colspec": [
            {"type": _kind(field.type), "name": field.name, "required": not field.nullable}
            for field in declared
        ]
    }


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "boolean"
    return "long" if pa.types.is_integer(kind) else "string"


def _profile(manifest: Manifest) -> dict[str, Any]:
    rows = manifest.train_rows + manifest.eval_rows
    return {
        "num_rows": rows,
        "num_elements": rows * len(manifest_schema(manifest.labels).names),
        "train_rows": manifest.train_rows,
        "eval_rows": manifest.eval_rows,
        "crop_px": manifest.crop_px,
        "labels": len(manifest.labels),
        "rows_by_label": manifest.counts,
    }


METRIC = "omokage.metric"  # a version's tag: which of its tags is the distance
SIDE = "omokage.resolution_px"  # side of the real faces that it was compared with: its own

# Metric, what it means, which way is better; in the order in which they are shown.
NUMBERS = {
    "label_ap": ("label average precision", "1 is best: how surely asked-for labels are seen"),
    "recall": ("recall", "1 is best: how much of the real variety it draws"),
    "precision": ("precision", "1 is best: how many of its faces could be real"),
    "coverage": ("coverage", "1 is best: how many real faces have one of its own beside them"),
    "spread": ("spread", "1 is best: how much its faces differ, beside real ones"),
    "spread_within_labels": ("spread within labels", "1 is best: the same for equal labels"),
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
    return f"{metric} {value}{old_protocol(tags.get(SIDE))}" if value else ""


def old_protocol(side_px: object) -> str:
    """Returns what an evaluation that names no side is marked with, "" for one that does."""
    return "" if side_px else " (old protocol: against real faces of 128 px)"


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
        numbers_table(evaluation),
        *([f"Labels: {', '.join(f'`{label}`' for label in labels)}."] if labels else []),
        _usage(model, "champion"),
        _links(links),
    ]
    return "\n\n".join(part for part in parts if part)


_TAKEN = "> **Taken down:** this version learnt from pictures that were taken down since: "


def with_takedown(page: str, taken: str) -> str:
    """Puts onto a version's page that pictures of its training were taken down; once."""
    if page.startswith(_TAKEN):
        page = page.partition("\n\n")[2]
    return f"{_TAKEN}{taken}. Train anew and promote that one.\n\n{page}" if taken else page


def numbers_table(evaluation: Mapping[str, Any]) -> str:
    """Returns an evaluation's numbers with their noise and meaning, a Markdown table."""
    metric, kernel = evaluation.get("metric", OLD_METRIC), evaluation.get("kernel_metric", "")
    rows = [
        f"| {metric} | {evaluation[metric]:.2f}{_noise(evaluation['sigma'], '.2f')} | distance to "
        f"unseen real faces, 0 is best; other real faces have {evaluation['real_fd']:.2f} |"
    ]
    if evaluation.get(kernel) is not None:
        noise = _noise(evaluation.get(f"{kernel}_se"), ".2g")
        rows.append(
            f"| {kernel} | {evaluation[kernel]:.4g}{noise} | kernel distance to them, about 0 is "
            "best: what the gate decides by |"
        )
    for key, (name, meaning) in NUMBERS.items():
        if evaluation.get(key) is not None:
            rows.append(f"| {name} | {evaluation[key]:.3f} | {meaning} |")
    protocol = (
        f"Measured on {evaluation['fakes']:,} drawn faces against {evaluation['reference_rows']:,} "
        f"real ones, protocol `{evaluation['protocol_digest'][:12]}`"
        f"{old_protocol(evaluation.get('resolution_px'))}."
    )
    return "\n".join(["| number | value | meaning |", "| --- | ---: | --- |", *rows, "", protocol])


def _noise(value: float | None, form: str) -> str:
    return "" if value is None else f" ± {value:{form}}"


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
