"""Labels: the frequent appearance tags that the generator will obey."""

import dagster as dg
from pydantic import Field

from assets.charts import labels_chart
from assets.reporting import (
    LABELS_COLUMNS,
    LABELS_LINEAGE,
    OWNERS,
    Stopwatch,
    plain_failures,
    tags_of,
)
from assets.resources import StoreResource
from dataset.labels import LabelSettings, LabelsFile, choose_labels

CUT_LISTED = 40


class LabelConfig(dg.Config):
    """Which appearance tags become labels."""

    min_frac: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Tags on a smaller part of the crops than this are no labels (0 to 1, default "
        "0.05). Lower it on a large set, where 1 % are thousands of faces to learn from.",
    )
    max_frac: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Tags on a larger part of the crops than this are no labels (0 to 1, default "
        "0.5). Raise it for a set of one kind, such as long hair on nearly all.",
    )
    count: int = Field(
        default=23,
        ge=1,
        le=512,
        description="So many labels at most, the most frequent ones (1 to 512, default 23). Each "
        "change of the labels is a new manifest, and a new training.",
    )


@dg.asset(
    deps=["posts", "faces"],
    group_name="dataset",
    kinds={"json"},
    owners=OWNERS,
    pool="home",
    tags=tags_of("dataset", needs="cpu"),
    metadata={
        "dagster/column_schema": LABELS_COLUMNS,
        "dagster/column_lineage": LABELS_LINEAGE,
    },
)
def labels(
    context: dg.AssetExecutionContext, config: LabelConfig, store: StoreResource
) -> dg.MaterializeResult:
    """The labels that the generator will obey: what is frequent, and not too frequent, on faces.

    **From** the general tags of the posts whose faces were kept: the curated appearance tags (hair,
    eyes, what is on the head), after aliases and implications, on 5 % to 50 % of the crops, the
    most frequent 23.

    **Lies in** `labels.json`, with the counts of all tags and why each other one was cut.

    **If it is wrong:** a label that is missed stands under `cut` below with the reason; the fields
    `min_frac`, `max_frac` and `count` let more or fewer in.
    """
    watch = Stopwatch()
    opened = store.open()
    settings = LabelSettings(min_frac=config.min_frac, max_frac=config.max_frac, count=config.count)
    with store.exclusive(), plain_failures():
        made = choose_labels(opened, settings)
    chart = labels_chart(made)
    if made.warning:
        context.log.warning(made.warning)
    return dg.MaterializeResult(
        metadata={
            "labels": len(made.labels),
            "dagster/uri": opened.url(made.path),
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
