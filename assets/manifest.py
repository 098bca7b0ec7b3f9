"""Manifest: the training set, named by the digest of its content."""

import dagster as dg
from pydantic import Field

from assets.faults import plain_failures
from assets.resources import StoreResource
from assets.stopwatch import Stopwatch
from assets.tables import OWNERS, column_schema
from dataset.machine import DEFAULT_THRESHOLD
from dataset.manifest import Manifest, build_manifest
from dataset.schemas import FACES, MACHINE_LABELS_PATH, manifest_schema


class ManifestConfig(dg.Config):
    """How the crops are split."""

    eval_frac: float = Field(
        default=0.1, gt=0, lt=1, description="Part of the pictures that training never sees."
    )
    machine_labels: str = Field(
        default=MACHINE_LABELS_PATH,
        description="Table of a tagger's labels under the home, for posts without tags; "
        "empty: such posts are left out.",
    )
    machine_threshold: float = Field(
        default=DEFAULT_THRESHOLD, gt=0, lt=1, description="Probability from which a label holds."
    )


@dg.asset(
    deps=["posts", "faces", "labels", "machine_labels"],
    group_name="dataset",
    kinds={"parquet"},
    owners=OWNERS,
)
def manifest(config: ManifestConfig, store: StoreResource) -> dg.MaterializeResult:
    """The training set: crops, splits and labels. Same content, same digest, no new training."""
    watch = Stopwatch()
    opened = store.open()
    with plain_failures():
        made = build_manifest(
            opened,
            eval_frac=config.eval_frac,
            machine_labels=config.machine_labels or None,
            machine_threshold=config.machine_threshold,
        )
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.train_rows + made.eval_rows,
            "dagster/column_schema": column_schema(manifest_schema(made.labels)),
            "train_rows": made.train_rows,
            "eval_rows": made.eval_rows,
            "labels": len(made.labels),
            "rows_by_label": _rows_by_label(made),
            "machine_labelled_rows": made.machine_rows,
            "untagged_faces_left_out": made.untagged,
            "crop_px": made.crop_px,
            "made_from": dg.MetadataValue.json(made.made_from),
            "dagster/column_lineage": _lineage(made.labels),
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


def _lineage(labels: list[str]) -> dg.TableColumnLineage:
    """Columns of the faces are taken over; the labels come from the posts' tags."""
    taken = [name for name in manifest_schema([]).names if name in FACES.names]
    of_faces = {name: [dg.TableColumnDep(dg.AssetKey("faces"), name)] for name in taken}
    tags = dg.TableColumnDep(dg.AssetKey("posts"), "tags_general")
    split = {"split": [dg.TableColumnDep(dg.AssetKey("faces"), "sha256")]}
    return dg.TableColumnLineage(
        {**of_faces, **split, "labels_by": [tags], **{label: [tags] for label in labels}}
    )
