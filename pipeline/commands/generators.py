"""`omokage train` and `evaluate`: one generator; `compare` several; `gc` removes old ones."""

import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from dataset.errors import RegistryError, UsageError
from dataset.store import Store
from models.comparison.sets import SETS, WHAT, read_choices
from pipeline.commands import as_typed, home_option, home_words, minutes_option
from pipeline.settings import KEEP, Settings, read_settings, tracking_client

CHAMPION = "models:/avatar-generator@champion"
_URI = re.compile(r"models:/[^/@]+(?:@[^/@]+|/\d+)|runs:/[0-9a-f]{32}/\S+|models:/m-[0-9a-f]{32}")
PICTURES = ("fakes_grid", "reals_grid", "neighbours_grid", "truncation_chart", "labels_chart")


@click.command()
@click.argument("generator", default=CHAMPION)
@home_option
@click.option("--manifest", default="", metavar="DIGEST", help="The face set (default: newest).")
@click.option(
    "--fakes", default=1000, show_default=True, type=click.IntRange(4), help="Fakes in a set."
)
@click.option(
    "--repeats", default=5, show_default=True, type=click.IntRange(1), help="Sets of fakes."
)
@click.option(
    "--extractor",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="efficientnet_lite0, efficientnet_lite2, or inception for an FID; auto is "
    "efficientnet_lite0, or the second for a generator trained on its features.",
)
@click.option("--weights", default="", metavar="FILE", help="Weights of the extractor inception.")
@click.option("--out", default="", metavar="FILE.json", help="Write the numbers there as well.")
def evaluate(
    generator: str,
    *,
    home: str,
    manifest: str,
    fakes: int,
    repeats: int,
    extractor: str,
    weights: str,
    out: str,
) -> None:
    """Measure a generator against the faces that no training saw.

    GENERATOR is a folder (of a training, a generator or a checkpoint), an id under generators/, or
    a registered model: models:/avatar-generator@champion (the default), models:/NAME/3 or
    runs:/ID/generator. Stopped, the same command goes on.

    \b
    Examples:
      omokage evaluate
      omokage evaluate models:/avatar-generator/2 --fakes 10000
      omokage evaluate runs/first --repeats 3 --out first.json
    """  # noqa: D301 (\b is the character by which click keeps lines apart)
    from models.evaluate import options_of, run
    from models.io.entry_point import Stopped  # imports torch

    settings = read_settings(home=home)
    options = ["--home", settings.home, f"--fakes={fakes}", f"--repeats={repeats}"]
    options += [f"--extractor={extractor}", f"--weights={weights}"]
    options += ["--manifest", manifest] if manifest else []
    with tempfile.TemporaryDirectory(prefix="omokage-model-") as place:
        folder = _folder(settings, generator, Path(place))
        try:
            made = run(options_of([*options, "--generator", folder]), lambda _payload: None)
        except Stopped as stopped:
            click.echo(f"omokage: {stopped}", err=True)
            sys.exit(128 + stopped.signum)
    store = settings.store
    click.echo("\n".join(table(made)))
    for name in ("evaluation", *PICTURES):
        path = f"{made['folder']}/evaluation.json" if name == "evaluation" else made.get(name)
        if path:
            click.echo(f"{name.replace('_', ' '):<22}{store.url(path)}")
    if out:
        target = Path(out).absolute()
        text = json.dumps(made, indent=2, sort_keys=True) + "\n"
        Store(target.parent).write_bytes(target.name, text.encode(), durable=False)


def table(made: Mapping[str, Any]) -> list[str]:
    """Returns an evaluation's numbers as lines: what was found, its noise, what to hold it against.

    What has no meaning for the generator is left out.
    """
    return [f"{'':<28}{'found':>9}{'sigma':>9}  beside", *_rows(made)]


