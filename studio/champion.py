"""The registry's champion for the command line: its files in a folder, and grids of any size."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dataset.errors import RegistryError
from models.io.generators import WEIGHTS
from models.labels import split_names
from models.registry.load import registered_files
from models.registry.model_uri import Registry, parse_model_uri
from models.sampling.draw import asked_labels, draw, grid
from models.sampling.png import drawing_facts, png_bytes
from studio.default_model import CHAMPION_URI
from studio.opened import open_registered


@contextlib.contextmanager
def champion_folder(tracking_uri: str) -> Iterator[str]:
    """Yields a temporary folder with the champion's weights, which `load_generator` takes.

    Raises ModelNotFoundError if there is no champion; RegistryError if the registry does not
    answer, or the version is from before models carried their weights.
    """
    registry = Registry(tracking_uri)
    found = registry.find(parse_model_uri(CHAMPION_URI))
    with tempfile.TemporaryDirectory(prefix="omokage-champion-") as temporary:
        files = registered_files(registry.fetch(found, Path(temporary)))
        if not (files / WEIGHTS).is_file():
            raise RegistryError(
                f"{found.title} was registered without its weights, so only a plain grid can be "
                "drawn with it (`omokage sample` without a command). Name the folder that it was "
                "registered from with --generator: generators/… under its home."
            )
        yield str(files)


def champion_grid(
    tracking_uri: str, labels: str, *, n: int, seed: int, psi: float, columns: int
) -> bytes:
    """Draws `n` pictures with the champion, in rows of `columns`; returns a PNG.

    labels: "blonde_hair, blue_eyes", which each picture then has alone; "" as they come. The PNG
    says what it was made from. Raises UsageError for unknown labels; as `champion_folder` besides.
    """
    model = open_registered(CHAMPION_URI, tracking_uri=tracking_uri)
    seeds = range(seed, seed + n)
    rows = asked_labels(split_names(labels), seeds, known=model.labels, typical=model.typical)
    sheet = grid(draw(model.generator, rows, seeds, psi=psi), min(columns, n))
    facts = drawing_facts(
        model.generator,
        tool="grid",
        seeds=seeds,
        labels=[labels],
        psi=psi,
        noise="const",
        model=f"{CHAMPION_URI}, {model.name}",
    )
    return png_bytes(sheet, facts)
