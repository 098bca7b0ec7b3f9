"""The commands of `omokage` and their common options; `pipeline/cli.py` gathers them."""

import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.settings import Settings

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


def home_words(settings: Settings) -> str:
    """Returns what a person adds to a command for this home: ` --home DIR`, or nothing."""
    is_default = settings.home == str(Path("var").resolve())
    return "" if is_default else f" --home {shlex.quote(settings.home)}"


def as_typed() -> str:
    """Returns how a person would type the program that runs: omokage, or its path from here."""
    program = Path(sys.argv[0])
    if program.suffix == ".py":
        return "python -m pipeline.cli"
    if shutil.which(program.name) == str(program):
        return program.name
    here = Path.cwd()
    return str(program.relative_to(here) if program.is_relative_to(here) else program)