def _rows(made: Mapping[str, Any]) -> Iterator[str]:
    metric, kernel = made["metric"], made["kernel_metric"]
    reals, at = "training reals", f"_at{made['protocol']['reference_px']}"
    rows = [
        (metric, made[metric], made["sigma"], _beside(made["real_fd"], reals)),
        (f"{metric}{at}", made[f"{metric}{at}"], None, _beside(made[f"real_fd{at}"], reals)),
        (f"joint_{metric}", made[f"joint_{metric}"], None, "with the labels asked for"),
        (kernel, made[kernel], made[f"{kernel}_sigma"], _kernel(made, kernel)),
        (f"{kernel}{at}", made[f"{kernel}{at}"], None, _kernel(made, f"{kernel}{at}")),
        ("precision", made["precision"], made["precision_sigma"], _real(made, "precision")),
        ("recall", made["recall"], made["recall_sigma"], _real(made, "recall")),
        ("coverage", made["coverage"], made["coverage_sigma"], _real(made, "coverage")),
        ("spread", made["spread"], made["spread_sigma"], _real(made, "spread")),
        (
            "spread_within_labels",
            made["spread_within_labels"],
            made["spread_within_labels_sigma"],
            _real(made, "spread_within_labels"),
        ),
        (
            "label_ap",
            made["label_ap"],
            made["label_ap_sigma"],
            f"{_beside(made['real_label_ap'], 'reals')}, {_beside(made['label_chance'], 'chance')}",
        ),
        ("flip_success", made["flip_success"], None, "0.5000 by chance"),
        ("memory_ratio", made["memory_ratio"], None, "1 like unseen faces, 0 copies"),
        ("copied_frac", made["copied_frac"], None, "0.01 for unseen faces"),
        (
            "hair_colour_hits",
            made["hair_colour_hits"],
            None,
            _beside(made["real_hair_colour_hits"], "reals"),
        ),
    ]
    for name, found, sigma, beside in rows:
        if found is not None:
            noise = "" if sigma is None else f"{sigma:.4f}"
            yield f"{name:<28}{found:>9.4f}{noise:>9}  {beside}"
    yield (
        f"{made['fakes']:,} fakes x {made['repeats']} against {made['reference_rows']:,} faces of "
        f"{made['resolution_px']} px, manifest {made['manifest_digest'][:12]}, "
        f"protocol {made['protocol_digest'][:12]}"
    )


def _kernel(made: Mapping[str, Any], name: str) -> str:
    return f"0 for equal sets, standard error {made[f'{name}_se']:.4f}"


def _real(made: Mapping[str, Any], name: str) -> str:
    return _beside(made[f"real_{name}"], "training reals")


def _beside(value: float | None, what: str) -> str:
    return "" if value is None else f"{value:.4f} {what}"


def _folder(settings: Settings, generator: str, place: Path) -> str:
    """Returns the folder of what is to be measured; a registered model is fetched into `place`.

    Raises UsageError for what is neither, RegistryError if MLflow has no such model.
    """
    if re.match(r"[a-z]+:/", generator) and not re.match(r"[a-z0-9]+://", generator):
        return _downloaded(settings, generator, place)
    store = settings.store
    if "://" in generator:
        return generator
    for path in (generator, f"generators/{generator}"):
        if not generator.startswith(("/", ".")) and store.exists(path):
            return path
    if Path(generator).exists():
        return str(Path(generator).resolve())
    raise UsageError(
        f'there is no generator "{generator}": neither a folder, nor under {settings.home}, nor '
        f"under its generators/, nor a model URI such as {CHAMPION}"
    )


def _downloaded(settings: Settings, uri: str, place: Path) -> str:
    if not _URI.fullmatch(uri):
        raise UsageError(
            f'"{uri}" is no model URI: {CHAMPION}, models:/NAME/3 or runs:/ID/generator wanted'
        )
    from models.registry.model_uri import shown_uri

    tracking = tracking_client(settings)
    if not tracking.database_exists():
        raise RegistryError(
            f"{shown_uri(settings.tracking_uri)} has no model {uri} yet: `make demo` makes one"
        )
    return str(tracking.fetch_model(uri, place))


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
@click.option(
    "--extractor",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Network whose features are compared, as of `omokage evaluate`; auto is one for all, "
    "whose features no entrant's training saw.",
)
@click.option(
    "--psi",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 2),
    help="Truncation of the fakes: less is nearer to typical faces, and less varied.",
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
    from pipeline.demo import run_job
    from pipeline.instance import alone_in, prepare_home
    from pipeline.servers import interruptible

    store = prepare_home(settings)
    with alone_in(store), interruptible():
        result = run_job(settings, "compare", {"plan": {"config": config}})
    folder = f"{FOLDER}/{result.output_for_node('report')}"
    shown = table(store.read_json(f"{folder}/{RESULTS}")["entrants"])
    return f"{shown}\n\nThe report, with curves and grids: {store.url(f'{folder}/{REPORT}')}"


