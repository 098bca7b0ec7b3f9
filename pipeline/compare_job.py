"""The job `compare`: plans a comparison, trains and measures each entrant, and reports.

A job of ops and not of assets: what takes part is chosen run by run, and "Materialize all" must
never start it. Each entrant is a step of its own, so that a retry does only what has failed.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from assets.comparison import FOLDER, carried_out, prepared, reported
from assets.reporting import plain_failures
from assets.resources import ChildProcess, StoreResource, TrackingResource
from models.comparison.sets import SETS, WHAT, Choice

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
    """Checks all that was asked for, and yields a step for each entrant; trains nothing yet."""
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
        facts = {name: getattr(config, name) for name in ("sets", "seed", "fakes", "repeats")}
        folder = prepared(
            store.open(),
            tracking.open(),
            chosen,
            manifest=config.manifest,
            facts={**facts, "measure_again": config.measure_again},
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
)
def compare() -> None:
    """Plan, then each entrant, then the report."""
    report(plan().map(entrant).collect())


def _texts(overrides: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in overrides.items())
