"""Draws pictures with a generator, each by its own seed, and lays them out on sheets and as PNGs.

A PNG says from what it was drawn: the same picture and facts give the same bytes.

What a family of generators cannot do is said by name, with what it can do instead.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, PngImagePlugin
from torch import Tensor

from dataset.errors import UsageError
from models.families import FAMILIES
from models.families.base import GeneratorNet, GeneratorSpec
from models.io.generators import generator_digest
from models.labels import Rows, label_rows, typical_labels

CHUNK = 64  # pictures a pass; part of the drawing, since rounding may depend on it
NOISES = ("const", "none", "random")

Pictures = npt.NDArray[np.uint8]  # [N,H,W,3], RGB


def asked_labels(
    names: Sequence[str], seeds: Sequence[int], *, known: Sequence[str], typical: Rows
) -> Rows:
    """Returns the label rows [N,L] of N seeds: `names` each time; no names, the seed's typical row.

    Raises UsageError naming unknown labels.
    """
    if not names:
        return typical[[seed % len(typical) for seed in seeds]]
    return label_rows([names] * len(seeds), known)


def latents(seeds: Sequence[int], z_dim: int, z_dist: str = "normal") -> Tensor:
    """Draws z [N,z_dim], row i by a generator of its own seeded with seeds[i].

    So a picture depends on its seed alone, never on the batch that it is drawn in. A generator
    wants them times its `spec.z_std`.
    """
    rows = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        draw = torch.randn if z_dist == "normal" else torch.rand
        rows.append(draw(z_dim, generator=rng))
    return torch.stack(rows)


def noise_maps(sides: Sequence[int], seeds: Sequence[int]) -> list[Tensor]:
    """Draws noise [N,1,s,s] for each side s, row i by a source of its own made from seeds[i].

    The source is another one than that of z, so that the two have nothing in common.
    """
    rows: list[list[Tensor]] = []
    for seed in seeds:
        mixed = int.from_bytes(hashlib.sha256(f"noise {seed}".encode()).digest()[:7], "big")
        rng = torch.Generator().manual_seed(mixed)
        rows.append([torch.randn(1, side, side, generator=rng) for side in sides])
    return [torch.stack(maps) for maps in zip(*rows, strict=True)]


def draw(
    generator: GeneratorNet,
    labels: Rows,
    seeds: Sequence[int],
    *,
    psi: float = 1.0,
    noise: str = "const",
    w: Tensor | None = None,
) -> Pictures:
    """Draws one picture for each row of labels [N,L] and seed -> uint8 [N,R,R,3].

    psi is the truncation: 1 = full variety, 0 = the mean face of the labels. noise is "const" (the
    generator's own maps), "none", or "random": drawn anew for each picture, by its seed. A given
    w [N,K,W] is drawn as it is; seeds then only choose the noise.

    Raises UsageError if the numbers of rows, seeds or labels do not fit, psi is outside 0 to 2,
    or w or noise is given to a family without W or noise.
    """
    spec = generator.spec
    if labels.shape != (len(seeds), len(spec.labels)):
        raise UsageError(
            f"labels are {list(labels.shape)}; {[len(seeds), len(spec.labels)]} wanted "
            f"for {len(seeds)} seeds and {len(spec.labels)} labels"
        )
    if len(seeds) == 0:
        return np.zeros((0, spec.resolution_px, spec.resolution_px, 3), dtype=np.uint8)
    z = latents(seeds, spec.z_dim, spec.z_dist) * spec.z_std
    return draw_latents(generator, z, labels, psi=psi, noise=noise, noise_seeds=seeds, w=w)


@torch.no_grad()
def draw_latents(
    generator: GeneratorNet,
    z: Tensor,
    labels: Rows,
    *,
    psi: float = 1.0,
    noise: str = "const",
    noise_seeds: Sequence[int] = (),
    w: Tensor | None = None,
) -> Pictures:
    """Draws latents z [N,Z], z_std already in them, with labels [N,L] -> uint8 [N,R,R,3].

    labels may lie between 0 and 1. noise_seeds, N of them, are needed for noise "random" only;
    the rest is as in `draw`.
    """
    check_drawing(generator.spec, psi=psi, noise=noise)
    if w is not None:
        _check_w(generator.spec, w, len(z))
    if noise == "random" and len(noise_seeds) != len(z):
        raise UsageError(f"{len(noise_seeds)} noise seeds for {len(z)} pictures")
    device = device_of(generator)
    pictures = []
    for start in range(0, len(z), CHUNK):
        part = slice(start, start + CHUNK)
        maps: str | list[Tensor] = noise
        if noise == "random":
            seeded = noise_maps(generator.noise_sides(), noise_seeds[part])
            maps = [one.to(device) for one in seeded]
        images = generator(
            z[part].to(device),
            torch.from_numpy(labels[part]).to(device),
            psi=psi,
            w=None if w is None else w[part].to(device),
            noise=maps,
        )
        pictures.append(to_uint8(images))
    return np.concatenate(pictures)


@torch.no_grad()
def map_latents(generator: GeneratorNet, z: Tensor, labels: Rows, *, psi: float = 1.0) -> Tensor:
    """Maps latents z [N,Z], z_std in them, and labels [N,L] to truncated w [N,K,W] on the CPU.

    Raises UsageError if the family has no W or psi is outside 0 to 2.
    """
    check_drawing(generator.spec, psi=psi, noise="const")
    require_w(generator.spec, "a place in W")
    device = device_of(generator)
    rows = torch.from_numpy(labels).to(device)
    w = generator.map(z.to(device), rows)
    assert w is not None, f"{generator.spec.family} says can_w and maps to nothing"
    return generator.truncated(w, rows, psi).cpu().contiguous()  # the K rows may be one in memory


def check_drawing(spec: GeneratorSpec, *, psi: float, noise: str) -> None:
    """Raises UsageError if psi is out of range or the noise is not what the family can do."""
    if not 0 <= psi <= 2:
        raise UsageError(f"psi is {psi:g}; 0 (the mean face) to 2 wanted, 1 is full variety")
    if noise not in NOISES:
        raise UsageError(f'noise is "{noise}"; one of {", ".join(NOISES)} wanted')
    if noise != "const":
        require_noise(spec, f"noise {noise}")


def device_of(generator: GeneratorNet) -> torch.device:
    """Returns the device that a generator's weights lie on."""
    return next(generator.parameters()).device


def to_uint8(images: Tensor) -> Pictures:
    """Turns [N,3,H,W] in [-1,1] into uint8 [N,H,W,3], rounding to the nearest."""
    scaled = images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def grid(images: Pictures, columns: int) -> Image.Image:
    """Lays pictures [N,H,W,3] out row by row, `columns` wide; the last row is filled with white."""
    return Image.fromarray(laid_out(images, columns))


def laid_out(images: Pictures, columns: int) -> npt.NDArray[np.uint8]:
    """Returns the grid of pictures [N,H,W,3] as an array [H·rows, W·columns, 3]."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * columns, height, width, 3), 255, dtype=np.uint8)
    sheet[:count] = images
    laid = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return laid.reshape(rows * height, columns * width, 3)


def sample_sheet(generator: GeneratorNet, rows: Rows, *, seed: int, count: int = 32) -> Pictures:
    """Draws `count` pictures with typical labels of `rows` [M,L]; the same ones for a seed."""
    labels = typical_labels(rows, count, seed)
    return draw(generator, labels, range(seed, seed + count))


def titled(table: Image.Image, titles: Sequence[str], *, row_px: int) -> Image.Image:
    """Returns the table with a title at the left of each of its rows, which are row_px high."""
    margin = 8 + max(round(ImageDraw.Draw(table).textlength(title)) for title in titles)
    sheet = Image.new("RGB", (margin + table.width, table.height), "white")
    sheet.paste(table, (margin, 0))
    pen = ImageDraw.Draw(sheet)
    for row, title in enumerate(titles):
        pen.text((4, row_px * row + row_px // 2), title, fill="black", anchor="lm")
    return sheet


SOFTWARE = "Omokage"
AS_THEY_COME = "as they come"


def drawing_facts(
    generator: GeneratorNet,
    *,
    tool: str,
    seeds: Sequence[int],
    labels: Sequence[str],
    psi: float,
    noise: str,
    **more: object,
) -> dict[str, str]:
    """Returns what a drawing was made from, as texts by name; `more` are the tool's own options.

    Neither time nor path is among them, so that the same drawing has the same bytes.
    """
    spec = generator.spec
    facts = {
        "generator": generator_digest(generator),
        "family": f"{spec.family}, {spec.resolution_px} px",
        "tool": tool,
        "seeds": shortened(seeds),
        "labels": "; ".join(labels) if any(labels) else AS_THEY_COME,
        "psi": f"{psi:g}",
        "noise": noise,
        **{name: str(value) for name, value in more.items()},
    }
    return {"Software": SOFTWARE, **{f"omokage {name}": text for name, text in facts.items()}}


def png_bytes(picture: Image.Image, facts: Mapping[str, str]) -> bytes:
    """Returns the picture as a PNG with the facts as text chunks (tEXt; iTXt beyond Latin-1)."""
    chunks = PngImagePlugin.PngInfo()
    for name, text in facts.items():
        chunks.add_text(name, text)
    file = io.BytesIO()
    picture.save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def shortened(seeds: Sequence[int]) -> str:
    """Returns `0-15,20` for the seeds 0 to 15 and 20."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)


def _check_w(spec: GeneratorSpec, w: Tensor, count: int) -> None:
    require_w(spec, "a given w")
    wanted = (count, spec.w_layers, spec.w_dim)
    if w.shape != wanted:
        raise UsageError(f"w is {list(w.shape)}; {list(wanted)} wanted for {count} pictures")


_ANY = "grid, table, sweep, and morph and loop, each with --space z"


def require_w(spec: GeneratorSpec, wanted: str) -> None:
    """Raises UsageError if the family has no W, which `wanted` needs."""
    if not spec.can_w:
        able = [name for name, family in FAMILIES.items() if family.has_w]
        raise UsageError(
            f"{spec.family} has no W, which {wanted} needs. It can do {_ANY}.{_families(able)}"
        )


def require_mixing(spec: GeneratorSpec) -> None:
    """Raises UsageError if the family's layers cannot take styles of two pictures."""
    require_w(spec, "style mixing")
    if not spec.can_mixing:
        raise UsageError(f"{spec.family} cannot mix styles: all its layers take the same w.")


def require_noise(spec: GeneratorSpec, wanted: str) -> None:
    """Raises UsageError if the family takes no noise maps."""
    if not spec.can_noise:
        raise UsageError(
            f"{spec.family} has no noise maps, so {wanted} means nothing to it: leave --noise at "
            "const. Its pictures come from the seed and the labels alone."
        )


def _families(able: list[str]) -> str:
    return f" Families with W: {', '.join(able)}." if able else ""
