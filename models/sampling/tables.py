"""Tables of pictures that show what one thing does: a label, a number of the latent, a layer."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from dataset.errors import UsageError
from models.families.base import GeneratorNet
from models.labels import Rows, label_rows, typical_labels
from models.sampling.characters import Characters, beside, mapped, points, repeated
from models.sampling.draw import (
    draw,
    draw_latents,
    grid,
    latents,
    map_latents,
    require_mixing,
    require_w,
    titled,
)

SWEEP_STEPS = 20
SWEEP_STD = 3.0  # a sweep goes so many standard deviations both ways
_MEASURED = 256  # avatars that the spread of W is measured on


def label_table(
    generator: GeneratorNet,
    row_labels: Sequence[Sequence[str]],
    seeds: Sequence[int],
    *,
    psi: float = 1.0,
    noise: str = "const",
    titles: Sequence[str] | None = None,
) -> Image.Image:
    """Draws a table: row i has the labels row_labels[i], column j the seed seeds[j].

    titles, one a row, are written to its left; None writes the labels' names, [] nothing.
    """
    rows = label_rows(row_labels, generator.spec.labels)
    pictures = draw(
        generator,
        rows.repeat(len(seeds), axis=0),
        list(seeds) * len(row_labels),
        psi=psi,
        noise=noise,
    )
    table = grid(pictures, len(seeds))
    if titles is None:
        titles = [" ".join(names).replace("_", " ") for names in row_labels]
    return titled(table, titles, row_px=generator.spec.resolution_px) if titles else table


def swap_table(
    generator: GeneratorNet,
    rows: Rows,
    swapped: Sequence[str],
    *,
    seeds: Sequence[int],
    psi: float = 1.0,
    noise: str = "const",
) -> Image.Image:
    """Draws the same characters with one label of `swapped` after the other, a row for each.

    Each column keeps its seed and the other labels of one real row of `rows` [M,L]; all labels of
    `swapped` (ten hair colours, say) are taken off it but the row's own.
    """
    known = list(generator.spec.labels)
    label_rows([swapped], known)  # raises for unknown ones
    columns = [known.index(name) for name in swapped]
    bases = typical_labels(rows, len(seeds), seeds[0])
    bases[:, columns] = 0
    wanted = np.repeat(bases[None], len(swapped), axis=0)  # [rows of the table, its columns, L]
    for row, column in enumerate(columns):
        wanted[row, :, column] = 1
    pictures = draw(
        generator,
        wanted.reshape(-1, len(known)),
        list(seeds) * len(swapped),
        psi=psi,
        noise=noise,
    )
    names = [name.replace("_", " ") for name in swapped]
    return titled(grid(pictures, len(seeds)), names, row_px=generator.spec.resolution_px)


def sweep_table(
    generator: GeneratorNet,
    who: Characters,
    *,
    numbers: Sequence[int],
    space: str = "z",
    steps: int = SWEEP_STEPS,
    psi: float = 1.0,
    noise: str = "const",
) -> Image.Image:
    """Draws one character with one number of its z or w after the other swept, a row each.

    A number of z goes through `steps` values from -SWEEP_STD to SWEEP_STD (0 to 1 if latents are
    uniform), one of w by as many standard deviations of W about the avatar's own; the others stay.
    Raises UsageError for a number that there is not, or w in a family without.
    """
    spec = generator.spec
    if space == "w":
        require_w(spec, "--space w")
    size = spec.z_dim if space == "z" else spec.w_dim
    wrong = [str(number) for number in numbers if not 0 <= number < size]
    if wrong:
        raise UsageError(
            f"{space} of {spec.family} has the numbers 0 to {size - 1}, not {', '.join(wrong)}"
        )
    count = len(numbers) * steps
    swept = repeated(who, count)
    if space == "z":
        low, high = (0.0, 1.0) if spec.z_dist == "uniform" else (-SWEEP_STD, SWEEP_STD)
        for row, number in enumerate(numbers):
            part = swept.z[row * steps : (row + 1) * steps]
            part[:, number] = torch.linspace(low, high, steps)
        w = points(generator, swept, psi=psi).w
    else:
        w = mapped(generator, swept, psi=psi)
        spread = _w_spread(generator, who.labels, psi)
        offsets = torch.linspace(-SWEEP_STD, SWEEP_STD, steps)
        for row, number in enumerate(numbers):
            part = w[row * steps : (row + 1) * steps]
            part[:, :, number] += offsets[:, None] * spread[number]
    pictures = draw_latents(
        generator,
        swept.z * spec.z_std,
        swept.labels,
        psi=psi,
        noise=noise,
        noise_seeds=swept.seeds,
        w=w,
    )
    titles = [f"{space} {number}" for number in numbers]
    return titled(grid(pictures, steps), titles, row_px=spec.resolution_px)


def mixing_table(
    generator: GeneratorNet,
    rows: Characters,
    columns: Characters,
    *,
    crossover: int = 0,
    psi: float = 1.0,
    noise: str = "const",
) -> Image.Image:
    """Draws avatars whose coarse styles are the row's and whose fine styles are the column's.

    The layers before `crossover` take the row's w, those from it on the column's; 0 crosses in the
    middle. The first column and the first row show the characters that are mixed. Raises UsageError
    if the family cannot mix or has no such layer.
    """
    spec = generator.spec
    require_mixing(spec)
    layer = crossover or spec.w_layers // 2
    if not 1 <= layer < spec.w_layers:
        raise UsageError(
            f"crossover is {layer}; {spec.family} at {spec.resolution_px} px has {spec.w_layers} "
            f"layers, so 1 to {spec.w_layers - 1} wanted"
        )
    down, across = len(rows), len(columns)
    who = beside(rows, columns)
    w = mapped(generator, who, psi=psi)
    coarse = w[:down].repeat_interleave(across, dim=0)  # [down * across, K, W]
    mixed = w[down:].repeat(down, 1, 1)
    mixed[:, :layer] = coarse[:, :layer]
    own = draw(generator, who.labels, who.seeds, psi=psi, noise=noise, w=w)
    row_of = [seed for seed in rows.seeds for _ in columns.seeds]
    inner = draw(generator, rows.labels.repeat(across, axis=0), row_of, noise=noise, w=mixed)
    side = spec.resolution_px
    sheet = np.full((down + 1, across + 1, side, side, 3), 255, dtype=np.uint8)
    sheet[1:, 0], sheet[0, 1:] = own[:down], own[down:]
    sheet[1:, 1:] = inner.reshape(down, across, side, side, 3)
    return grid(sheet.reshape(-1, side, side, 3), across + 1)


def _w_spread(generator: GeneratorNet, labels: Rows, psi: float) -> torch.Tensor:
    """Returns the standard deviation [W] of w with these labels [1,L]."""
    spec = generator.spec
    z = latents(range(_MEASURED), spec.z_dim, spec.z_dist) * spec.z_std
    w = map_latents(generator, z, labels.repeat(_MEASURED, axis=0), psi=psi)
    return w[:, 0].std(dim=0)
