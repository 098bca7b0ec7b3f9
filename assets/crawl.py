"""Crawls: one asset for each enabled site of the registry, each a child process."""

import dagster as dg
from pydantic import Field

from assets.faults import plain_failures
from assets.previews import blob_sheet, inline
from assets.resources import ChildProcess, StoreResource
from assets.tables import OWNERS, reasons
from crawlers.ledger import Ledger
from crawlers.sites import Site
from dataset.store import Store

PREVIEWED = 16


class CrawlConfig(dg.Config):
    """What to ask the board for."""

    tags: str = Field(
        default="", description="Search words in the board's own language, such as `1girl`."
    )
    limit: int = Field(default=0, ge=0, description="Stop after this many posts seen; 0: no limit.")


def crawl_asset(site: Site, *, sites_file: str = "") -> dg.AssetsDefinition:
    """Returns the asset that crawls one site: key `crawl/<site>`."""

    @dg.asset(
        key=["crawl", site.name],
        group_name="crawl",
        kinds={"scrapy", "sqlite"},
        owners=OWNERS,
        description=(
            f"New posts of **{site.name}** (`{site.api}`, {site.family}): their records in the "
            "ledger, their pictures among the blobs. Only pictures that are rated safe are "
            "stored. Goes on where the last crawl stopped."
        ),
        op_tags={"omokage/stage": "crawl"},
    )
    def crawl(
        context: dg.AssetExecutionContext,
        config: CrawlConfig,
        store: StoreResource,
        child: ChildProcess,
    ) -> dg.MaterializeResult:
        with plain_failures():
            store.open().check_writable()
        arguments = ["-m", "crawlers.run", "--site", site.name, "--home", store.root]
        arguments += [f"--tags={config.tags}"]  # one word: a search may begin with a dash
        arguments += ["--limit", str(config.limit)] if config.limit else []
        arguments += ["--sites", sites_file] if sites_file else []
        made = child.run(context, arguments)
        return dg.MaterializeResult(
            metadata={
                "seen": made["seen"],
                "kept": made["kept"],
                "refused": reasons(made["refused"]),
                "put_off": made["put_off"],
                "downloaded": dg.MetadataValue.text(f"{made['bytes'] / 1e6:,.1f} MB"),
                "bytes": made["bytes"],
                "api_requests": made["api_requests"],
                "media_requests": made["media_requests"],
                "seconds": made["seconds"],
                "posts_per_second": round(made["seen"] / max(made["seconds"], 1e-3), 1),
                "reused": made["seen"] == 0,
                "preview": _newest(store.open(), site.board),
            }
        )

    return crawl


def _newest(store: Store, board: str) -> dg.MarkdownMetadataValue:
    """Shows the newest pictures that the ledger has of a board."""
    with Ledger.of(store) as ledger:
        blobs = ledger.newest_kept(board, PREVIEWED)
    return inline(blob_sheet(store, [(blob.sha256, blob.ext) for blob in blobs], columns=8))
