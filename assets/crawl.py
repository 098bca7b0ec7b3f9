"""Crawls: one asset for each enabled site of the registry, each a child process.

In a run of several boards one that fails stops no other: its crawl ends with `failed` in its
metadata, `posts` is built from the rest, and the check `answers` fails the run. In a run of one,
and on every board of a run, a failure stops at once.
"""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from assets.reporting import (
    OWNERS,
    blob_sheet,
    inline,
    materialised,
    plain_failures,
    reasons,
    tags_of,
)
from assets.resources import ChildProcess, StoreResource
from crawlers.cursor import MIN_RECHECKED_POSTS, RECHECK_DAYS, RECHECK_FRAC
from crawlers.ledger import Ledger
from crawlers.sites import Site
from dataset.errors import CrawlError, listed
from dataset.store import Store

PREVIEWED = 16
STAGE = {"omokage/stage": "crawl"}
KIND = CrawlError.__name__  # of the failure, for its report
ANSWERS = "answers"  # the check of each crawl
IN_TERMINAL = "omokage/demo"  # tag of the runs of commands, before which a person waits
# For an outage; for some minutes the crawl itself waits and retries. Not the policy of the asset:
# Dagster (1.13) would let that retry a crawl that a person cancels, too.
RETRIES = dg.RetryPolicy(max_retries=2, delay=600, backoff=dg.Backoff.EXPONENTIAL)  # 10, 30 minutes


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
        op_tags=STAGE,
    )
    def crawl(
        context: dg.AssetExecutionContext,
        config: CrawlConfig,
        store: StoreResource,
        child: ChildProcess,
    ) -> dg.MaterializeResult:
        with plain_failures():
            opened = store.open()
            opened.check_writable()
        arguments = ["-m", "crawlers.run", "--site", site.name, "--home", opened.state.root]
        arguments += [f"--tags={config.tags}"]  # one word: a search may begin with a dash
        arguments += ["--limit", str(config.limit)] if config.limit else []
        arguments += ["--recheck-days", str(config.recheck_days)]
        arguments += ["--recheck-frac", str(config.recheck_frac)]
        arguments += ["--sites", sites_file] if sites_file else []
        try:
            made = child.run(context, arguments, environment=opened.variables())
        except dg.Failure as failure:
            return _failed(context, failure)
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


def _failed(context: dg.AssetExecutionContext, failure: dg.Failure) -> dg.MaterializeResult:
    """Returns what a board that failed leaves in a run of several; raises the failure elsewhere.

    Raised, it is tried again if a wait may mend it, but for a run of a command.
    """
    may_mend = "transient" in failure.metadata and bool(failure.metadata["transient"].value)
    tried = context.retry_number
    if may_mend and IN_TERMINAL not in context.run.tags and tried < RETRIES.max_retries:
        wait_s = RETRIES.calculate_delay(tried + 1)
        raise dg.RetryRequested(RETRIES.max_retries, wait_s) from failure
    words = failure.description or "it says nothing more"
    steps = context.run.step_keys_to_execute
    crawls = [node.name for node in context.job_def.nodes if STAGE.items() <= node.tags.items()]
    if len([name for name in crawls if steps is None or name in steps]) < 2:
        raise dg.Failure(words, metadata={**failure.metadata, "kind": KIND}, allow_retries=False)
    context.log.warning(f"the other boards go on without it: {words}")
    return dg.MaterializeResult(metadata={"failed": words, **failure.metadata})


def crawl_check(site: Site) -> dg.AssetChecksDefinition:
    """Returns the check `answers` of a site's crawl, which fails its run if the board failed."""
    key = dg.AssetKey(["crawl", site.name])
    spec = dg.AssetCheckSpec(
        ANSWERS,
        asset=key,
        description="The board let itself be crawled to the end. If not, the other boards of the "
        "run go on without it, and the run fails when they are done.",
    )

    @dg.multi_asset_check(name=f"crawl__{site.name}__{ANSWERS}", specs=[spec])
    def answers(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        made = materialised(context.instance, context.run, key) or {}
        words = made.get("failed")
        yield dg.AssetCheckResult(
            check_name=ANSWERS,
            asset_key=key,
            passed=words is None,
            severity=dg.AssetCheckSeverity.ERROR,
            description=words or "The board answered to the end.",
        )
        if words is not None:
            raise dg.Failure(words, metadata={"kind": KIND}, allow_retries=False)

    return answers


def check_boards(context: dg.AssetExecutionContext) -> None:
    """Raises dg.Failure if this run has crawled and every board failed."""
    log = context.instance.all_logs(
        context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    made = [entry.asset_materialization for entry in log]
    crawls = [one for one in made if one and one.asset_key.path[0] == "crawl"]
    failed = [str(one.metadata["failed"].value) for one in crawls if "failed" in one.metadata]
    if crawls and len(failed) == len(crawls):
        raise dg.Failure(
            f"every board failed, so there is nothing new to build:\n{listed(failed)}",
            metadata={"kind": KIND},
            allow_retries=False,
        )


def _rechecked(counts: dict[str, int]) -> dict[str, int]:
    """What came of the posts that were read again; a first crawl reads none."""
    return {f"rechecked_{name}": count for name, count in counts.items() if counts["requests"]}


def _newest(store: Store, board: str) -> dg.MarkdownMetadataValue:
    """Shows the newest pictures that the ledger has of a board."""
    with Ledger.of(store) as ledger:
        blobs = ledger.newest_kept(board, PREVIEWED)
    return inline(blob_sheet(store, [(blob.sha256, blob.ext) for blob in blobs], columns=8))
