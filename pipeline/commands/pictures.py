"""`omokage edit` and `omokage upscale`: picture files changed into PNGs that say how."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from PIL import Image

from dataset.decode import MAX_PIXELS, Picture, UnreadablePicture
from dataset.errors import OmokageError, StoreError, UsageError, listed
from dataset.media import MAX_BYTES
from dataset.progress import progress
from dataset.store import Store
from studio.edits import NAMES, Edits, apply_edits
from studio.png_metadata import (
    PREFIX,
    Facts,
    made_from_facts,
    open_picture,
    recipe_facts,
    recipe_of_facts,
    upscale_text,
)
from studio.recipe import Recipe
from studio.upscaling import DENOISE, FACTORS, UPSCALERS, check_upscale, tile_count
from studio.upscaling import upscale as made_larger
from studio.validation import SIDE_MAX_PX, FaultsError

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
            text = str(error)
            faults.append(text if text.startswith(f"{path}: ") else f"{path}: {text}")
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

    Settings in it that are damaged are reported on stderr, and the picture counts as one without.
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
    from models.sampling.draw import png_bytes  # imports torch

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
def edit(inputs: tuple[Path, ...], out: str, into: str, **given: str | None) -> None:
    """Cut, turn, scale and recolour pictures, in the order of the options below.

    A picture that says what it was drawn from goes on saying so, with these edits.

    \b
    Examples:
      omokage edit face.png --crop 0.1,0,0.9,1 --hue 120 --out green.png
      omokage edit faces/*.png --rotate 90 --into turned
    """  # noqa: D301 (\b is the character by which click keeps lines apart)
    edits = _edits({name: text for name in NAMES if (text := given[name]) is not None})
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


_SOURCE, _UPSCALE = f"{PREFIX}source", f"{PREFIX}upscale"
_LONG_TILES = 100  # some seconds' work: from here on, progress is shown


@dataclasses.dataclass(frozen=True)
class UpscaleOptions:
    """What is to be done to every picture; the fields are the arguments of `studio.upscaling`."""

    factor: int
    denoise: int
    model: str

    @property
    def text(self) -> str:
        """For people: "2x, denoise 1, by cunet"."""
        by = "" if self.model == UPSCALERS[0] else f", by {self.model}"
        return upscale_text(self.factor, self.denoise) + by


@click.command()
@inputs_argument
@click.option(
    "--factor",
    default="2",
    show_default=True,
    type=click.Choice([str(factor) for factor in FACTORS]),
    help="How many times as long the sides become; 4 is twice 2.",
)
@click.option(
    "--denoise",
    default=-1,
    show_default=True,
    type=click.IntRange(DENOISE[0], DENOISE[-1]),
    help="Take traces of JPEG away: 0 (a little) to 3 (much); -1 leaves all.",
)
@click.option(
    "--model",
    default=UPSCALERS[0],
    show_default=True,
    type=click.Choice(UPSCALERS),
    help="anime: drawings; photo: photographs; cunet: drawings, another network, 3x slower.",
)
@out_option
@into_option
def upscale(
    inputs: tuple[Path, ...], factor: str, denoise: int, model: str, out: str, into: str
) -> None:
    """Make pictures 2x or 4x larger, on one core and without a GPU.

    A picture that says what it was drawn from goes on saying so. A result that stands already,
    from the same file with the same options, is not made again.

    \b
    Examples:
      omokage upscale face.png --factor 4 --out large.png
      omokage upscale faces/*.jpg --denoise 1 --into large
    """  # noqa: D301 (\b is the character by which click keeps lines apart)
    options = UpscaleOptions(int(factor), denoise, model)

    def is_done(content: bytes, facts: Facts) -> bool:
        wanted = made_from_facts(content, upscale=options.text)
        return all(facts.get(name) == wanted[name] for name in (_SOURCE, _UPSCALE))

    change_pictures(
        inputs, lambda source: _upscaled(source, options), out=out, into=into, is_done=is_done
    )


def _upscaled(source: Source, options: UpscaleOptions) -> Changed:
    arguments = dataclasses.asdict(options)
    check_upscale(source.picture, **arguments)
    height, width = source.picture.shape[:2]
    count = tile_count(height, width, options.factor, model=options.model)
    if count < _LONG_TILES:
        larger = made_larger(source.picture, **arguments)
    else:
        with progress(f"upscale {source.path.name}", count, unit="tiles") as advance:
            larger = made_larger(source.picture, **arguments, advance=advance)
    done = {"upscale": options.text}
    # By these a result is known again, also where its recipe alone would say how it was made.
    facts = made_from_facts(source.content, **done)
    more = {name: facts[name] for name in (_SOURCE, _UPSCALE)}
    return Changed(larger, _recipe(source.recipe, options), done, more)


def _recipe(drawn: Recipe | None, options: UpscaleOptions) -> Recipe | None:
    """Returns the recipe of the larger picture; None if no recipe says how it was made.

    A recipe upscales by the first upscaler, once, before its edits.
    """
    is_plain = drawn is not None and drawn.upscale == 1 and drawn.edits.is_identity
    if drawn is None or not is_plain or options.model != UPSCALERS[0]:
        return None
    return dataclasses.replace(drawn, upscale=options.factor, denoise=options.denoise)
