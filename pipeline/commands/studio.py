"""`omokage studio`: the page where people draw with the champion."""

import logging
import os

import click

from dataset.errors import UsageError
from pipeline.commands.options import home_option
from pipeline.settings import read_settings

CHAMPION = "models:/avatar-generator@champion"  # studio.source has it too, and imports torch


@click.command()
@home_option
@click.option(
    "--uri",
    default="",
    metavar="URI",
    help=f"Model to draw with: an alias is followed when it moves (default: {CHAMPION}).",
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
    help="Ask for this name and for the password in $OMOKAGE_STUDIO_PASSWORD.",
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
    os.environ.update(settings.environment())  # before MLflow is imported, which reads some
    from studio.page.serve import PASSWORD, Address, serve  # imports torch
    from studio.source import ModelSource
    from studio.studio import Studio

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    source = ModelSource(
        generator or uri or CHAMPION, tracking_uri=settings.tracking_uri, device=device
    )
    password = os.environ.get(PASSWORD, "") if user else ""
    serve(Studio(source), Address(host=host, port=port, user=user, password=password))
