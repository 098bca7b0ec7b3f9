"""Jobs that move the champion's alias for a person, and the one that draws its sheet anew."""

import functools
import io
from typing import Any

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.evaluation import evaluate
from assets.reporting import inline, plain_failures
from assets.resources import ChildProcess, StoreResource, TrackingResource
from dataset.errors import RegistryError, UsageError
from dataset.store import Store
from models.registry.client import TrackingClient
from models.registry.pages import champion_sheet
from models.registry.promotion import (
    CHAMPION,
    Outcome,
    lock_folder,
    newest_version,
    promote,
    promote_anyway,
    rollback,
    wanted_version,
)
from models.registry.versions import on_todays_terms


class PromoteConfig(dg.Config):
    """Which version, and whether the gate is asked."""

    version: str = Field(
        default="",
        description="Number of a version of the registered model; empty: the newest one that was "
        "not rolled back.",
    )
    force: bool = Field(
        default=False,
        description="true makes it champion without asking the gate; the reason is recorded.",
    )
    reason: str = Field(
        default="", description="Why, in a sentence of yours; wanted with force, unused without."
    )


class RollbackConfig(dg.Config):
    """Why the champion is taken back."""

    reason: str = Field(default="", description="Why, in a sentence of yours; goes into the tags.")


class SheetConfig(dg.Config):
    """Whose sheet."""

    version: str = Field(default="", description="Number of a version; empty: the champion's.")


def asked_promotion(
    context: Any,
    child: ChildProcess,
    store: Store,
    tracking: TrackingClient,
    *,
    version: str,
    force: bool,
    reason: str,
) -> Outcome:
    """Promotes as a person asks; version "" is the newest. Raises UsageError, RegistryError.

    context: of the op that asks; None for a child that needs none.
    """
    if force != bool(reason.strip()):
        raise UsageError("--force and --reason TEXT go together: why is the gate not asked?")
    chosen = wanted_version(tracking, version or newest_version(tracking))
    number, lock = str(chosen.version), lock_folder(store)
    if force:
        return promote_anyway(tracking, lock, number, reason=reason.strip())
    measure = on_todays_terms(functools.partial(evaluate, context, child), store, tracking, chosen)
    return promote(tracking, lock, number, measure=measure)


@dg.op(
    name="ask_the_gate", description="Asks the gate about a version, and moves the alias if it won."
)
def promote_op(
    context: dg.OpExecutionContext,
    config: PromoteConfig,
    store: StoreResource,
    child: ChildProcess,
    tracking: TrackingResource,
) -> None:
    """Promotes, and draws the new champion's sheet."""
    opened, registry = store.open(), tracking.open()
    with plain_failures():
        outcome = asked_promotion(
            context,
            child,
            opened,
            registry,
            version=config.version,
            force=config.force,
            reason=config.reason,
        )
    _tell(context, opened, registry, outcome)


@dg.op(name="roll_back", description="Gives the alias back to the version that had it before.")
def rollback_op(
    context: dg.OpExecutionContext,
    config: RollbackConfig,
    store: StoreResource,
    tracking: TrackingResource,
) -> None:
    """Rolls back, and draws the champion's sheet."""
    opened, registry = store.open(), tracking.open()
    with plain_failures():
        outcome = rollback(registry, lock_folder(opened), reason=config.reason)
    _tell(context, opened, registry, outcome)


@dg.op(name="draw_sheet", description="Draws a fresh sample sheet of the champion.")
def champion_sheet_op(
    context: dg.OpExecutionContext,
    config: SheetConfig,
    store: StoreResource,
    tracking: TrackingResource,
) -> None:
    """Draws the sheet to champion.png and into the version's MLflow run."""
    opened, registry = store.open(), tracking.open()
    with plain_failures():
        number = config.version or registry.aliases().get(CHAMPION, "")
        if not number:
            raise RegistryError(f"{registry.model} has no {CHAMPION}; promote a version first")
        sheet = champion_sheet(opened, registry, wanted_version(registry, number))
    metadata = _sheet_metadata(opened, registry, number, sheet)
    context.log_event(dg.AssetObservation(CHAMPION, metadata=metadata))
    context.add_output_metadata(metadata)


def _tell(
    context: dg.OpExecutionContext, store: Store, tracking: TrackingClient, outcome: Outcome
) -> None:
    """Puts what came of it onto the run; a sheet that cannot be drawn takes no move back."""
    context.log.info(outcome.reason)
    metadata: dict[str, Any] = {
        "moved": outcome.moved,
        "champion_version": outcome.champion or "none",
        "reason": outcome.reason,
    }
    if outcome.moved:
        try:
            version = wanted_version(tracking, outcome.champion)
            sheet = champion_sheet(store, tracking, version)
            metadata |= _sheet_metadata(store, tracking, outcome.champion, sheet)
        except RegistryError as error:
            context.log.warning(f"no fresh sheet: {error}")
            metadata["no_sheet"] = str(error)
        context.log_event(dg.AssetObservation(CHAMPION, metadata=metadata))
    context.add_output_metadata(metadata)


def _sheet_metadata(
    store: Store, tracking: TrackingClient, number: str, sheet: bytes
) -> dict[str, Any]:
    return {
        "version": number,
        "sheet": dg.MetadataValue.path(store.url("champion.png")),
        "version_page": dg.MetadataValue.url(tracking.version_url(number)),
        "preview": inline(Image.open(io.BytesIO(sheet))),
    }


@dg.job(
    name="promote",
    description="Measure a version against the champion and make it champion if it won; with "
    "force, without asking. Twice changes nothing.",
)
def promote_job() -> None:
    """Asks the gate about one version."""
    promote_op()


@dg.job(
    name="rollback",
    description="Give the champion's alias back to the version before. Twice changes nothing.",
)
def rollback_job() -> None:
    """Takes the last promotion back."""
    rollback_op()


@dg.job(
    name="champion_sheet",
    description="Draw a fresh sample sheet of the champion, after its alias was moved by hand.",
)
def champion_sheet_job() -> None:
    """Draws one sheet."""
    champion_sheet_op()


PROMOTION_JOBS = [promote_job, rollback_job, champion_sheet_job]
