"""`omokage studio`: the page where people draw with the champion."""

import os
import sys

import click

from dataset.errors import UsageError
from models.registry.model_uri import CHAMPION_URI
from pipeline.commands import home_option
from pipeline.settings import read_settings


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
    settings = read_settings(home=home)
    command = [sys.executable, "-m", "studio", "--uri", generator or uri or CHAMPION_URI]
    command += ["--device", device, "--host", host, "--port", str(port)]
    command += ["--user", user] if user else []
    sys.stdout.flush()
    # In place of this process, which has imported what Gradio does not bear (see there). MLflow's
    # address, which may hold a password, goes by the environment.
    os.execvpe(sys.executable, command, {**os.environ, **settings.environment()})  # noqa: S606
