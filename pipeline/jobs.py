"""Jobs: the chain and its parts, a comparison, and those that move the champion for a person."""

import functools
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from PIL import Image
from pydantic import Field

from assets.comparison import FOLDER, carried_out, prepared, reported
from assets.evaluation import evaluate
from assets.reporting import inline, plain_failures
from assets.resources import ChildProcess, StoreResource, TrackingResource
from dataset.errors import RegistryError, UsageError
from dataset.store import Store
from models.comparison.sets import SETS, WHAT, Choice
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
from pipeline.retention import gc_job

ENTRANT = "entrant"
OPS = ("plan", ENTRANT, "report")
_SETS = "; ".join(f"{name} ({WHAT[name]})" for name in SETS)


class EntrantConfig(dg.Config):
    """An entrant of one's own."""

    preset: str = Field(description="Settings to begin with: a name in models/presets.py.")
    overrides: dict[str, str] = Field(
        default={}, description='Settings to change, such as {"g_width": "0.5"}.'
    )


class CompareConfig(dg.Config):
    """Who takes part, for how long, and how it is measured."""

    sets: list[str] = Field(default=[], description=f"Built-in sets of entrants: {_SETS}.")
    entrants: dict[str, EntrantConfig] = Field(
        default={},
        description="Entrants of your own by name, beside those of the sets, such as "
        '{"wide": {"preset": "dcgan64-small", "overrides": {"g_width": "0.5"}}}.',
    )
    minutes: float = Field(
        default=0.0,
        ge=0.0,
        description="Equal time: so many minutes of training for each, without start-up, scores "
        "and measuring. Either this or kimg is above 0.",
    )
    kimg: float = Field(
        default=0.0,
        ge=0.0,
        description="Equal pictures: so many thousand real pictures shown to each. A loss with "
        "several steps of D for one of G shows it as many for each step of G.",
    )
    clock: str = Field(
        default="wall",
        description="What minutes counts: wall, or processor, the processor time of the training, "
        "which other work on the machine does not shorten (CPU only).",
    )
    overrides: dict[str, str] = Field(
        default={},
        description='Settings of all entrants, such as {"device": "cpu", "threads": "1"}; an '
        "entrant's own go before them.",
    )
    manifest: str = Field(default="", description="Digest of the face set; empty is the newest.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="The seed of every training.")
    score_pictures: int = Field(
        default=500,
        ge=0,
        le=100_000,
        description="Fakes that each snapshot is scored on, for the curves; 0 draws none.",
    )
    fakes: int = Field(default=1000, ge=8, le=100_000, description="Fakes in a set to measure.")
    repeats: int = Field(
        default=5, ge=1, le=20, description="Sets of fakes, for the spread of the distance."
    )
    extractor: str = Field(
        default="auto",
        description="Network whose features are compared, as of the asset evaluation; auto is one "
        "whose features no entrant's training saw. Entrants are ranked only if all were measured "
        "by one such.",
    )
    psi: float = Field(
        default=1.0,
        ge=0,
        le=2,
        description="Truncation of the fakes: less is nearer to typical faces, and less varied.",
    )
    measure_again: bool = Field(
        default=False,
        description="Measure what is trained already once more, such as by a newer protocol; also "
        "tries those that failed.",
    )


@dg.op(name=OPS[0], out=dg.DynamicOut(dict, description="A comparison's id and an entrant."))
def plan(
    context: dg.OpExecutionContext,
    config: CompareConfig,
    store: StoreResource,
    tracking: TrackingResource,
) -> Iterator[dg.DynamicOutput[dict[str, str]]]:
    """Checks the whole configuration and yields a step for each entrant; trains nothing yet."""
    from models.comparison.plan import Budget, planned  # imports torch

    with plain_failures():
        chosen = planned(
            config.sets,
            [Choice(n, one.preset, _texts(one.overrides)) for n, one in config.entrants.items()],
            budget=Budget(config.minutes, config.kimg, config.clock),
            seed=config.seed,
            score_pictures=config.score_pictures,
            overrides=_texts(config.overrides),
        )
        facts = {
            name: getattr(config, name)
            for name in ("sets", "seed", "fakes", "repeats", "psi", "measure_again")
        }
        folder = prepared(
            store.open(),
            tracking.open(),
            chosen,
            manifest=config.manifest,
            facts={**facts, "extractor": chosen.extractor(config.extractor)},
            dagster_run=context.run.run_id,
        )
    name_of = folder.removeprefix(f"{FOLDER}/")
    context.log.info(f"comparison {name_of}: {len(chosen.entrants)} entrants, {chosen.budget}")
    for number, entrant in enumerate(chosen.entrants, 1):
        yield dg.DynamicOutput(
            {"comparison": name_of, "entrant": entrant.name},
            mapping_key=f"{number:02}_{re.sub('[^a-z0-9]', '_', entrant.name)}",
        )


@dg.op(name=OPS[1], pool="gpu")
def entrant(
    context: dg.OpExecutionContext,
    chosen: dict[str, Any],
    store: StoreResource,
    child: ChildProcess,
    tracking: TrackingResource,
) -> str:
    """Trains and measures one entrant in child processes; what is done is not done again.

    Returns the comparison's id. An entrant that fails is a row of the report.
    """
    with plain_failures():
        carried_out(
            context,
            store,
            child,
            tracking=tracking.open(),
            folder=f"{FOLDER}/{chosen['comparison']}",
            name=chosen["entrant"],
        )
    return str(chosen["comparison"])


@dg.op(name=OPS[2])
def report(
    context: dg.OpExecutionContext,
    done: list[str],
    store: StoreResource,
    tracking: TrackingResource,
) -> str:
    """Writes table, curves and grids, and reports them as `comparison`; returns its id."""
    reported(context, store.open(), tracking.open(), f"{FOLDER}/{done[0]}")
    return done[0]


@dg.job(
    name="compare",
    description="Train families and settings side by side on one manifest, at equal time or on "
    "equally many pictures, measure them alike, and report: a table, curves, grids. What was done "
    "before is not done again.",
    # What the launchpad opens with: six families, half an hour.
    config={"ops": {OPS[0]: {"config": {"sets": ["families"], "minutes": 5.0}}}},
)
def compare() -> None:
    """Plan, then each entrant, then the report."""
    report(plan().map(entrant).collect())


def _texts(overrides: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in overrides.items())


class PromoteConfig(dg.Config):
    """Which version, and whether the gate decides."""

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
    extractor: str = Field(
        default="",
        description="Network whose features both versions are measured by; empty: as in the "
        "version's last evaluation.",
    )
    repeats: int = Field(
        default=0,
        ge=0,
        le=20,
        description="Sets of fakes that both versions are measured on, 2 or more; 0: as in the "
        "version's last evaluation.",
    )


class RollbackConfig(dg.Config):
    """Why the champion is taken back."""

    reason: str = Field(default="", description="Why, in a sentence of yours; goes into the tags.")


class SheetConfig(dg.Config):
    """Whose sheet."""

    version: str = Field(default="", description="Number of a version; empty: the champion's.")


def promotion_by_person(
    context: Any,
    child: ChildProcess,
    store: Store,
    tracking: TrackingClient,
    *,
    version: str,
    force: bool,
    reason: str,
    extractor: str = "",
    repeats: int = 0,
) -> Outcome:
    """Promotes as a person asks; version "" is the newest. Raises UsageError, RegistryError.

    context: of the op that asks; None for a child that needs none. extractor, repeats: of the
    protocol; "" and 0: as in the version's last evaluation.
    """
    if force != bool(reason.strip()):
        raise UsageError("--force and --reason TEXT go together: why is the gate not asked?")
    chosen = wanted_version(tracking, version or newest_version(tracking))
    number, lock = str(chosen.version), lock_folder(store)
    if force:
        return promote_anyway(tracking, lock, number, reason=reason.strip())
    options = {"extractor": extractor, "repeats": repeats}
    measure = on_todays_terms(
        functools.partial(evaluate, context, child),
        store,
        tracking,
        chosen,
        options={name: value for name, value in options.items() if value},
    )
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
        outcome = promotion_by_person(
            context,
            child,
            opened,
            registry,
            version=config.version,
            force=config.force,
            reason=config.reason,
            extractor=config.extractor,
            repeats=config.repeats,
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


DATASET = dg.AssetSelection.groups("crawl", "dataset")
TRAINING = dg.AssetSelection.groups("training", "evaluation", "registry")

everything = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.all(),
    description="Crawl, crop, label, pack, train, judge, register: the whole chain, in one run.",
)

refresh_dataset = dg.define_asset_job(
    "refresh_dataset",
    selection=DATASET,
    description="Take new posts in and build the training set again; trains nothing.",
)

train_and_judge = dg.define_asset_job(
    "train_and_judge",
    selection=TRAINING,
    description="Train on the training set as it is, judge the generator, move the alias if won.",
)

JOBS: list[Any] = [
    everything,
    refresh_dataset,
    train_and_judge,
    compare,
    *PROMOTION_JOBS,
    gc_job,
]
