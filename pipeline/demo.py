"""Runs the chain in this process: on what a home holds, or as the demo, with a board beside it."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from crawlers.ledger import Ledger
from crawlers.ledger_file import FILE as LEDGER
from crawlers.sites import load_sites
from dataset.errors import ConfigError, EmptyStageError, OmokageError, UsageError
from dataset.store import Store
from pipeline.automation.cron import DEFAULT_REFRESH
from pipeline.build import build_defs
from pipeline.commands import as_typed, home_words
from pipeline.instance import (
    DEMO_TAGS,
    alone_in,
    demo_instance,
    explained_databases,
    in_words,
    pools_of,
    prepare_home,
    run_in_pools,
)
from pipeline.run_config import DEMO_SITE, demo_run_config, ops_of, read_config
from pipeline.servers import (
    board_server,
    board_url,
    check_same_collection,
    free_port,
    interruptible,
    running,
    wait_for_board,
)
from pipeline.settings import CRAWL, STAGES, TRAINING_STAGES, Settings
from pipeline.status import champion_lines, status_lines, training_lines


def run_demo(
    settings: Settings,
    *,
    pictures: str,
    cropped: bool,
    posts: int,
    minutes: float | None,
    config_file: str,
) -> None:
    """Runs the chain on the drawn characters, or on a user's `pictures`; raises OmokageError.

    What an earlier run finished and nothing has changed since is used again. minutes: of training;
    None: see `demo_run_config`.
    """
    if pictures and not Path(pictures).exists():
        raise UsageError(f"--pictures: {pictures} is not there; a folder or a zip file wanted")
    config = demo_run_config(cropped=cropped, config_file=config_file, minutes=minutes)
    began = time.monotonic()
    store = prepare_home(settings)
    check_same_collection(store, pictures)
    port = free_port()
    board = board_server(store, pictures=pictures, posts=posts, port=port)
    here = settings.model_copy(update={"sites": (DEMO_SITE,), "board_url": board_url(port)})
    with alone_in(store), interruptible(), running([board]):
        total = wait_for_board(board, here.board_url)
        print(f"The demo board serves {total:,} posts at {here.board_url}", file=sys.stderr)
        failed = _run_chain(here, config["ops"], sites=here.sites)
    print("\n".join(_farewell(here, store, time.monotonic() - began, failed)))


def run_home(settings: Settings, *, until: str = STAGES[-1], config_file: str = "") -> None:
    """Runs the chain on what the home holds; raises OmokageError.

    Only the sites that OMOKAGE_SITES names are crawled: none unless it is set. What an earlier run
    finished and nothing has changed since is used again. until: the last stage to run. config_file:
    YAML of `stage: {key: value}`, over the stages' defaults.
    """
    began = time.monotonic()
    crawled = settings.sites if "sites" in settings.model_fields_set else ()
    if until == CRAWL and not crawled:
        raise UsageError("--until crawl: OMOKAGE_SITES names no site, so there is none to crawl")
    here = settings if crawled else _of_its_boards(settings)
    config = read_config(config_file, sites=here.sites) if config_file else {}
    store = prepare_home(here)
    ops = ops_of(config, STAGES[: STAGES.index(until) + 1], sites=crawled)
    with alone_in(store), interruptible():
        failed = _run_chain(here, ops, sites=crawled, until=until)
    print("\n".join(_farewell(here, store, time.monotonic() - began, failed, until=until)))


def _of_its_boards(settings: Settings) -> Settings:
    """Returns the settings with the sites whose posts the home's ledger holds.

    Raises EmptyStageError if it has no ledger, ConfigError for a board of no known site.
    """
    store = settings.store
    if not store.state.exists(LEDGER):
        home, omokage = home_words(settings), as_typed()
        raise EmptyStageError(
            f"{settings.home} holds no posts yet. Take pictures in with `{omokage} import folder "
            f"PATH{home}`, or crawl a board with `{omokage} crawl --site NAME{home}`"
        )
    # Not `Ledger.of`: a build with refetch_missing is the way out where blobs/ is lost.
    with Ledger(store.state.local(LEDGER)) as ledger:
        boards = set(ledger.boards()) - set(ledger.imports())
    known = load_sites(settings.sites_file or None).values()
    if unknown := boards - {site.board for site in known}:
        raise ConfigError(
            f"{settings.home} holds posts of {', '.join(sorted(unknown))}, which no site of the "
            "registry shows: name yours with OMOKAGE_SITES_FILE, or with OMOKAGE_SITES the sites "
            "to crawl and build from"
        )
    sites = tuple(site.name for site in known if site.board in boards)
    # What OMOKAGE_REFRESH and OMOKAGE_AUTO_CONFIG say of other sites is for runs on a schedule.
    changed = {"sites": sites or settings.sites, "refresh": DEFAULT_REFRESH, "auto_config": ""}
    return settings.model_copy(update=changed)


def _run_chain(
    settings: Settings, ops: dict[str, Any], *, sites: Sequence[str], until: str = STAGES[-1]
) -> list[str]:
    """Crawls the sites and materialises the stages up to `until`, in one run.

    Returns a line for each check that failed without stopping the run.
    """
    stages = STAGES[: STAGES.index(until) + 1]
    assets = [*([CRAWL, site] for site in sites), *(one for one in stages if one != CRAWL)]
    result = run_job(settings, "everything", ops, assets)
    checks = result.get_asset_check_evaluations()
    return [f"{one.check_name}: {one.description}" for one in checks if not one.passed]


def run_job(
    settings: Settings,
    name: str,
    ops: dict[str, Any],
    assets: Sequence[str | Sequence[str]] = (),
) -> dg.ExecuteInProcessResult:
    """Runs a job in this process, a line per stage; raises OmokageError in the words of a failure.

    ops: run configuration of its ops. assets: keys of those of the job to materialise, () for all.
    Raises UsageError while a run from elsewhere, such as a schedule's, needs the same pools.
    """
    os.environ.update(settings.environment())  # for libraries in this process, such as MLflow
    job = build_defs(settings=settings).resolve_job_def(name)
    keys = {dg.AssetKey(asset) for asset in assets} or None
    with explained_databases(settings), demo_instance() as instance:
        # It would wait for a slot, perhaps for days, without a word in this terminal.
        if busy := run_in_pools(instance, pools_of(job.get_subset(asset_selection=keys))):
            raise UsageError(
                f"{in_words(busy)} is at work in {settings.home}; wait for it, or end it in the "
                f"Dagster UI: {as_typed()} up{home_words(settings)}"
            )
        result = job.execute_in_process(
            run_config={"ops": ops, "loggers": {"stages": {"config": {}}}},
            asset_selection=sorted(keys) if keys else None,
            tags=DEMO_TAGS,
            instance=instance,
            raise_on_error=False,
        )
    check_success(result)
    return result


def check_success(result: dg.ExecuteInProcessResult) -> None:
    """Raises what a run that did not succeed means: KeyboardInterrupt, or OmokageError."""
    if any(map(was_interrupted, result.all_events)):
        raise KeyboardInterrupt
    if not result.success:
        raise OmokageError(failure_text(result))


def was_interrupted(event: dg.DagsterEvent) -> bool:
    """Tells whether the event is of a step that a Ctrl-C ended."""
    error = event.step_failure_data.error if event.is_step_failure else None
    return error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    """Returns why a run failed, in the words of the check or the stage that failed."""
    for check in result.get_asset_check_evaluations():
        if not check.passed and check.blocking:
            return f"{check.check_name}: {check.description}"
    for event in result.all_events:
        if event.is_step_failure:
            return f"{event.step_key}: {_words_of(event, result.run_id)}"
    return f"run {result.run_id} did not succeed; the Dagster UI shows its events"


def _words_of(event: dg.DagsterEvent, run_id: str) -> str:
    data = event.step_failure_data
    words = data.user_failure_data.description if data.user_failure_data else None
    if words:
        return words
    error = data.error.cause if data.error and data.error.cause else data.error
    said = error.message.strip() if error else "no message"
    return f"{said}\nThe whole traceback is in the Dagster UI, run {run_id}."


def _farewell(
    settings: Settings, store: Store, took_s: float, failed: list[str], *, until: str = STAGES[-1]
) -> list[str]:
    home, omokage = home_words(settings), as_typed()
    trained = until in TRAINING_STAGES
    lines = [*training_lines(store), *champion_lines(settings)] if trained else []
    following = (
        f"Draw more:   {omokage} sample --labels blonde_hair,blue_eyes --n 16{home}"
        if trained
        else f"Go on:       {omokage} run{home}"
    )
    return [
        "",
        f"Done in {took_s / 60:.1f} minutes.",
        *(lines or status_lines(settings)),
        f"everything {settings.home}"
        + (f" and {settings.data}" if settings.data != settings.home else ""),
        *(["", "Checks that failed:", *(f"  ! {line}" for line in failed)] if failed else []),
        "",
        f"See it all:  {omokage} up{home}",
        "             opens the Dagster UI at http://127.0.0.1:3000, the MLflow UI at "
        "http://127.0.0.1:5000",
        "             and the studio, where people draw, at http://127.0.0.1:7860",
        following,
    ]
