"""`omokage import`: a user's own pictures become rows beside crawled ones."""

import re
from pathlib import Path

import click

from crawlers.importing import (
    NO_FILE,
    REPACKED_HINT,
    UNRATED,
    WRONG_MD5,
    ImportSettings,
    ImportSummary,
    check_outcome,
    take_in,
)
from crawlers.sites import load_sites
from dataset.errors import UsageError, listed
from dataset.importers.danbooru import look_through, read_dump
from dataset.importers.files import FolderFiles, ZipFiles, open_files
from dataset.importers.folder import look_at, read_collection
from dataset.store import Store
from pipeline.commands import as_typed, home_option, home_words
from pipeline.settings import read_settings

KINDS = ("danbooru", "folder")


@click.command("import")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@home_option
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="danbooru: folder or zip of the pictures.",
)
@click.option(
    "--s-means",
    type=click.Choice(["safe", "sensitive"]),
    help="danbooru: what rating s means (default: safe in nested records without any g).",
)
@click.option(
    "--resized",
    is_flag=True,
    help="danbooru: the pictures are smaller copies; their md5 is not compared.",
)
@click.option(
    "--repacked",
    is_flag=True,
    help="danbooru: the pictures were packed anew; width and height are compared, not the md5.",
)
@click.option(
    "--tags",
    default="",
    metavar="FILE",
    help="folder: its table of tags, .csv, .json or .jsonl (default: a tags.csv or .json in it).",
)
@click.option("--cropped", is_flag=True, help="The pictures are faces already: take them whole.")
@click.option(
    "--rating",
    type=click.Choice(["general"]),
    help="Your word that all pictures without a rating are safe; else they are refused.",
)
@click.option("--name", default="", help="Name of the set in the tables (default: by its path).")
@click.option("--limit", default=0, type=click.IntRange(0), help="Records to look at; 0: all.")
@click.option("--strict", is_flag=True, help="Fail if any record has a fault.")
@click.option("--dry-run", is_flag=True, help="Only count what would be taken in.")
def import_command(
    kind: str,
    paths: tuple[Path, ...],
    home: str,
    images: Path | None,
    s_means: str | None,
    resized: bool,
    repacked: bool,
    tags: str,
    cropped: bool,
    rating: str | None,
    name: str,
    limit: int,
    strict: bool,
    dry_run: bool,
) -> None:
    """Take your own pictures in: a dump of Danbooru's metadata, or a folder or zip.

    Example: omokage import folder faces.zip --cropped --rating general
    """
    _check_options(kind, paths, images=images, given={
        "--s-means": s_means, "--resized": resized, "--repacked": repacked, "--tags": tags,
    })  # fmt: skip
    settings = read_settings(home=home)
    pictures = images or paths[0]
    files = open_files(pictures, option="--images" if images else "PATH")
    store = settings.store
    for root in (store.folder, *store.local_roots):
        if root is not None:
            _check_apart(pictures, root.local(""))
    chosen = ImportSettings(
        name=name or name_of(pictures),
        kind=kind,
        rating=rating,
        cropped=cropped,
        resized=resized,
        repacked=repacked,
        limit=limit,
        dry_run=dry_run,
    )
    made = _take_in(store, files, paths, chosen, sites_file=settings.sites_file,
                    tags=tags, s_means=s_means)  # fmt: skip
    click.echo("\n".join(summary_lines(made)), err=True)
    check_outcome(made, strict=strict)
    if not dry_run:
        click.echo(
            f"Next: {as_typed()} run{home_words(settings)} builds a face set and trains on it "
            "(--until manifest: builds it only)",
            err=True,
        )


def _take_in(
    store: Store,
    files: FolderFiles | ZipFiles,
    paths: tuple[Path, ...],
    chosen: ImportSettings,
    *,
    sites_file: str,
    tags: str,
    s_means: str | None,
) -> ImportSummary:
    if chosen.kind == "danbooru":
        dump = look_through(paths, s_means=s_means)
        click.echo(f"ratings: {dump.why}", err=True)
        records, expected = read_dump(dump, files, resized=chosen.resized), dump.lines
    else:
        found = look_at(files, tags=tags)
        line = f"tags: {found.table}" if found.table else "tags: beside the pictures, if any"
        click.echo(line, err=True)
        records, expected = read_collection(found), found.count
    registry = load_sites(sites_file or None)
    return take_in(store, files, records, settings=chosen, expected=expected, registry=registry)