@click.command()
@home_option
@click.option(
    "--preset",
    default="demo",
    show_default=True,
    metavar="NAME",
    help="Settings to begin with: a family, <family>-small, <family>-smoke, omokage-night or demo.",
)
@minutes_option("of the preset's own length")
@click.option(
    "--set",
    "settings_set",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting to change, as often as wanted.",
)
def train(home: str, preset: str, minutes: float | None, settings_set: tuple[str, ...]) -> None:
    """Train a generator on the newest face set; the same command again resumes.

    Some seconds after the first step it says how many pictures the time will come to. The training
    is the asset `generator`: its MLflow run has curves and grids, and it is the home's newest.

    \b
    Examples:
      omokage train --preset omokage-small --minutes 10
      omokage train --preset dcgan64 --set total_kimg=500 --set batch=32
    """  # noqa: D301 (\b is the character by which click keeps lines apart)
    # Dagster is slow to import, and --help needs none of it.
    from dataset.takedown import CURRENT_GENERATOR
    from pipeline.demo import run_job
    from pipeline.instance import alone_in, prepare_home
    from pipeline.run_config import for_minutes
    from pipeline.servers import interruptible
    from pipeline.status import training_lines

    if wrong := [text for text in settings_set if "=" not in text]:
        raise UsageError(f'--set {wrong[0]}: key=value wanted, such as "batch=32"')
    overrides = dict(text.split("=", 1) for text in settings_set)
    config = {"preset": preset, "overrides": for_minutes(minutes, overrides)}
    settings = read_settings(home=home)
    store = prepare_home(settings)
    with alone_in(store), interruptible():
        run_job(settings, "train_and_judge", {"generator": {"config": config}}, ["generator"])
    folder, words = store.read_json(CURRENT_GENERATOR)["folder"], home_words(settings)
    click.echo("\n".join(training_lines(store)))
    click.echo(f"\nMeasure it:  {as_typed()} evaluate {folder}{words}")
    click.echo(f"Draw:        {as_typed()} sample grid --generator {store.url(folder)}")


@click.command()
@home_option
@click.option(
    "--keep",
    default=KEEP,
    show_default=True,
    type=click.IntRange(1),
    help="So many of the newest trainings, manifests and runs of each job stay.",
)
@click.option("--apply", is_flag=True, help="Remove it; otherwise it is shown and nothing changes.")
def gc(home: str, *, keep: int, apply: bool) -> None:
    """Show which trainings, manifests, packs, evaluations and runs nothing needs, or remove them.

    What the champion, the version before it, the newest trainings and manifests, and comparisons
    need stays, and so does all of the last day. Pictures, faces and registered models always stay.
    Interrupted, the same command goes on.

    \b
    Examples:
      omokage gc
      omokage gc --keep 10 --apply
    """  # noqa: D301 (\b is the character by which click keeps lines apart)
    # Dagster is slow to import, and --help needs none of it.
    from pipeline.instance import DAGSTER_YAML, opened_instance
    from pipeline.retention import Garbage, nobody_at_work

    settings = read_settings(home=home)
    os.environ.update(settings.environment())  # MLflow reads its own from there
    store, tracking = settings.store, tracking_client(settings)
    known = tracking if tracking.database_exists() else None
    with contextlib.ExitStack() as held:
        instance = None
        if (Path(settings.dagster_home) / DAGSTER_YAML).exists():
            instance = held.enter_context(opened_instance(settings.dagster_home))
        if apply:
            held.enter_context(nobody_at_work(store, instance))
        found = Garbage.of(store, known, instance, keep=keep)
        click.echo("\n".join(found.lines()))
        if not apply:
            size_mb = sum(one.size_bytes for one in found.going) / 1e6
            words = f"{len(found.going):,} to remove, {size_mb:,.1f} MB"
            click.echo(f"{words}. Nothing was changed: --apply removes them.")
            return
        found.remove()
    click.echo(f"{found.removed.total():,} removed, {found.freed_bytes / 1e6:,.1f} MB freed")
    for words in found.refused:
        click.echo(f"not removed: {words}", err=True)
