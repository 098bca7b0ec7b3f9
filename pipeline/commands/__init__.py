"""The commands of `omokage` and their common option; `pipeline/cli.py` gathers them."""

import click

home_option = click.option(
    "--home",
    default="",
    metavar="PATH",
    help="Folder that everything lies in (default: $OMOKAGE_HOME, else ./var).",
)
