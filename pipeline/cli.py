"""The command line `omokage`: the demo, the chain, servers, a crawl, a home's state, and more."""

import importlib
import os
import sys
from pathlib import Path

import click

from dataset.errors import OmokageError
from pipeline.commands import home_option, minutes_option
from pipeline.servers import POSTS
from pipeline.settings import BOARD_PORT, STAGES, Settings, read_settings, variables_of_runs

INTERRUPTED = 130
# The modules under pipeline/commands of the other commands, their names there, and what they do, as
# their docstrings say. Some import Dagster or torch, which takes seconds: each is loaded when it is
# called, and none for the help of all.
MODULES = {
    "champions": (
        "promotion:champions_command",
        "List who was champion: when, from which version to which, by whom, and why.",
    ),
    "compare": (
        "generators:compare",
        "Train families and settings side by side on one face set, and report.",
    ),
    "edit": (
        "pictures:edit",
        "Cut, turn, scale and recolour pictures, in the order of the options below.",
    ),
    "evaluate": (
        "generators:evaluate",
        "Measure a generator against the faces that no training saw.",
    ),
    "export": (
        "faces:export",
        "Write the training set with its pictures as files, to train elsewhere.",
    ),
    "faces": (
        "faces:faces",
        "Find faces on pictures of your own.",
    ),
    "gc": (
        "generators:gc",
        "Show which trainings, manifests, packs, evaluations and runs nothing needs, or remove "
        "them.",
    ),
    "import": (
        "importing:import_command",
        "Take your own pictures in: a dump of Danbooru's metadata, or a folder or zip.",
    ),
    "import-weights": (
        "importing:import_weights_command",
        "Take public StyleGAN2 weights in: a .pt of rosinality's port, a .pkl of NVIDIA's.",
    ),
    "ledger": (
        "ledger:ledger",
        "Look into a home's ledger, take refusals back, restore a backup.",
    ),
    "lineage": (
        "takedown:lineage",
        "Say which models saw a picture, and which pictures made a model.",
    ),
    "move": (
        "ledger:move",
        "Copy a home's data to another place, such as a bucket, and say how to use it there.",
    ),
    "promote": (
        "promotion:promote",
        "Make a version champion if it beats the champion on equal terms.",
    ),
    "review": (
        "faces:review",
        "Show the crops that are least likely to be faces, and reject some, or undo that.",
    ),
    "rollback": (
        "promotion:rollback_command",
        "Give the champion's alias back to the version that had it before.",
    ),
    "sample": (
        "sample:sample",
        "Draw with the champion: a grid, or tables, films and more by its own commands.",
    ),
    "studio": (
        "sample:studio",
        "Open the page where people draw, play and finish; Ctrl-C closes it.",
    ),
    "takedown": (
        "takedown:takedown",
        "Take pictures down: all that was made of them, here, in MLflow and in Dagster.",
    ),
    "train": (
        "generators:train",
        "Train a generator on the newest face set; the same command again resumes.",
    ),
    "upscale": (
        "pictures:upscale",
        "Make pictures 2x or 4x larger, on one core and without a GPU.",
    ),
}

pictures_option = click.option(
    "--pictures",
    default="",
    metavar="PATH",
    help="Serve this folder or zip with a tags.csv instead of drawn characters.",
)
posts_option = click.option(
    "--posts",
    default=POSTS,
    show_default=True,
    type=click.IntRange(40, 1_000_000),
    help="How many posts the demo board draws.",
)


