"""What people read on MLflow's pages: the training set, notes in Markdown, links both ways."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset.errors import RegistryError
from dataset.manifest import Manifest
from dataset.schemas import manifest_schema
from dataset.store import Store
from models.registry.client import TrackingClient

if TYPE_CHECKING:
    from mlflow.entities import Dataset

NOTE = "mlflow.note.content"  # where MLflow's UI looks for a description
# MLflow's UI opens in its view of language models unless it is told what an experiment is.
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
    from mlflow.exceptions import MlflowException

    client, experiment = tracking.client(), tracking.experiment_id()
    dataset = _dataset(store, manifest)
    about = EXPERIMENT_NOTE.format(model=tracking.model, dagster=tracking.dagster_url)
    try:
        inputs = client.get_run(run_id).inputs
        known = inputs.dataset_inputs if inputs is not None else []
        if dataset.digest not in [one.dataset.digest for one in known]:
            client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(CONTEXT, "training")])])
        client.set_tag(run_id, NOTE, note)
        for tag, value in ((NOTE, about), (KIND, TRAINING)):
            if tag not in client.get_experiment(experiment).tags:
                client.set_experiment_tag(experiment, tag, value)
    except MlflowException as error:
        raise RegistryError(
            f"MLflow at {tracking.uri} did not take the description of run {run_id}: {error}. "
            "Is MLFLOW_TRACKING_URI right, and does the server run?"
        ) from error


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
