"""Machine labels: what a tagger says of the faces whose posts have no tags."""

from typing import Any, Literal

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.reporting import (
    OWNERS,
    Stopwatch,
    column_schema,
    inline,
    machine_labels_lineage,
    plain_failures,
    tags_of,
)
from assets.resources import ChildProcess, ComputeResource, StoreResource
from dataset.errors import ConfigError
from dataset.labels import read_labels
from dataset.schemas import MACHINE_LABELS_PATH, machine_labels_schema
from dataset.store import Store
from models.tagger.data import all_tagged
from models.tagger.machine_labels import MachineLabels, write_none

CHART, TABLE = "chart.png", "scores.md"  # in the tagger's folder


class MachineLabelConfig(dg.Config):
    """Which tagger labels the faces without tags, and how ours is trained."""

    total_kimg: float = Field(
        default=130.0,
        gt=0,
        description="Thousands of pictures shown to our own tagger while it learns (above 0, "
        "default 130: minutes on two cores). More helps only with many thousand tagged faces.",
    )
    overrides: dict[str, str] = Field(
        default={},
        description='Further settings of our own tagger, such as {"input_px": "96"}, as texts; '
        "models/tagger/model.py says what each means. None are changed by default.",
    )
    eval_frac: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Part of the tagged pictures that the tagger is measured on (between 0 and 1, "
        "default 0.1). Use the manifest's, so that the scores are of its eval split.",
    )
    threshold: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="Probability of the counts, precision and recall that are shown (between 0 and "
        "1, default 0.25). It changes no label: the manifest applies its own `machine_threshold`.",
    )
    onnx: str = Field(
        default="",
        description="A tagger of your own instead: path of its ONNX file. Empty (the default): "
        "ours is trained on the faces with tags. Wants `tags` as well.",
    )
    tags: str = Field(
        default="",
        description="Path of the ONNX tagger's list of tags, such as selected_tags.csv; goes with "
        "`onnx`. Empty by default.",
    )
    input_size: int = Field(
        default=0,
        ge=0,
        description="Side in pixels of the ONNX tagger's input; 0 (the default): as its file "
        "declares. Needed where that leaves it open.",
    )
    layout: Literal["", "nhwc", "nchw"] = Field(
        default="",
        description="Order of the ONNX tagger's input: `nhwc` (colours last) or `nchw` (colours "
        "first); empty (the default): as its file declares.",
    )
    range: Literal["", "bgr255", "rgb255", "rgb01", "rgb11"] = Field(
        default="",
        description="Colours that the ONNX tagger wants: `bgr255` or `rgb255` (0 to 255), `rgb01` "
        "(0 to 1), `rgb11` (-1 to 1); empty (the default): bgr255 for nhwc, else rgb01.",
    )
    logits: bool = Field(
        default=False,
        description="True: the ONNX tagger's outputs are logits, not probabilities, and a sigmoid "
        "is applied. False is the default.",
    )


@dg.asset(
    deps=["posts", "faces", "labels"],
    group_name="dataset",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    # Not "gpu": a training of days would stop every refresh, and a tagger is small beside one.
    pool="home",
    tags=tags_of("dataset", needs="gpu"),
    # Before the first build: the columns that there are whatever the labels.
    metadata={
        "dagster/column_schema": column_schema(machine_labels_schema([])),
        "dagster/column_lineage": machine_labels_lineage([]),
    },
)
def machine_labels(
    context: dg.AssetExecutionContext,
    config: MachineLabelConfig,
    store: StoreResource,
    compute: ComputeResource,
    child: ChildProcess,
) -> dg.MaterializeResult:
    """Probabilities of each label for faces without tags, by a tagger trained on those with tags.

    **From** the kept `faces` whose `posts` have no tags, such as an own collection's. Without such
    a face nothing is trained; the same faces and tagger are not gone through again.

    **Lies in** `machine_labels.parquet`; our own tagger in `taggers/`.

    **If it is wrong:** see average precision and calibration by label below. A label that the
    tagger does not know wants more tagged faces, or a tagger of your own (field `onnx`).
    """
    watch = Stopwatch()
    opened = store.open()
    with store.exclusive(), plain_failures():
        arguments = child_arguments(config, home=opened.state.root, compute=compute.on)
        labels = tuple(read_labels(opened)[0])
        tagged = all_tagged(opened)
        none = None if tagged is None else write_none(opened, labels)
    if tagged is not None and none is not None:
        return _nothing_to_do(opened, none, labels, tagged=tagged, seconds=watch.seconds)
    with store.exclusive():
        made = child.run(context, arguments, environment=opened.variables())
    scores = made["scores"] or {}
    metadata: dict[str, Any] = {
        "dagster/row_count": made["rows"],
        **_columns(opened, labels),
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


def child_arguments(config: MachineLabelConfig, *, home: str, compute: str) -> list[str]:
    """Returns the command that trains and labels; raises ConfigError for half an ONNX tagger."""
    if bool(config.onnx) != bool(config.tags):
        raise ConfigError(
            f'machine_labels: onnx is "{config.onnx}" and tags is "{config.tags}"; both or neither '
            "wanted"
        )
    arguments = ["-m", "models.tag", "label", "--home", home, "--compute", compute]
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
    store: Store, made: MachineLabels, labels: tuple[str, ...], *, tagged: int, seconds: float
) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.rows,
            **_columns(store, labels),
            "untagged": 0,
            "tagged": tagged,
            "note": "All kept faces have tags: no tagger is needed, and none was trained.",
            "seconds": seconds,
            "path": dg.MetadataValue.path(store.url(made.path)),
            "digest": made.digest,
        },
        data_version=dg.DataVersion(made.digest),
    )


def _columns(store: Store, labels: tuple[str, ...]) -> dict[str, Any]:
    """What Dagster knows of every table: where it is, its columns, and what they come from."""
    return {
        "dagster/uri": store.url(MACHINE_LABELS_PATH),
        "dagster/column_schema": column_schema(machine_labels_schema(list(labels))),
        "dagster/column_lineage": machine_labels_lineage(labels),
    }


def _report(store: Store, folder: str) -> dict[str, dg.MetadataValue]:
    shown: dict[str, dg.MetadataValue] = {
        "labels": dg.MetadataValue.md(store.read_bytes(f"{folder}/{TABLE}").decode())
    }
    if store.exists(f"{folder}/{CHART}"):
        with store.open(f"{folder}/{CHART}") as file, Image.open(file) as chart:
            shown["chart"] = inline(chart)
    return shown
