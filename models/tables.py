"""Tables of pictures that show what labels do: the labels of one kind down, a seed a column."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from models.labels import Rows, typical_labels
from models.networks import GeneratorNet
from models.sampling import draw, grid, titled


def swap_table(
    generator: GeneratorNet,
    rows: Rows,
    swapped: Sequence[str],
    *,
    seeds: Sequence[int],
    psi: float = 1.0,
) -> Image.Image:
    """Draws the same characters with one label of `swapped` after the other, a row for each.

    Each column keeps its seed and the other labels of one real row of `rows` [M,L]; all labels of
    `swapped` (ten hair colours, say) are taken off it but the row's own.
    """
    known = list(generator.spec.labels)
    columns = [known.index(name) for name in swapped]
    bases = typical_labels(rows, len(seeds), seeds[0])
    bases[:, columns] = 0
    asked = np.repeat(bases[None], len(swapped), axis=0)  # [rows of the table, its columns, L]
    for row, column in enumerate(columns):
        asked[row, :, column] = 1
    pictures = draw(generator, asked.reshape(-1, len(known)), list(seeds) * len(swapped), psi=psi)
    names = [name.replace("_", " ") for name in swapped]
    return titled(grid(pictures, len(seeds)), names, row_px=generator.spec.resolution_px)
