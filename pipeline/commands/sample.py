"""`omokage sample` and `omokage studio`: drawing with the champion, by commands and on a page."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dataset.errors import RegistryError, UsageError
from dataset.store import Store
from models.registry.model_uri import CHAMPION_URI
from pipeline.commands import home_option
from pipeline.settings import Settings, read_settings

TOOLS = {
    "grid": "Draw a grid, with all of its options.",
    "table": "Draw a table: labels down, seeds across.",
    "morph": "Draw a film, or a strip, from one avatar or label set to another.",
    "loop": "Draw a film of avatars that wander and come back.",
    "sweep": "Draw an avatar with one number of its latent swept.",
    "mix": "Draw the coarse styles of some avatars with the fine styles of others.",
}
PROG = "omokage sample"
SEED_MAX = 2**62 - 1  # as of the tools below and of the model in MLflow


@click.group(invoke_without_command=True)
@home_option
@click.option("--labels", default="", metavar="A,B", help="Label names (default: as they come).")
@click.option("--n", default=16, show_default=True, type=click.IntRange(1, 1024), help="Pictures.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, SEED_MAX))
@click.option(
    "--psi",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 2),
    help="Truncation: 1 is full variety, 0 the mean face.",
)
@click.option("--columns", default=8, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--out", default="sample.png", show_default=True, metavar="FILE", help="PNG to write."
)
@click.pass_context
def sample(
    context: click.Context,
    home: str,
    labels: str,
    n: int,
    seed: int,
    psi: float,
    columns: int,
    out: str,
) -> None:
    """Draw with the champion: a grid, or tables, films and more by its own commands.

    \b
    Examples:
      omokage sample --labels blonde_hair,blue_eyes --n 16 --out blonde.png
      omokage sample morph --seed 3 --to-seed 7 --out morph.mp4
    """  # noqa: D301 (\b is the character by which click keeps lines apart)
    if context.invoked_subcommand is not None:
        _refuse_options_before(context, context.invoked_subcommand)
        return
    from studio.model_source import champion_grid  # imports torch

    target = Path(out).absolute()
    settings = settings_of(home)
    with champion_there(settings):
        content = champion_grid(
            settings.tracking_uri, labels, n=n, seed=seed, psi=psi, columns=columns
        )
    Store(target.parent).write_bytes(target.name, content, durable=False)
    click.echo(f"{out}: {n} pictures, seeds {seed} to {seed + n - 1}")


def settings_of(home: str) -> Settings:
    """Returns the settings for a home, after its own MLflow database has followed the home."""
    from models.registry.client import relocate

    settings = read_settings(home=home)
    if settings.is_tracked_here:
        relocate(settings.own_database)
    return settings


@contextlib.contextmanager
def champion_there(settings: Settings) -> Iterator[None]:
    """Raises RegistryError, with what to do, if there is no champion or MLflow is another."""
    from models.registry.model_uri import ModelNotFoundError, OtherSchemaError, schema_remedy

    try:
        yield
    except OtherSchemaError as error:
        raise RegistryError(schema_remedy(error.__cause__, settings.tracking_uri)) from error
    except ModelNotFoundError as error:
        raise RegistryError(
            f"{settings.tracking_uri} has no champion yet: `make demo` makes one; or name a "
            "folder with --generator, as in `omokage sample grid --generator FOLDER`"
        ) from error


def _tool(name: str, purpose: str) -> click.Command:
    """Makes the command that hands its words to the tool of that name in `models.sample`."""

    @click.command(
        name,
        help=purpose,
        add_help_option=False,  # the tool's own help says more
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True},
    )
    @home_option
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def run(context: click.Context, home: str, words: tuple[str, ...]) -> None:
        from models.sample import main  # imports torch
        from studio.model_source import champion_folder

        home = home or (context.parent.params["home"] if context.parent else "")

        asks_nothing = any(
            word in ("-h", "--help", "--generator") or word.startswith("--generator=")
            for word in words
        )
        if asks_nothing:
            sys.exit(main([name, *words], prog=PROG, generator="champion"))
        settings = settings_of(home)
        with champion_there(settings), champion_folder(settings.tracking_uri) as folder:
            sys.exit(main([name, *words], prog=PROG, generator=folder))

    return run


def _refuse_options_before(context: click.Context, command: str) -> None:
    given = [
        f"--{name}"
        for name in context.params
        if name != "home"
        and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)} must stand behind the command: {command} …")


for _name, _purpose in TOOLS.items():
    sample.add_command(_tool(_name, _purpose))


@click.command()
@home_option
@click.option(
    "--uri",
    default="",
    metavar="URI",
    help=f"Model to draw with: an alias is followed when it moves (default: {CHAMPION_URI}).",
)
@click.option(
    "--generator",
    default="",
    metavar="FOLDER",
    help="Draw with this generator's, checkpoint's or training's folder instead.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0: all."
)
@click.option("--port", default=7860, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--user",
    default="",
    metavar="NAME",
    help="Ask for this name and for the password in $OMOKAGE_STUDIO_PASSWORD (default: "
    "$OMOKAGE_STUDIO_USER, else nobody is asked).",
)
@click.option(
    "--device", default="cpu", show_default=True, help="What draws: cpu, cuda, cuda:N or auto."
)
def studio(
    home: str, uri: str, generator: str, host: str, port: int, user: str, device: str
) -> None:
    """Open the page where people draw, play and finish; Ctrl-C closes it.

    Example: omokage studio --port 8000
    """
    if uri and generator:
        raise UsageError("--uri and --generator exclude each other: both say what draws")
    settings = settings_of(home)
    command = [sys.executable, "-m", "studio", "--uri", generator or uri or CHAMPION_URI]
    command += ["--device", device, "--host", host, "--port", str(port)]
    command += ["--user", user] if user else []
    sys.stdout.flush()
    # In place of this process, which has imported what Gradio does not bear (see there). MLflow's
    # address, which may hold a password, goes by the environment.
    os.execvpe(sys.executable, command, {**os.environ, **settings.environment()})  # noqa: S606
