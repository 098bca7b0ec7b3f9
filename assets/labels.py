"""Labels: the frequent appearance tags that the generator will obey."""

import dagster as dg
from pydantic import Field

from assets.faults import plain_failures
from assets.resources import StoreResource
from assets.stopwatch import Stopwatch
from assets.tables import OWNERS
from dataset.labels import LabelSettings, LabelsFile, choose_labels


class LabelConfig(dg.Config):
    """Which appearance tags become labels."""

    min_frac: float = Field(
        default=0.05, ge=0, le=1, description="Rarer tags are cut (part of the crops)."
    )
    max_frac: float = Field(default=0.5, ge=0, le=1, description="More frequent tags are cut.")
    count: int = Field(default=23, ge=1, le=512, description="How many labels at most.")


@dg.asset(deps=["posts", "faces"], group_name="dataset", kinds={"json"}, owners=OWNERS)
def labels(
    context: dg.AssetExecutionContext, config: LabelConfig, store: StoreResource
) -> dg.MaterializeResult:
    """The labels: curated appearance tags on 5 % to 50 % of the crops, the most frequent 23."""
    watch = Stopwatch()
    opened = store.open()
    settings = LabelSettings(min_frac=config.min_frac, max_frac=config.max_frac, count=config.count)
    with plain_failures():
        made = choose_labels(opened, settings)
    if made.warning:
        context.log.warning(made.warning)
    return dg.MaterializeResult(
        metadata={
            "labels": len(made.labels),
            "chosen": _chosen(made),
            "cut": dg.MetadataValue.json(made.cut),
            "warning": made.warning or "none",
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(made.path)),
            "digest": made.digest,
        },
        data_version=dg.DataVersion(made.digest),
    )


def _chosen(made: LabelsFile) -> dg.MarkdownMetadataValue:
    rows = "\n".join(
        f"| {label} | {made.counts[label]:,} | {made.fractions[label]:.1%} |"
        for label in made.labels
    )
    return dg.MetadataValue.md(f"| label | crops | part |\n| --- | ---: | ---: |\n{rows}")
