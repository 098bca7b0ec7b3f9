"""Sheets of samples that show what a generator can do: one trait changed, all else the same."""

import io
from typing import TYPE_CHECKING

from assets.resources import TrackingResource
from dataset.errors import RegistryError
from dataset.labels import appearance
from dataset.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

SHEET = "champion.png"  # at the home's top, for people
LABELS_SHEET = "labels.png"
SHEET_COLUMNS = 10
SHEET_ROWS = 10
SHEET_PSI = 0.75  # for people: a little less variety, cleaner faces
HAIR_COLOUR = "hair_colour"
FOLDER = "omokage.folder"  # a version's tag: the training's folder under the home


def swap_sheet(folder: str) -> bytes:
    """Draws the same characters with one hair colour after the other; returns the PNG's bytes.

    folder: path or URL of a generator. Without hair colours it is the first labels; without labels,
    characters as they come.
    """
    from models.generators import load_generator, typical_rows  # these import torch
    from models.sampling import draw, grid
    from models.tables import swap_table

    network = load_generator(folder)
    # A family may know a part of the manifest's labels, in an order of its own, or none of them.
    known = network.spec.labels
    rows = typical_rows(folder, known)
    hair = [name for name in known if appearance().groups.get(name) == HAIR_COLOUR]
    if known:
        swapped, seeds = hair or known[:SHEET_ROWS], range(SHEET_COLUMNS)
        sheet = swap_table(network, rows, swapped, seeds=seeds, psi=SHEET_PSI)
    else:
        seeds = range(SHEET_COLUMNS * SHEET_ROWS)
        pictures = draw(network, rows[:1].repeat(len(seeds), axis=0), seeds, psi=SHEET_PSI)
        sheet = grid(pictures, SHEET_COLUMNS)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def champion_sheet(store: Store, tracking: TrackingResource, version: "ModelVersion") -> bytes:
    """Draws a version's sheet anew, to champion.png and into its MLflow run; returns the PNG.

    Raises RegistryError if its folder is not under this home.
    """
    folder = training_folder(store, version)
    sheet = swap_sheet(store.url(f"{folder}/generator"))
    store.write_bytes(SHEET, sheet)
    if version.run_id:
        tracking.log_picture(version.run_id, LABELS_SHEET, sheet)
    return sheet


def training_folder(store: Store, version: "ModelVersion") -> str:
    """Returns the folder of a version's training; RegistryError if it is not under this home."""
    folder = version.tags.get(FOLDER, "")
    if not folder or not store.exists(f"{folder}/generator"):
        raise RegistryError(
            f"the folder of version {version.version}, {folder or f'(no tag {FOLDER})'}, is not "
            f"under {store.root}: put it back, or name the home that it was made in with --home"
        )
    return folder
