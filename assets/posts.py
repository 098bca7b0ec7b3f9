"""Posts: the one table of the posts of all enabled boards and of all imports, by the ledger."""

from collections.abc import Sequence

import dagster as dg
import pyarrow.compute as pc
from PIL import Image
from pydantic import Field

from assets.crawl import check_boards
from assets.reporting import (
    OWNERS,
    POSTS_LINEAGE,
    Stopwatch,
    blob_sheet,
    boards_table,
    column_schema,
    evenly,
    inline,
    plain_failures,
    reasons,
    tags_of,
)
from assets.resources import StoreResource
from crawlers.audit import TRASH_DAYS
from crawlers.export import export_posts
from crawlers.sites import load_sites
from dataset.schemas import POSTS, batches
from dataset.store import Store

PREVIEWED = 24


class PostsConfig(dg.Config):
    """What may happen to originals of which ledger and `blobs/` say different things."""

    refetch_missing: bool = Field(
        default=False,
        description="Queue all missing blobs for download again. Without it a build that misses "
        "more than 20 blobs and 1 % of them stops: most often a volume is not mounted.",
    )
    trash_orphans: bool = Field(
        default=False,
        description="Move all blobs that no post names to `trash/`. Without it a build that finds "
        "more than 20 of them and 1 % stops: most often the ledger is an older copy.",
    )
    trash_days: int = Field(
        default=TRASH_DAYS,
        ge=1,
        description="What was moved to `trash/` more than so many days ago is removed.",
    )


def posts_asset(sites: Sequence[str], *, sites_file: str = "") -> dg.AssetsDefinition:
    """Returns the asset `posts`, fed by the crawl of each of `sites`."""

    @dg.asset(
        name="posts",
        deps=[dg.AssetKey(["crawl", site]) for site in sites],
        group_name="dataset",
        kinds={"parquet"},
        owners=OWNERS,
        pool="home",
        description=(
            "One row for each post of a board or an import, kept or dropped and why.\n\n"
            "**From** the ledger that the crawls and `omokage import` write; the policy and the "
            "takedown list are applied again at every build.\n\n"
            "**Lies in** `posts.lance`.\n\n"
            "**If it is wrong:** `refused` below counts the drop reasons. Too many `rating` or "
            "`tag_…`: the search words of the crawl ask for the wrong thing. `not_fetched`: crawl "
            "again. A post that must go: `omokage takedown add`, then `omokage takedown apply`. "
            "Where ledger and `blobs/` do not belong together the build stops and says what to do."
        ),
        tags=tags_of("dataset", needs="cpu"),
        metadata={
            "dagster/column_schema": column_schema(POSTS),
            "dagster/column_lineage": POSTS_LINEAGE,
        },
    )
    def posts(
        context: dg.AssetExecutionContext, config: PostsConfig, store: StoreResource
    ) -> dg.MaterializeResult:
        watch = Stopwatch()
        check_boards(context)
        opened = store.open()
        with store.exclusive(), plain_failures():
            made = export_posts(
                opened,
                sites,
                registry=load_sites(sites_file or None),
                refetch_missing=config.refetch_missing,
                trash_orphans=config.trash_orphans,
                trash_days=config.trash_days,
            )
            preview = inline(_sheet(opened, made.path, made.kept))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": made.rows,
                "dagster/uri": opened.url(made.path),
                "kept": made.kept,
                "kept_frac": round(made.kept / made.rows, 4),
                "refused": reasons(made.refused),
                "boards": boards_table(made.boards),
                "requeued": made.requeued,
                "orphans_removed": made.swept,
                "seconds": watch.seconds,
                "path": dg.MetadataValue.path(opened.url(made.path)),
                "digest": made.digest,
                "preview": preview,
            },
            data_version=dg.DataVersion(made.digest),
        )

    return posts


def _sheet(store: Store, path: str, kept: int) -> Image.Image:
    """Lays out a few of the kept pictures, evenly taken from the whole table."""
    columns = ("sha256", "ext", "drop_reason")
    parts = batches(store, path, declared=POSTS, columns=columns)
    of_kept = (part.filter(pc.is_null(part["drop_reason"])) for part in parts)
    shown = evenly(of_kept, kept, shown=PREVIEWED)
    return blob_sheet(store, [(row["sha256"], row["ext"]) for row in shown], columns=8)
