"""`omokage compare`: trains families and settings side by side, and prints the table."""

from typing import TYPE_CHECKING, Any

import click

from dataset.errors import OmokageError
from models.comparison.sets import SETS, WHAT, read_choices
from pipeline.commands.options import home_option
from pipeline.settings import Settings, read_settings

if TYPE_CHECKING:
    import dagster as dg

_KNOWN = "\b\nSets:\n" + "\n".join(f"  {name:<16} {WHAT[name]}" for name in SETS)


@click.command(epilog=_KNOWN)
@home_option
@click.option("--manifest", default="", metavar="DIGEST", help="The face set (default: newest).")
@click.option(
    "--set", "sets", multiple=True, metavar="NAME", help="A built-in set, as often as wanted."
)
@click.option(
    "--entrant",
    "entrants",
    multiple=True,
    metavar="NAME=PRESET,KEY=VALUE,…",
    help="An entrant of your own, as often as wanted.",
)
@click.option("--minutes", default=0.0, type=click.FloatRange(0), help="Equal training time.")
@click.option("--kimg", default=0.0, type=click.FloatRange(0), help="Or equally many pictures.")
@click.option(
    "--clock",
    default="wall",
    show_default=True,
    type=click.Choice(["wall", "processor"]),
    help="What minutes counts; processor time on a shared CPU.",
)
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of all entrants, such as threads=1.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option(
    "--score-pictures",
    default=500,
    show_default=True,
    type=click.IntRange(0, 100_000),
    help="Fakes of a curve's point; 0 draws no curves.",
)
@click.option(
    "--fakes",
    default=1000,
    show_default=True,
    type=click.IntRange(8, 100_000),
    help="Fakes in a set to measure.",
)
@click.option(
    "--repeats",
    default=5,
    show_default=True,
    type=click.IntRange(1, 20),
    help="Sets of fakes, for the spread of the distance.",
)
@click.option("--measure-again", is_flag=True, help="Measure what is trained already once more.")
def compare(home: str, sets: tuple[str, ...], entrants: tuple[str, ...], **options: Any) -> None:
    """Train families and settings side by side on one face set, and report.

    \b
    Examples:
      omokage compare --set families --minutes 5
      omokage compare --kimg 50 --entrant a=dcgan64-small --entrant b=dcgan64-small,batch=64
    """  # noqa: D301 (\b is the character by which click keeps lines apart)
    chosen = read_choices(entrants)
    settings = read_settings(home=home)
    overrides = {text.partition("=")[0]: text.partition("=")[2] for text in options["overrides"]}
    config = {
        **options,
        "overrides": overrides,
        "sets": list(sets),
        "entrants": {
            one.name: {
                "preset": one.preset,
                "overrides": dict(text.partition("=")[::2] for text in one.overrides),
            }
            for one in chosen
        },
    }
    click.echo(run_compare(settings, config))


def run_compare(settings: Settings, config: dict[str, Any]) -> str:
    """Runs the job `compare` in this process and returns the table and where the report lies.

    Raises OmokageError in the words of the step that failed.
    """
    # Dagster is slow to import, and --help needs none of it.
    from assets.comparison import FOLDER, REPORT, RESULTS
    from models.comparison.report import table
    from pipeline.build import build_defs
    from pipeline.instance import (
        DEMO_TAGS,
        alone_in,
        demo_instance,
        explained_databases,
        prepare_home,
    )
    from pipeline.processes import interruptible

    store = prepare_home(settings)
    job = build_defs(settings=settings).resolve_job_def("compare")
    with (
        alone_in(store),
        interruptible(),
        explained_databases(settings),
        demo_instance() as instance,
    ):
        result = job.execute_in_process(
            run_config={
                "ops": {"plan": {"config": config}},
                "loggers": {"stages": {"config": {}}},
            },
            tags=DEMO_TAGS,
            instance=instance,
            raise_on_error=False,
        )
    check_success(result)
    folder = f"{FOLDER}/{result.output_for_node('report')}"
    shown = table(store.read_json(f"{folder}/{RESULTS}")["entrants"])
    return f"{shown}\n\nThe report, with curves and grids: {store.url(f'{folder}/{REPORT}')}"


def check_success(result: "dg.ExecuteInProcessResult") -> None:
    """Raises what a run that did not succeed means: KeyboardInterrupt, or OmokageError."""
    from pipeline.demo import failure_text, was_interrupted

    if any(map(was_interrupted, result.all_events)):
        raise KeyboardInterrupt
    if not result.success:
        raise OmokageError(failure_text(result))
