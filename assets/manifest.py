"""Manifest: the training set, named by the digest of its content."""

import dagster as dg
from pydantic import Field

from assets.faults import plain_failures
from assets.resources import StoreResource
from assets.stopwatch import Stopwatch
from assets.tables import OWNERS, column_schema
from dataset.manifest import build_manifest
from dataset.schemas import manifest_schema


class ManifestConfig(dg.Config):
    """How the crops are split."""

    eval_frac: float = Field(
        default=0.1, gt=0, lt=1, description="Part of the pictures that training never sees."
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
        made = build_manifest(opened, eval_frac=config.eval_frac)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": made.train_rows + made.eval_rows,
            "dagster/column_schema": column_schema(manifest_schema(made.labels)),
            "train_rows": made.train_rows,
            "eval_rows": made.eval_rows,
            "labels": len(made.labels),
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(made.folder)),
            "digest": made.digest,
        },
        data_version=dg.DataVersion(made.digest),
    )
