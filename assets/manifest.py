"""Manifest: the training set, named by the digest of its content."""

import dagster as dg
from pydantic import Field

from assets.reporting import (
    OWNERS,
    Stopwatch,
    column_schema,
    manifest_lineage,
    plain_failures,
    tags_of,
)
from assets.resources import StoreResource
from dataset.facetags import DEFAULT_THRESHOLD
from dataset.manifest import Manifest, build_manifest
from dataset.schemas import MACHINE_LABELS_PATH, manifest_schema


class ManifestConfig(dg.Config):
    """How the crops are split."""

    eval_frac: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Part of the pictures that training never sees and generators are judged by "
        "(between 0 and 1, default 0.1). A distance from fewer than some 2,000 faces is noisy: "
        "raise it on small sets.",
    )
    machine_labels: str = Field(
        default=MACHINE_LABELS_PATH,
        description="Path under the home of a tagger's table, for faces whose posts have no tags "
        "(default: the one that the asset `machine_labels` writes). Empty: such faces are left "
        "out.",
    )
    machine_threshold: float = Field(
        default=DEFAULT_THRESHOLD,
        gt=0,
        lt=1,
        description="Probability of the tagger from which a face has a label (between 0 and 1, "
        "default 0.25). Raise it if machine-labelled faces bear labels that they do not show.",
    )


@dg.asset(
    deps=["posts", "faces", "labels", "machine_labels"],
    group_name="dataset",
    kinds={"parquet"},
    owners=OWNERS,
    pool="home",
    tags=tags_of("dataset", needs="cpu"),
    # Before the first build: the columns that there are whatever the labels.
    metadata={
        "dagster/column_schema": column_schema(manifest_schema([])),
        "dagster/column_lineage": manifest_lineage([]),
    },
)
def manifest(config: ManifestConfig, store: StoreResource) -> dg.MaterializeResult:
    """The training set: crops, splits and labels, named by the digest of its content.

    **From** the kept `faces`, the tags of their `posts` or else `machine_labels`, by the `labels`.
    Same content, same digest, no new training. A picture's split is by its sha256 alone, so one
    that generators are judged by is never learnt from.

    **Lies in** `manifest/<digest>/` (`train.parquet`, `eval.parquet`, `manifest.json`);
    `manifest/current.json` names the newest.

    **If it is wrong:** build what is wrong above it (`faces` for crops, `labels` for labels), then
    this. An older manifest stays where it is and may be trained on by its digest.
    """
    watch = Stopwatch()
    opened = store.open()
    with store.exclusive(), plain_failures():
        made = build_manifest(
            opened,
            eval_frac=config.eval_frac,
            machine_labels=config.machine_labels or None,
            machine_threshold=config.machine_threshold,
        )
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.train_rows + made.eval_rows,
            "dagster/uri": opened.url(made.folder),
            "dagster/column_schema": column_schema(manifest_schema(made.labels)),
            "train_rows": made.train_rows,
            "eval_rows": made.eval_rows,
            "labels": len(made.labels),
            "rows_by_label": _rows_by_label(made),
            "machine_labelled_rows": made.machine_rows,
            "untagged_faces_left_out": made.untagged,
            "crop_px": made.crop_px,
            "made_from": dg.MetadataValue.json(made.made_from),
            "dagster/column_lineage": manifest_lineage(
                made.labels, by_machine=bool(config.machine_labels)
            ),
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(made.folder)),
            "digest": made.digest,
        },
        data_version=dg.DataVersion(made.digest),
    )


def _rows_by_label(made: Manifest) -> dg.MarkdownMetadataValue:
    total = made.train_rows + made.eval_rows
    rows = "\n".join(
        f"| {label} | {made.counts[label]:,} | {made.counts[label] / total:.1%} |"
        for label in made.labels
    )
    return dg.MetadataValue.md(f"| label | rows | part |\n| --- | ---: | ---: |\n{rows}")
