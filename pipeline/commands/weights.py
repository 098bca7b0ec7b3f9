"""`omokage import-weights`: somebody else's StyleGAN2 becomes a generator folder of ours."""

from pathlib import Path

import click


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
    from models.import_stylegan2.importer import import_weights  # torch is slow to import

    made = import_weights(file, out)
    spec = made.spec
    labels = f", {len(spec.labels)} labels" if spec.labels else ""
    click.echo(
        f"{made.folder}: {spec.family} of {spec.resolution_px} px, {made.parameters:,} parameters"
        f"{labels}, from {made.layout}'s layout"
    )
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
