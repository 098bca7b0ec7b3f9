"""The command `omokage review`: sheets of suspicious faces, and rejections taken back."""

from pathlib import Path

import click

from dataset.errors import UsageError
from dataset.policy import REJECTS_PATH
from dataset.review import CSV_PATH, reject, unreject, write_review
from dataset.store import Store
from pipeline.commands.options import home_option
from pipeline.settings import read_settings


@click.command()
@click.argument("faces", nargs=-1, metavar="[FACE]…")
@home_option
@click.option(
    "--pages",
    default=10,
    show_default=True,
    type=click.IntRange(0),
    help="Sheets of 96 faces, the most suspicious first; 0: all faces.",
)
@click.option("--reject", "rejecting", is_flag=True, help="Put the named faces on the reject list.")
@click.option("--unreject", "unrejecting", is_flag=True, help="Take them off the list again.")
@click.option(
    "--reject-file",
    default="",
    metavar="FILE",
    help="Reject the faces that a file names, a line each.",
)
def review(
    faces: tuple[str, ...],
    home: str,
    pages: int,
    rejecting: bool,
    unrejecting: bool,
    reject_file: str,
) -> None:
    """Lay out the faces that are most likely none, and take rejections back.

    A FACE is a face_id, the path of a crop, or a cell of the last review such as 3:B7 (page 3,
    row B, column 7). The next build drops what is rejected.

    Example: omokage review && omokage review --reject 1:A1 1:C5
    """
    store = Store(read_settings(home=home).home)
    if rejecting and (unrejecting or reject_file):
        raise UsageError("--reject, --unreject and --reject-file exclude each other")
    if unrejecting and reject_file:
        raise UsageError("--unreject and --reject-file exclude each other")
    if reject_file:
        _nothing_named(faces, "--reject-file")
        _rejected(store, reject(store, _names(Path(reject_file)), where=reject_file))
    elif rejecting or unrejecting:
        if not faces:
            raise UsageError("no face is named: a face_id, or a cell such as 3:B7, wanted")
        if rejecting:
            _rejected(store, reject(store, faces))
        else:
            many = unreject(store, faces)
            click.echo(f"{store.url(REJECTS_PATH)}: {many} taken off; build faces to have them")
    else:
        _nothing_named(faces, "a review")
        made = write_review(store, pages=pages)
        sheets = "1 sheet" if len(made.pages) == 1 else f"{len(made.pages):,} sheets"
        click.echo(
            f"{store.url(CSV_PATH)}: the {made.shown:,} most suspicious of {made.faces:,} kept "
            f"faces, on {sheets} beside it"
        )


def _rejected(store: Store, many: int) -> None:
    click.echo(f"{store.url(REJECTS_PATH)}: {many} new; the next build of faces drops them")


def _nothing_named(faces: tuple[str, ...], what: str) -> None:
    if faces:
        raise UsageError(f'"{faces[0]}": {what} takes no face; did you mean --reject {faces[0]}?')


def _names(file: Path) -> list[str]:
    """The faces that a file names: one a line, `#` begins a comment."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--reject-file {file} cannot be read: {error}") from error
    return [name for line in lines if (name := line.split("#")[0].strip())]
