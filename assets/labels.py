"""Labels: the frequent appearance tags that the generator will obey."""

import dagster as dg
from pydantic import Field

from assets.charts import labels_chart
from assets.faults import plain_failures
from assets.resources import StoreResource
from assets.stopwatch import Stopwatch
from assets.tables import OWNERS
from dataset.labels import LabelSettings, LabelsFile, choose_labels

CUT_LISTED = 40


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
    chart = labels_chart(made)
    if made.warning:
        context.log.warning(made.warning)
    return dg.MaterializeResult(
        metadata={
            "labels": len(made.labels),
            "chosen": _chosen(made),
            "cut": _cut(made),
            "crops": made.crops,
            "untagged_crops": made.untagged,
            "left_right_labels": ", ".join(made.sided) or "none",
            "chart": chart,
            "warning": made.warning or "none",
            "seconds": watch.seconds,
            "path": dg.MetadataValue.path(opened.url(made.path)),
            "digest": made.digest,
        },
        data_version=dg.DataVersion(made.digest),
    )


def _chosen(made: LabelsFile) -> dg.MarkdownMetadataValue:
    rows = "\n".join(
        f"| {label} | {made.groups[label]} | {made.counts[label]:,} | {made.fractions[label]:.1%} |"
        for label in made.labels
    )
    head = "| label | group | crops | part |\n| --- | --- | ---: | ---: |"
    return dg.MetadataValue.md(f"{head}\n{rows}")


def _cut(made: LabelsFile) -> dg.MarkdownMetadataValue:
    """The most frequent tags that are no labels; labels.json has them all."""
    if not made.cut:
        return dg.MetadataValue.md("none")
    cut = sorted(made.cut.items(), key=lambda item: (-item[1].count, item[0]))[:CUT_LISTED]
    rows = "\n".join(f"| {tag} | {one.why} | {one.text} |" for tag, one in cut)
    rest = len(made.cut) - len(cut)
    more = f"\n\n… and {rest:,} more in labels.json" if rest else ""
    return dg.MetadataValue.md(f"| tag | why | |\n| --- | --- | --- |\n{rows}{more}")
