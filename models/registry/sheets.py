"""Sheets of samples that show what a generator can do: one trait changed, all else the same."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.labels import appearance
from dataset.store import Store
from models.registry.client import TrackingClient

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from models.families.base import GeneratorNet

SHEET = "champion.png"  # at the home's top, for people
LABELS_SHEET = "labels.png"
SHEET_COLUMNS = 10
SHEET_ROWS = 10
SHEET_PSI = 0.75  # for people: a little less variety, cleaner faces
HAIR_COLOUR = "hair_colour"


def swap_sheet(folder: str) -> bytes:
    """Draws the same characters with one hair colour after the other; returns the PNG's bytes.

    folder: path or URL of a generator, or of a registered model's files. Without hair colours it is
    the first labels; without labels, characters as they come.
    """
    from models.io.generators import load_generator, typical_rows
    from models.registry.load import ProgramGenerator, is_registered, registered_files
    from models.sampling.draw import draw, grid
    from models.sampling.tables import swap_table

    network: GeneratorNet
    if is_registered(Path(folder)):
        files = registered_files(Path(folder))
        folder, network = str(files), ProgramGenerator(files)
    else:
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


def champion_sheet(store: Store, tracking: TrackingClient, version: "ModelVersion") -> bytes:
    """Draws a version's sheet anew, to champion.png and into its MLflow run; returns the PNG.

    Raises RegistryError if neither this home nor MLflow has its weights.
    """
    from models.registry.load import version_files  # imports torch

    with version_files(store, tracking, version) as files:
        sheet = swap_sheet(store.url(files.folder) if files.is_training else files.folder)
    store.write_bytes(SHEET, sheet)
    if version.run_id:
        tracking.log_picture(version.run_id, LABELS_SHEET, sheet)
    return sheet


def generator_sheet(
    store: Store, tracking: TrackingClient, current: Mapping[str, Any], *, is_new: bool
) -> bytes:
    """Returns the generator's sheet, drawn and logged once."""
    path = f"{current['folder']}/{LABELS_SHEET}"
    if not is_new and store.exists(path):
        return store.read_bytes(path)
    sheet = swap_sheet(store.url(f"{current['folder']}/generator"))
    tracking.log_picture(current["mlflow_run"], LABELS_SHEET, sheet)
    store.write_bytes(path, sheet)  # last: where it stands, it is logged too
    return sheet