class Commands(click.Group):
    """The commands of this file, and those of `pipeline/commands`, loaded when they are wanted."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes a line a command, without loading any."""
        ours = {name: command.get_short_help_str(200) for name, command in self.commands.items()}
        rows = sorted({**ours, **{name: does for name, (_, does) in MODULES.items()}}.items())
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *MODULES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command of that name, None if there is none."""
        if cmd_name not in MODULES:
            return super().get_command(ctx, cmd_name)
        module, _, name = MODULES[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"pipeline.commands.{module}"), name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="omokage")
def cli() -> None:
    """Turns booru crawls into anime-avatar generators, tracked and promoted in MLflow."""


@cli.command()
@home_option
@pictures_option
@click.option("--cropped", is_flag=True, help="The pictures are faces already: take them whole.")
@posts_option
@minutes_option("4, unless --config has a preset or a length for the generator")
@click.option(
    "--config",
    "config_file",
    default="",
    metavar="FILE",
    help="YAML of stage: {key: value}, laid over the demo's own settings.",
)
def demo(
    home: str, pictures: str, cropped: bool, posts: int, minutes: float | None, config_file: str
) -> None:
    """Run the whole chain once, against a board on this machine.

    Example: omokage demo --pictures faces.zip --cropped --minutes 10
    """
    from pipeline.demo import run_demo  # Dagster is slow to import

    run_demo(
        demo_settings(home, pictures),
        pictures=pictures,
        cropped=cropped,
        posts=posts,
        minutes=minutes,
        config_file=config_file,
    )


@cli.command()
@home_option
@click.option(
    "--until",
    default=STAGES[-1],
    show_default=True,
    metavar="STAGE",
    type=click.Choice(STAGES),
    help=f"The last stage to run: {', '.join(STAGES)}.",
)
@click.option(
    "--config",
    "config_file",
    default="",
    metavar="FILE",
    help="YAML of stage: {key: value}, laid over the stages' defaults.",
)
def run(home: str, until: str, config_file: str) -> None:
    """Build a face set of what the home holds, train on it, evaluate and promote.

    Imported and crawled posts are taken; a site is crawled only if OMOKAGE_SITES names it. The
    generator's preset is demo, minutes on two cores; --config names another, such as
    `generator: {preset: omokage}`. What is up to date is used again. Stopped, the same command
    goes on.

    Example: omokage run --until manifest
    """
    from pipeline.demo import run_home  # Dagster is slow to import

    run_home(read_settings(home=home), until=until, config_file=config_file)


@cli.command()
@home_option
@pictures_option
@posts_option
@click.option("--dagster-port", default=3000, show_default=True, help="Port of the Dagster UI.")
@click.option("--mlflow-port", default=5000, show_default=True, help="Port of the MLflow UI.")
@click.option("--board-port", default=BOARD_PORT, show_default=True, help="Port of the demo board.")
@click.option("--studio-port", default=7860, show_default=True, help="Port of the studio's page.")
def up(
    home: str,
    pictures: str,
    posts: int,
    dagster_port: int,
    mlflow_port: int,
    board_port: int,
    studio_port: int,
) -> None:
    """Start Dagster, MLflow's server, the demo board and the studio; Ctrl-C ends all."""
    from pipeline.up import run_up

    run_up(
        demo_settings(home, pictures),
        dagster_port=dagster_port,
        mlflow_port=mlflow_port,
        board_port=board_port,
        studio_port=studio_port,
        pictures=pictures,
        posts=posts,
    )


@cli.command()
@click.option("--all", "every", is_flag=True, help="Those that are not set here too.")
def env(every: bool) -> None:
    """Print the names of the variables that a run needs, a line each: of those that are set.

    For the `env_vars` of Dagster's launchers, which start runs in containers.

    Example: omokage env
    """
    from pipeline.build import enabled_sites  # Dagster is slow to import

    sites = enabled_sites(read_settings())
    credentials = [name for site in sites for name in site.credentials.values()]
    for name in variables_of_runs(credentials):
        if every or os.environ.get(name):
            click.echo(name)


@cli.command()
@home_option
@click.option("--site", required=True, metavar="NAME", help="A site of the registry.")
@click.option("--tags", default="", metavar="WORDS", help="Search words in the board's language.")
@click.option("--limit", default=0, type=click.IntRange(0), help="Posts to look at; 0: all.")
@click.option("--sites", "sites_file", default="", metavar="FILE", help="A site registry of yours.")
@click.option("--refetch-missing", is_flag=True, help="Lost pictures of the board come again.")
def crawl(
    home: str, site: str, tags: str, limit: int, sites_file: str, refetch_missing: bool
) -> None:
    """Crawl one board: new posts into the ledger, their pictures among the blobs.

    Example: OMOKAGE_CONTACT=you@example.org omokage crawl --site safebooru_donmai --tags 1girl
    """
    from crawlers.run import main as run_crawl

    settings = read_settings(home=home)
    registry = sites_file or settings.sites_file
    # --tags in one word: a search may begin with a dash
    arguments = ["--site", site, f"--tags={tags}", "--limit", str(limit), "--home", settings.home]
    arguments += ["--refetch-missing"] if refetch_missing else []
    sys.exit(run_crawl([*arguments, *(["--sites", registry] if registry else [])]))


@cli.command()
@home_option
def status(home: str) -> None:
    """Say how far the chain has come, and who is champion."""
    from pipeline.status import status_lines

    click.echo("\n".join(status_lines(read_settings(home=home))))


def demo_settings(home: str, pictures: str) -> Settings:
    """Returns the settings of a demo: each collection of pictures has a home of its own."""
    settings = read_settings(home=home)
    if pictures and not home and settings.home == str(Path("var").resolve()):
        return read_settings(home=f"var-{Path(pictures).stem}")
    return settings


def main() -> None:
    """Runs the command line; a fault of the user's is a line and an exit code, no traceback."""
    try:
        cli.main(standalone_mode=False)
    except OmokageError as error:
        click.echo(f"omokage: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("omokage: stopped. The same command goes on where this ended.", err=True)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
