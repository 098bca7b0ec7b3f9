"""`omokage faces` finds faces on pictures; `review` and `export` are for a home's own faces."""

import glob
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dataset.cascade import SEARCHES
from dataset.cropping import DETECTORS, FaceSettings, detector_of
from dataset.decode import UnreadablePicture, decode
from dataset.detection import Found
from dataset.errors import UsageError
from dataset.export import FORMATS, export_set
from dataset.manifest import load_manifest
from dataset.policy import REJECTS_PATH
from dataset.progress import Advance, progress
from dataset.review import CSV_PATH, reject, unreject, write_review
from dataset.store import LocalFolder, Store
from pipeline.commands import home_option
from pipeline.settings import read_settings

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif"}
SOME_UNREADABLE = 1
_HEAD = ("x", "y", "w", "h", "score")


@click.group()
def faces() -> None:
    """Find faces on pictures of your own."""


@faces.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option(
    "--mode",
    default="thorough",
    show_default=True,
    type=click.Choice(list(SEARCHES)),
    help="How lbp searches: fast sees no face below 64 px.",
)
@click.option(
    "--detector",
    default="lbp",
    show_default=True,
    type=click.Choice(DETECTORS),
    help="The LBP cascade, or a YOLO model of yours (see docs/faces.md).",
)
@click.option("--model", default="", metavar="FILE", help="The ONNX file for --detector onnx.")
@click.option(
    "--input-px",
    default=FaceSettings.onnx_input_px,
    show_default=True,
    type=click.IntRange(32, 4096),
    help="Side of the ONNX model's input.",
)
@click.option(
    "--min-score",
    default=FaceSettings.onnx_min_score,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Least score of the ONNX model's faces.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a face.")
def detect(
    paths: tuple[str, ...],
    mode: str,
    detector: str,
    model: str,
    input_px: int,
    min_score: float,
    as_json: bool,
) -> None:
    """Say where faces are, in pixels of the upright picture: files, folders or globs.

    A picture that cannot be read is named on stderr and the others go on; the exit code is then 1.

    Example: omokage faces detect pictures/ --mode fast --json > faces.jsonl
    """
    if model and detector != "onnx":
        raise UsageError(f'--model {model} is only for --detector onnx; "{detector}" was asked for')
    if detector == "onnx" and not model:
        raise UsageError("--detector onnx wants --model FILE, a YOLO model in ONNX")
    settings = FaceSettings(
        detector=detector,
        mode=mode,
        onnx_path=model,
        onnx_input_px=input_px,
        onnx_min_score=min_score,
    )
    files = list(dict.fromkeys(file for path in paths for file in pictures_of(path)))
    with progress("faces", len(files), unit="pictures") as advance:
        read = sum(_tell(file, settings, advance, as_json=as_json) for file in files)
    if read < len(files):
        click.echo(f"{len(files) - read} of {len(files)} pictures could not be read", err=True)
        sys.exit(SOME_UNREADABLE)


def pictures_of(path: str) -> Iterator[Path]:
    """Yields the pictures that a file, a folder (with its subfolders) or a glob names.

    A file is taken whatever its name; in a folder the suffix decides. Raises UsageError if nothing
    is there.
    """
    if Path(path).is_file():
        yield Path(path)
        return
    named = [Path(path)] if Path(path).is_dir() else _matching(path)
    inside = [sorted(one.rglob("*")) if one.is_dir() else [one] for one in named]
    found = [
        file
        for files in inside
        for file in files
        if file.is_file() and file.suffix.lower() in SUFFIXES
    ]
    if not found:
        known = ", ".join(sorted(SUFFIXES))
        raise UsageError(f"{path}: no picture there; a file, a folder or a glob wanted ({known})")
    yield from found


def _matching(pattern: str) -> list[Path]:
    # Path.glob takes no absolute patterns
    return [Path(one) for one in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207


def _tell(file: Path, settings: FaceSettings, advance: Advance, *, as_json: bool) -> bool:
    """Prints the faces of one file; tells whether it could be read."""
    try:
        picture = decode(file.read_bytes(), where=str(file))
    except UnreadablePicture as error:
        click.echo(str(error), err=True)
        return False
    except OSError as error:
        click.echo(f"{file}: cannot be read: {error.strerror}", err=True)
        return False
    else:
        found = detector_of(settings).find(picture)
        lines = _json_lines(file, found) if as_json else _in_words(file, found)
        click.echo("\n".join(lines), nl=bool(lines))
        return True
    finally:
        advance(1)


def _json_lines(file: Path, found: list[Found]) -> list[str]:
    return [json.dumps({"file": str(file), **_values(one)}, ensure_ascii=False) for one in found]


def _in_words(file: Path, found: list[Found]) -> list[str]:
    if not found:
        return [f"{file}: no face"]
    many = f"{len(found)} faces" if len(found) > 1 else "1 face"
    rows = [[str(value) for value in _values(one).values()] for one in found]
    lines = [f"{cell:>7}" for cell in _HEAD]
    return [f"{file}: {many}", "".join(lines), *("".join(f"{c:>7}" for c in row) for row in rows)]


def _values(found: Found) -> dict[str, float]:
    box = found.box
    return {"x": box.x, "y": box.y, "w": box.w, "h": box.h, "score": round(found.score, 3)}


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
    """Show the crops that are least likely to be faces, and reject some, or undo that.

    A FACE is a face_id, the path of a crop, or a cell of the last review such as 3:B7 (page 3,
    row B, column 7). The next build drops what is rejected.

    Example: omokage review && omokage review --reject 1:A1 1:C5
    """
    store = read_settings(home=home).store
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


@click.command()
@home_option
@click.argument("form", metavar="FORMAT", type=click.Choice(FORMATS))
@click.option(
    "--to", required=True, metavar="FOLDER", help="An empty folder; stopped, the export goes on."
)
@click.option(
    "--manifest", default="", metavar="DIGEST", help="An earlier training set (default: current)."
)
def export(home: str, form: str, to: str, manifest: str) -> None:
    """Write the training set with its pictures as files, to train elsewhere.

    parquet: a file per split, crops in the column png. webdataset: tar files of pictures and JSON.
    A takedown here reaches no exported files.

    Example: omokage export webdataset --to faces
    """
    store = read_settings(home=home).store
    chosen = load_manifest(store, manifest or None)
    place = Path(to).expanduser().resolve()
    if "://" in to or (place.exists() and not place.is_dir()):
        raise UsageError(f"--to {to}: a folder of this machine wanted")
    folder = LocalFolder(place)
    made = export_set(store, chosen, folder, form=form)
    rows = f"{chosen.train_rows:,} faces to train on and {chosen.eval_rows:,} to judge by"
    click.echo(f"{rows}, {len(chosen.labels)} labels: {len(made):,} files in {folder.root}")
