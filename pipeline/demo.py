"""The demo: starts the board, runs the whole chain in this process, and says where things are."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from dataset.errors import OmokageError, UsageError
from dataset.store import Store
from pipeline.build import build_defs
from pipeline.instance import (
    DEMO_TAGS,
    alone_in,
    demo_instance,
    explained_databases,
    prepare_home,
)
from pipeline.run_config import DEMO_SITE, demo_run_config
from pipeline.servers import (
    board_server,
    board_url,
    check_same_collection,
    free_port,
    interruptible,
    running,
    wait_for_board,
)
from pipeline.settings import Settings
from pipeline.status import champion_lines, training_lines


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
        run_job(here, "everything", config["ops"])
    took = time.monotonic() - began
    print("\n".join(_farewell(here, store, took)))


def run_job(
    settings: Settings, name: str, ops: dict[str, Any], assets: Sequence[str] = ()
) -> dg.ExecuteInProcessResult:
    """Runs a job in this process, a line per stage; raises OmokageError in the words of a failure.

    ops: run configuration of its ops. assets: names of those of the job to materialise, () for all.
    """
    job = build_defs(settings=settings).resolve_job_def(name)
    with explained_databases(settings), demo_instance() as instance:
        result = job.execute_in_process(
            run_config={"ops": ops, "loggers": {"stages": {"config": {}}}},
            asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
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


def _farewell(settings: Settings, store: Store, took_s: float) -> list[str]:
    home, omokage = home_words(settings), as_typed()
    return [
        "",
        f"Done in {took_s / 60:.1f} minutes.",
        *training_lines(store),
        *champion_lines(settings),
        f"everything {settings.home}",
        "",
        f"See it all:  {omokage} up{home}",
        "             opens the Dagster UI at http://127.0.0.1:3000, the MLflow UI at "
        "http://127.0.0.1:5000",
        "             and the studio, where people draw, at http://127.0.0.1:7860",
        f"Draw more:   {omokage} sample --labels blonde_hair,blue_eyes --n 16{home}",
    ]


def home_words(settings: Settings) -> str:
    """Returns what a person adds to a command for this home: ` --home DIR`, or nothing."""
    return "" if settings.home == str(Path("var").resolve()) else f" --home {settings.home}"


def as_typed() -> str:
    """Returns how a person would type the program that runs: omokage, or its path from here."""
    program = Path(sys.argv[0])
    if program.suffix == ".py":
        return "python -m pipeline.cli"
    if shutil.which(program.name) == str(program):
        return program.name
    here = Path.cwd()
    return str(program.relative_to(here) if program.is_relative_to(here) else program)
