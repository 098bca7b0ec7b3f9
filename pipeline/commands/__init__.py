"""The commands of `omokage` and their common options; `pipeline/cli.py` gathers them."""

from collections.abc import Callable
from typing import Any

import click

home_option = click.option(
    "--home",
    default="",
    metavar="PATH",
    help="Folder that everything lies in (default: $OMOKAGE_HOME, else ./var).",
)


def minutes_option(default: str) -> Callable[[Any], Any]:
    """Returns the option of a training's time; default: how long it is without one, in words."""
    return click.option(
        "--minutes",
        type=click.FloatRange(0, 1e6, min_open=True),
        help=f"Train for so many minutes, however many pictures they come to (default: {default}).",
    )
