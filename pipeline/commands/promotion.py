"""`omokage promote`, `rollback` and `champions`: who draws for everybody, and why."""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence

import click

from dataset.errors import RegistryError
from dataset.store import Store
from models.registry.client import TrackingClient
from models.registry.gate import MeasuredVersion, high_water_marks
from models.registry.model_uri import shown_uri
from models.registry.pages import SHEET, champion_sheet, distance_in_words
from models.registry.promotion import (
    CHAMPION,
    Outcome,
    champions,
    lock_folder,
    rollback,
    wanted_version,
)
from models.registry.promotion_log import DONE, Promotion, newest_champions
from pipeline.commands import home_option
from pipeline.settings import Settings, computing_environment, read_settings, tracking_client


@click.command()
@home_option
@click.argument("version", default="", metavar="[VERSION]")
@click.option("--force", is_flag=True, help="Make it champion without asking the gate.")
@click.option("--reason", default="", metavar="TEXT", help="Why; wanted with --force.")
@click.option(
    "--extractor", default="", metavar="NAME", help="Measure both by it (default: as last time)."
)
@click.option(
    "--repeats",
    default=None,
    metavar="SETS",
    type=click.IntRange(2, 20),
    help="Measure both on so many sets of fakes (default: as last time).",
)
def promote(
    home: str, version: str, *, force: bool, reason: str, extractor: str, repeats: int | None
) -> None:
    """Make a version champion if it beats the champion on equal terms.

    VERSION is a number of MLflow's registry (default: the newest that was not rolled back). What
    has not been measured on the newest manifest is measured now. Twice changes nothing.

    \b
    Examples:
      omokage promote
      omokage promote 3 --extractor inception
      omokage promote 3 --force --reason "prettier eyes"
    """  # noqa: D301 (\b is the character by which click keeps lines apart)
    from assets.resources import TerminalChild  # Dagster is slow to import
    from pipeline.jobs import promotion_by_person

    settings, tracking = _registry(home)
    store = settings.store
    child = TerminalChild(environment=settings.environment(), computing=computing_environment())
    outcome = promotion_by_person(
        None,
        child,
        store,
        tracking,
        version=version,
        force=force,
        reason=reason,
        extractor=extractor,
        repeats=repeats or 0,
    )
    _tell(store, tracking, outcome)


@click.command("rollback")
@home_option
@click.option("--reason", default="", metavar="TEXT", help="Why; it goes into the version's tags.")
def rollback_command(home: str, reason: str) -> None:
    """Give the champion's alias back to the version that had it before.

    The gate lets the version that is left alone from then on. Twice changes nothing.

    Example: omokage rollback --reason "green skin"
    """
    settings, tracking = _registry(home)
    store = settings.store
    _tell(store, tracking, rollback(tracking, lock_folder(store), reason=reason.strip()))


@click.command("champions")
@home_option
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a move.")
def champions_command(home: str, as_json: bool) -> None:
    """List who was champion: when, from which version to which, by whom, and why.

    The newest comes first. Below stand the high-water marks: the best that any champion had on the
    newest manifest and protocol, which the next version is held against. In JSON each move has the
    marks that it left.

    Example: omokage champions --json | head -1
    """
    _, tracking = _registry(home)
    moves = champions(tracking)
    distances = {str(one.version): distance_in_words(one.tags) for one in tracking.versions({})}
    for place, move in enumerate(moves):
        distance = distances.get(move.to, "")
        if as_json:
            click.echo(_json_line(move, distance, newest_champions(moves[place:][::-1])))
        else:
            click.echo(_in_words(move, distance))
    if moves and not as_json:
        click.echo("\n".join(_marks_in_words(newest_champions(moves[::-1]))))
    now = tracking.aliases().get(CHAMPION, "")
    if now != (moves[0].to if moves else ""):
        click.echo(f"version {now or '(none)'} has the alias now, set by hand in MLflow", err=True)
    elif not moves:
        click.echo("there was no champion yet: make demo", err=True)


def _registry(home: str) -> tuple[Settings, TrackingClient]:
    settings = read_settings(home=home)
    os.environ.update(settings.environment())  # MLflow reads its own from there
    # A person waits: the seven tries of MLflow's default take four minutes where a server is down.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    tracking = tracking_client(settings)
    if not tracking.database_exists():
        raise RegistryError(
            f"{shown_uri(settings.tracking_uri)} has no registry yet: `make demo` makes one"
        )
    return settings, tracking


def _tell(store: Store, tracking: TrackingClient, outcome: Outcome) -> None:
    """Says what came of it, and draws the sheet of a new champion."""
    if not outcome.moved:
        click.echo(f"nothing changed: {outcome.reason}")
        return
    click.echo(f"version {outcome.champion} is champion: {outcome.reason}")
    try:
        champion_sheet(store, tracking, wanted_version(tracking, outcome.champion))
    except RegistryError as error:  # the move stands all the same
        click.echo(f"no fresh {SHEET}: {error}", err=True)
    else:
        click.echo(f"its grid   {store.url(SHEET)}")


def _in_words(move: Promotion, distance: str) -> str:
    when = f"{move.at[:10]} {move.at[11:16]}"
    way = f"{move.source or '(none)'} → {move.to or '(none)'}"
    unfinished = "" if move.state == DONE else " (begun; the next command finishes it)"
    return f"{when}  {way:<12} {move.by:<9} {distance:<30} {move.reason}{unfinished}"


def _marks_in_words(held: Sequence[MeasuredVersion]) -> Iterator[str]:
    if not held:
        yield "no high-water marks: they begin with the champion's numbers when next challenged"
        return
    manifest, protocol = (digest[:12] for digest in held[0].terms)
    yield f"high-water marks on manifest {manifest} by protocol {protocol}"
    for mark in high_water_marks(held):
        noise = f"± {mark.standard_error:.2g}" if mark.standard_error else ""
        yield f"  {mark.name:<32} {mark.value:<10.4g} {noise:<10} version {mark.version}"


def _json_line(move: Promotion, distance: str, held: Sequence[MeasuredVersion]) -> str:
    marks = [dataclasses.asdict(mark) for mark in high_water_marks(held)]
    facts = {"number": move.number, "distance": distance, **json.loads(move.to_json())}
    return json.dumps({**facts, "marks": marks}, ensure_ascii=False)
