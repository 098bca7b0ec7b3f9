"""Crawls: one asset for each enabled site of the registry, each a child process."""

import dagster as dg
from pydantic import Field

from assets.reporting import OWNERS, blob_sheet, inline, plain_failures, reasons, tags_of
from assets.resources import ChildProcess, StoreResource
from crawlers.cursor import MIN_RECHECKED_POSTS, RECHECK_DAYS, RECHECK_FRAC
from crawlers.ledger import Ledger
from crawlers.sites import Site
from dataset.store import Store

PREVIEWED = 16


class CrawlConfig(dg.Config):
    """What to ask the board for."""

    tags: str = Field(
        default="",
        description="Search words in the board's own language, such as `1girl solo`. Empty (the "
        "default) asks for all posts; that they are rated safe is asked for and checked in any "
        "case. Each search goes on where it stopped, apart from the others.",
    )
    limit: int = Field(
        default=0,
        ge=0,
        description="Posts to look at in this run, then it stops and the next run goes on. 0 (the "
        "default) looks at all that there are; a first try on a large board wants some 500.",
    )
    recheck_days: int = Field(
        default=RECHECK_DAYS,
        ge=0,
        description="Posts of so many days are read again by every crawl: those that their board "
        "has rated, tagged or deleted anew since are judged anew.",
    )
    recheck_frac: float = Field(
        default=RECHECK_FRAC,
        ge=0.0,
        le=1.0,
        description="Share of the older posts that is read again per day, in turn (1/30: all of "
        f"them in a month), and at least {MIN_RECHECKED_POSTS:,} of a search by each crawl. 0: "
        "none.",
    )


def crawl_asset(site: Site, *, sites_file: str = "") -> dg.AssetsDefinition:
    """Returns the asset that crawls one site: key `crawl/<site>`."""

    @dg.asset(
        key=["crawl", site.name],
        group_name="crawl",
        kinds={"scrapy", "sqlite"},
        owners=OWNERS,
        # Of the board, not the site: its sites share rows, cursor and rate limit of the ledger.
        pool=f"board_{site.board}",
        description=(
            f"New posts of **{site.name}** (`{site.api}`, {site.family}): their records and their "
            "pictures. Only pictures that are rated safe are stored. Goes on where the last crawl "
            "stopped, and first reads again what was taken: a post that the board has rated, "
            "tagged or deleted anew is judged anew (`rechecked_changed`), one that it lacks is "
            "refused as `gone_on_board`.\n\n"
            "**From** the board's published API, at the pace that the site registry names.\n\n"
            "**Lies in** `ledger.sqlite` (a row a post) and `blobs/ab/cd/<sha256>.<ext>` (the "
            "originals, their md5 verified).\n\n"
            "**If it is wrong:** a board that refuses (401, 403) stops the crawl at once: read its "
            "rules and set the contact or the key that it asks for. Whatever else fails may be run "
            "again. `quarantined` records cannot be used; `quarantine.jsonl` in the home says why. "
            "A picture that must go: `omokage takedown add`, then `omokage takedown apply`."
        ),
        tags=tags_of("crawling", needs="network"),
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
        arguments += ["--recheck-days", str(config.recheck_days)]
        arguments += ["--recheck-frac", str(config.recheck_frac)]
        arguments += ["--sites", sites_file] if sites_file else []
        made = child.run(context, arguments)
        return dg.MaterializeResult(
            metadata={
                "seen": made["seen"],
                "kept": made["kept"],
                "refused": reasons(made["refused"]),
                "put_off": made["put_off"],
                "quarantined": made["quarantined"],
                "refused_posts": sum(made["refused"].values()),
                **_rechecked(made["rechecked"]),
                "downloaded_mb": round(made["bytes"] / 1e6, 3),
                "api_requests": made["api_requests"],
                "media_requests": made["media_requests"],
                "seconds": made["seconds"],
                "posts_per_second": round(made["seen"] / max(made["seconds"], 1e-3), 1),
                "reused": made["seen"] == 0,
                "preview": _newest(store.open(), site.board),
            }
        )

    return crawl


def _rechecked(counts: dict[str, int]) -> dict[str, int]:
    """What came of the posts that were read again; a first crawl reads none."""
    return {f"rechecked_{name}": count for name, count in counts.items() if counts["requests"]}


def _newest(store: Store, board: str) -> dg.MarkdownMetadataValue:
    """Shows the newest pictures that the ledger has of a board."""
    with Ledger.of(store) as ledger:
        blobs = ledger.newest_kept(board, PREVIEWED)
    return inline(blob_sheet(store, [(blob.sha256, blob.ext) for blob in blobs], columns=8))