def name_of(path: Path) -> str:
    """Returns the name of a set by its path: small letters, digits and `_`, a letter first."""
    plain = re.sub(r"[^a-z0-9]+", "_", path.resolve().stem.lower()).strip("_")
    return plain if plain[:1].isalpha() else f"set_{plain}".rstrip("_")


def summary_lines(made: ImportSummary) -> list[str]:
    """Returns what an import did, in words."""
    rate = made.seen / max(made.seconds, 1e-3)
    would = "would be " if made.dry_run else ""
    lines = [
        f"import {made.name}: {made.seen:,} records seen, {made.kept:,} {would}kept, "
        f"{sum(made.refused.values()):,} {would}refused, {made.known:,} known already; "
        f"{made.bytes / 1e6:,.1f} MB in {made.seconds:,.1f} s ({rate:,.0f} records/s)"
    ]
    for what, counts in (("refused", made.refused), ("skipped", made.skipped)):
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        if ranked:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in ranked)
            lines.append(f"  {what}: {reasons}")
    if made.refused.get(UNRATED):
        lines.append("  unrated: no rating is said; if you know they are safe: --rating general")
    if made.refused.get(WRONG_MD5):
        lines.append(f"  {WRONG_MD5}: {REPACKED_HINT}")
    if made.skipped.get(NO_FILE):
        lines.append("  no_file: records whose pictures are not there")
    if made.faults:
        many = f"{made.faults:,} records or files have faults and were"
        one = "1 record or file has a fault and was"
        lines.append(f"warning: {one if made.faults == 1 else many} left out:")
        lines += listed(made.shown).splitlines()
        if made.faults > len(made.shown):
            lines.append(f"  … and {made.faults - len(made.shown):,} more")
        if made.faults_path:
            lines.append(f"  all of them: {made.faults_path} in the home")
    return lines


def _check_options(
    kind: str, paths: tuple[Path, ...], *, images: Path | None, given: dict[str, object]
) -> None:
    if kind == "danbooru":
        if images is None:
            raise UsageError("import danbooru: --images is missing: the folder of the pictures")
        if given["--resized"] and given["--repacked"]:
            raise UsageError(
                "import danbooru: --resized and --repacked exclude each other: smaller copies do "
                "not have the width and height of the records"
            )
        wrong = ["--tags"]
    else:
        if images is not None:
            raise UsageError("import folder: --images is for danbooru; name the folder itself")
        if len(paths) > 1:
            raise UsageError(
                f"import folder: one folder or zip at a time, {len(paths)} paths found"
            )
        wrong = ["--s-means", "--resized", "--repacked"]
    for option in wrong:
        if given[option]:
            raise UsageError(f"import {kind}: {option} is not for this kind of set")


def _check_apart(pictures: Path, home: Path) -> None:
    """The home's own blobs must not come in as pictures."""
    if pictures.is_dir() and home.resolve().is_relative_to(pictures.resolve()):
        raise UsageError(
            f"{pictures} holds the home {home} itself; import the folder of the pictures alone"
        )


@click.command("import-weights")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Generator folder to write; it must be new or empty.",
)
def import_weights_command(file: Path, out: Path) -> None:
    """Take public StyleGAN2 weights in: a .pt of rosinality's port, a .pkl of NVIDIA's.

    Nothing of the file is run; what is no tensor and no plain value is refused by name.

    Example: omokage import-weights stylegan2-ffhq-256.pt --out var/imported/ffhq
    """
    from models.import_stylegan2.importer import import_weights

    made = import_weights(file, out)
    spec = made.spec
    labels = f", {len(spec.labels)} labels" if spec.labels else ""
    click.echo(
        f"{made.folder}: {spec.family} of {spec.resolution_px} px, {made.parameters:,} parameters"
        f"{labels}, from {made.layout}'s layout"
    )
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
