"""`omokage edit`: pictures cut, turned, scaled and recoloured, into PNGs that say how."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dataset.errors import UsageError
from pipeline.commands.picture_files import (
    Changed,
    Source,
    change_pictures,
    inputs_argument,
    into_option,
    out_option,
)
from studio.edits import NAMES, Edits, apply_edits
from studio.validation import FaultsError

HELP = {
    "crop": ("L,T,R,B", "Part to keep, as fractions of the picture: 0.1,0,0.9,1."),
    "rotate": ("DEGREES", "Turn counter-clockwise, -180 to 180; corners become white."),
    "scale": ("X", "Size of both sides, 0.25 to 4."),
    "brightness": ("X", "0 (black) to 2; 1 is as it is."),
    "contrast": ("X", "0 (the mean grey) to 2; 1 is as it is."),
    "saturation": ("X", "0 (greys) to 2; 1 is as it is."),
    "hue": ("DEGREES", "Turn of all colours on the wheel, -180 to 180."),
}


def edit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds an option for each edit, in the order in which they are made."""
    for name in reversed(NAMES):
        metavar, meaning = HELP[name]
        command = click.option(f"--{name}", metavar=metavar, help=meaning)(command)
    return command


@click.command()
@inputs_argument
@edit_options
@out_option
@into_option
def edit(inputs: tuple[Path, ...], out: str, into: str, **asked: str | None) -> None:
    """Cut, turn, scale and recolour pictures, in the order of the options below.

    A picture that says what it was drawn from goes on saying so, with these edits.

    \b
    Examples:
      omokage edit face.png --crop 0.1,0,0.9,1 --hue 120 --out green.png
      omokage edit faces/*.png --rotate 90 --into turned
    """  # noqa: D301 (\b is the character by which click keeps lines apart)
    edits = _edits({name: text for name in NAMES if (text := asked[name]) is not None})
    change_pictures(inputs, lambda source: _edited(source, edits), out=out, into=into)


def _edits(texts: dict[str, str]) -> Edits:
    try:
        edits = Edits.from_texts(texts)
    except FaultsError as error:
        raise UsageError("; ".join(f"--{fault}" for fault in error.faults)) from error
    if edits.is_identity:
        names = ", ".join(f"--{name}" for name in NAMES)
        raise UsageError(f"no edit that changes anything is given; there are {names}")
    return edits


def _edited(source: Source, edits: Edits) -> Changed:
    recipe = None
    if source.recipe is not None and source.recipe.edits.is_identity:
        recipe = dataclasses.replace(source.recipe, edits=edits)
    return Changed(apply_edits(source.picture, edits), recipe, {"edits": edits.to_text()})
