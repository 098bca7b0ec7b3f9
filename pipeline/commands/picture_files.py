"""Picture files of the commands that change some: how they are read, named, described, written."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from PIL import Image

from dataset.decode import MAX_PIXELS, Picture, UnreadablePicture
from dataset.errors import OmokageError, StoreError, UsageError, listed
from dataset.media import MAX_BYTES
from dataset.store import Store
from studio.png_metadata import (
    PREFIX,
    Facts,
    made_from_facts,
    open_picture,
    recipe_facts,
    recipe_of_facts,
)
from studio.recipe import Recipe
from studio.validation import SIDE_MAX_PX

RESULT_MAX_BYTES = 4 * SIDE_MAX_PX**2  # more than the pixels of any result unpacked

inputs_argument = click.argument(
    "inputs", nargs=-1, required=True, metavar="IN…", type=click.Path(path_type=Path)
)
out_option = click.option("--out", default="", metavar="FILE", help="PNG to write, of one input.")
into_option = click.option(
    "--into",
    default="",
    metavar="FOLDER",
    help="Folder for the PNGs, each named as its input; inputs are never overwritten.",
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A picture file that was read.

    Attributes:
        path: as it was given.
        content: its bytes.
        picture: uint8 [H,W,3], upright.
        facts: what our own texts in it say; {} for another program's file.
        recipe: what it was made from, if it says so and nothing of it is damaged.

    """

    path: Path
    content: bytes
    picture: Picture
    facts: Facts
    recipe: Recipe | None


@dataclasses.dataclass(frozen=True)
class Changed:
    """A changed picture, [H,W,3], and what may truly be said of it.

    Attributes:
        picture: uint8 [H,W,3].
        recipe: that makes this very picture; None if no recipe does.
        done: what was done to the input, for people: {"edits": "rotate=90"}.
    more: further facts beside a recipe's, by their whole names.

    """

    picture: Picture
    recipe: Recipe | None
    done: dict[str, str]
    more: dict[str, str] = dataclasses.field(default_factory=dict)


def change_pictures(
    inputs: Sequence[Path],
    change: Callable[[Source], Changed],
    *,
    out: str,
    into: str,
    is_done: Callable[[bytes, Facts], bool] | None = None,
) -> None:
    """Reads each input, changes it, and writes the result as a PNG; says a line for each.

    out: the file, for one input; into: a folder that takes any number. is_done: tells from an
    input's bytes and the texts of a whole picture that stands at its result's place whether that
    is its result already; then it stays. An input that cannot be read or changed is left out, and
    the others are done. Raises UsageError before anything is
    read if the names do not fit, and at the end with the faults of all inputs that were left out;
    StoreError at once if a result cannot be written.
    """
    targets = _targets(inputs, out=out, into=into)
    faults = []
    for path, target in zip(inputs, targets, strict=True):
        try:
            content = _content(path)
            if is_done is not None and _stands(target, content, is_done):
                click.echo(f"{target}: stands already, from {path}")
                continue
            source = _opened(path, content)
            changed = change(source)
        except OmokageError as error:
            told = str(error)
            faults.append(told if told.startswith(f"{path}: ") else f"{path}: {told}")
            continue
        _write(target, changed, source, option="--out" if out else "--into")
        height, width = changed.picture.shape[:2]
        click.echo(f"{target}: {width}x{height} px, from {path}")
    if len(faults) == 1 and len(inputs) == 1:
        raise UsageError(faults[0])
    if faults:
        raise UsageError(
            f"{len(faults)} of {len(inputs)} pictures were left out:\n{listed(faults)}"
        )


def read_source(path: Path) -> Source:
    """Reads a picture file through the safe door: at most 30 MB, 40 megapixels, one still.

    Settings in it that are damaged are told on stderr, and the picture counts as one without.
    Raises UsageError or UnreadablePicture, naming the file.
    """
    return _opened(path, _content(path))


def _opened(path: Path, content: bytes) -> Source:
    where = str(path)
    picture, facts = open_picture(content, where=where, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    try:
        recipe = recipe_of_facts(facts, where=where)
    except UsageError as error:
        click.echo(f"{error}. The result names this file as its source.", err=True)
        recipe = None
    return Source(path, content, picture, facts, recipe)


def _stands(target: Path, content: bytes, is_done: Callable[[bytes, Facts], bool]) -> bool:
    """Tells whether a whole picture stands at `target` and is the result of that input."""
    if not target.is_file() or target.stat().st_size > RESULT_MAX_BYTES:
        return False
    try:
        _, facts = open_picture(
            target.read_bytes(),
            where=str(target),
            max_bytes=RESULT_MAX_BYTES,
            max_pixels=MAX_PIXELS,
        )
    except (UnreadablePicture, OSError):  # whatever it is, it is no result of ours
        return False
    return is_done(content, facts)


def _content(path: Path) -> bytes:
    try:
        if not path.exists():
            raise UsageError(f"{path}: is not there; a picture file is wanted")
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; name the pictures in it, such as {path}/*.png")
        if not path.is_file():
            raise UsageError(f"{path}: is no plain file; a picture file is wanted")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)  # one more than is taken, so that it is refused
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def _targets(inputs: Sequence[Path], *, out: str, into: str) -> list[Path]:
    """Returns the file of each result; raises UsageError if the names do not fit."""
    if bool(out) == bool(into):
        there = "both are given" if out else "neither is given"
        raise UsageError(f"--out FILE.png or --into FOLDER is wanted; {there}")
    if out:
        targets = [Path(out)]
        if len(inputs) > 1:
            raise UsageError(f"--out {out} is one file for {len(inputs)} inputs; use --into FOLDER")
        if targets[0].suffix.lower() != ".png":
            raise UsageError(f"--out {out}: a name that ends in .png is wanted; PNG is written")
    else:
        targets = [Path(into) / f"{path.stem}.png" for path in inputs]
        if Path(into).exists() and not Path(into).is_dir():
            raise UsageError(f"--into {into} is a file; a folder is wanted")
    _check_apart(inputs, targets, option=f"--out {out}" if out else f"--into {into}")
    return targets


def _check_apart(inputs: Sequence[Path], targets: Sequence[Path], *, option: str) -> None:
    read = {path.resolve(): path for path in inputs}
    written: dict[Path, Path] = {}
    for path, target in zip(inputs, targets, strict=True):
        overwritten = read.get(target.resolve())
        if overwritten is not None:
            raise UsageError(f"{option} would overwrite the input {overwritten}; name another")
        if target in written:
            raise UsageError(
                f"{option}: {written[target]} and {path} would both become {target}; give them "
                "different names, or go in two runs"
            )
        written[target] = path


def _write(target: Path, changed: Changed, source: Source, *, option: str) -> None:
    from models.sampling.png import png_bytes  # imports torch

    if changed.recipe is None:
        facts = made_from_facts(source.content, **changed.done)
    else:
        facts = recipe_facts(
            changed.recipe,
            model=source.facts.get(f"{PREFIX}model") or changed.recipe.model,
            digest=source.facts.get(f"{PREFIX}generator") or "not said",
        )
    file = target.absolute()
    try:
        store = Store(file.parent)
        picture = Image.fromarray(changed.picture)
        store.write_bytes(file.name, png_bytes(picture, {**facts, **changed.more}))
    except StoreError as error:
        why = error.__cause__
        reason = why.strerror if isinstance(why, OSError) and why.strerror else str(error)
        raise StoreError(f"{option}: {target} cannot be written: {reason}") from error
