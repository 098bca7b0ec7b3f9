"""Machine labels: what a tagger says of the faces whose posts have no tags."""

from typing import Any

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.faults import plain_failures
from assets.previews import inline
from assets.resources import ChildProcess, StoreResource
from assets.stopwatch import Stopwatch
from assets.tables import OWNERS
from dataset.errors import ConfigError
from dataset.schemas import MACHINE_LABELS_PATH
from dataset.store import Store
from models.tagger.faces import faces_of
from models.tagger.machine_labels import MachineLabels, write_none

CHART, TABLE = "chart.png", "scores.md"  # in the tagger's folder


class MachineLabelConfig(dg.Config):
    """Which tagger labels the faces without tags, and how ours is trained."""

    total_kimg: float = Field(
        default=130.0, gt=0, description="Thousands of pictures shown to our own tagger."
    )
    overrides: dict[str, str] = Field(
        default={}, description='Further settings of it, such as {"input_px": "96"}.'
    )
    eval_frac: float = Field(
        default=0.1, gt=0, lt=1, description="Part of the pictures that it is measured on."
    )
    threshold: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="Probability of the counts, precision and recall that are shown. The manifest "
        "applies its own.",
    )
    onnx: str = Field(default="", description="A tagger of your own: path of its ONNX file.")
    tags: str = Field(default="", description="Its list of tags, such as selected_tags.csv.")
    input_size: int = Field(default=0, ge=0, description="Its input's side; 0: as declared.")
    layout: str = Field(default="", description="nhwc or nchw; empty: as declared.")
    range: str = Field(default="", description="bgr255, rgb255, rgb01 or rgb11; empty: by layout.")
    logits: bool = Field(default=False, description="Its outputs are logits.")


@dg.asset(
    deps=["posts", "faces", "labels"],
    group_name="dataset",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    pool="gpu",
)
def machine_labels(
    context: dg.AssetExecutionContext,
    config: MachineLabelConfig,
    store: StoreResource,
    child: ChildProcess,
) -> dg.MaterializeResult:
    """Probabilities of each label for faces without tags, by a tagger trained on those with tags.

    Without such a face nothing is trained; the same faces and tagger are not gone through again.
    """
    watch = Stopwatch()
    opened = store.open()
    with plain_failures():
        arguments = child_arguments(config, home=store.root)
        faces = faces_of(opened)
        none = None if faces.untagged.num_rows else write_none(opened, faces.labels)
    if none is not None:
        return _nothing_to_do(opened, none, tagged=faces.tagged.num_rows, seconds=watch.seconds)
    made = child.run(context, arguments)
    scores = made["scores"] or {}
    metadata: dict[str, Any] = {
        "dagster/row_count": made["rows"],
        "untagged": made["untagged"],
        "tagged": made["tagged"],
        "without_a_label": made["without"],
        "by_label": dg.MetadataValue.json(made["counts"]),
        "threshold": config.threshold,
        "mean_ap": scores.get("mean_ap"),
        "mean_calibration_error": scores.get("mean_ece"),
        "tagger": made["tagger"],
        "tagger_path": dg.MetadataValue.path(opened.url(made["folder"])),
        "reused": made["reused"],
        "seconds": watch.seconds,
        "path": dg.MetadataValue.path(opened.url(MACHINE_LABELS_PATH)),
        "digest": made["table_digest"],
    }
    if scores:
        metadata |= _report(opened, made["folder"])
    return dg.MaterializeResult(
        metadata=metadata, data_version=dg.DataVersion(made["table_digest"])
    )


def child_arguments(config: MachineLabelConfig, *, home: str) -> list[str]:
    """Returns the command that trains and labels; raises ConfigError for half an ONNX tagger."""
    if bool(config.onnx) != bool(config.tags):
        raise ConfigError(
            f'machine_labels: onnx is "{config.onnx}" and tags is "{config.tags}"; both or neither '
            "wanted"
        )
    arguments = ["-m", "models.tag", "label", "--home", home]
    arguments += ["--eval-frac", str(config.eval_frac), "--threshold", str(config.threshold)]
    arguments += ["--set", f"total_kimg={config.total_kimg}"]
    for key, value in config.overrides.items():
        arguments += ["--set", f"{key}={value}"]
    named = {
        "--onnx": config.onnx,
        "--tags": config.tags,
        "--input-size": config.input_size or "",
        "--layout": config.layout,
        "--range": config.range,
    }
    for option, given in named.items():
        if given:
            arguments += [option, str(given)]
    return arguments + (["--logits"] if config.logits else [])


def _nothing_to_do(
    store: Store, made: MachineLabels, *, tagged: int, seconds: float
) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.rows,
            "untagged": 0,
            "tagged": tagged,
            "note": "All kept faces have tags: no tagger is needed, and none was trained.",
            "seconds": seconds,
            "path": dg.MetadataValue.path(store.url(made.path)),
            "digest": made.digest,
        },
        data_version=dg.DataVersion(made.digest),
    )


def _report(store: Store, folder: str) -> dict[str, dg.MetadataValue]:
    shown: dict[str, dg.MetadataValue] = {
        "labels": dg.MetadataValue.md(store.read_bytes(f"{folder}/{TABLE}").decode())
    }
    if store.exists(f"{folder}/{CHART}"):
        with store.open(f"{folder}/{CHART}") as file, Image.open(file) as chart:
            shown["chart"] = inline(chart)
    return shown
