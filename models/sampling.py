"""Loads a trained generator and draws pictures with it, each by its own seed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from dataset.errors import TrainingError, UsageError, listed
from dataset.store import Store
from models.families import family_of
from models.labels import Rows, label_rows, typical_labels
from models.networks import GeneratorNet
from models.spec import GeneratorSpec

WEIGHTS = "generator.safetensors"
SPEC = "spec.json"
TYPICAL = "typical_labels.json"
CHUNK = 64  # pictures a pass; part of the drawing, since rounding may depend on it

Pictures = npt.NDArray[np.uint8]  # [N,H,W,3], RGB


def load_generator(folder: str, *, device: str | torch.device = "cpu") -> GeneratorNet:
    """Loads `generator.safetensors` and `spec.json` from a folder or fsspec URL, in eval mode.

    Raises TrainingError naming the file and every fault: a truncated file, tensors that are
    missing, unknown, misshapen or not finite; StoreError if a file is not there.
    """
    store = Store(folder)
    spec = GeneratorSpec.from_json(store.read_json(SPEC), where=store.url(SPEC))
    tensors = read_tensors(store, WEIGHTS)
    with torch.device("meta"):  # no memory is taken before the shapes are known to fit
        network = family_of(spec.family).generator(spec)
    faults = tensor_faults(tensors, network.state_dict())
    if faults:
        raise TrainingError(
            f"{store.url(WEIGHTS)} does not fit {SPEC}:\n{listed(faults)}\n"
            "Both must come from the same training."
        )
    network.load_state_dict(tensors, assign=True)
    return network.to(device).eval().requires_grad_(False)


def typical_rows(folder: str, known: Sequence[str]) -> Rows:
    """Reads the real label rows [M,L] that a generator folder keeps for drawing without wishes.

    Raises TrainingError naming the file if it holds no rows of known labels.
    """
    store = Store(folder)
    found = store.read_json(TYPICAL)
    if not isinstance(found, list) or not found:
        raise TrainingError(f"{store.url(TYPICAL)}: a list of lists of labels is wanted")
    return label_rows(found, known)


def asked_labels(
    names: Sequence[str], seeds: Sequence[int], *, known: Sequence[str], typical: Rows
) -> Rows:
    """Returns the label rows [N,L] of N seeds: `names` each time; no names, the seed's typical row.

    Raises UsageError naming unknown labels.
    """
    if not names:
        return typical[[seed % len(typical) for seed in seeds]]
    return label_rows([names] * len(seeds), known)


def read_tensors(store: Store, path: str) -> dict[str, Tensor]:
    """Reads a safetensors file; raises TrainingError naming it if it is none or is cut short."""
    content = store.read_bytes(path)
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(
            f"{store.url(path)} is no whole safetensors file ({len(content):,} bytes): {error}"
        ) from error


def tensor_faults(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Returns a sentence for every tensor that is missing, unknown, misshapen or not finite."""
    faults = [f"{name} is unknown" for name in found if name not in wanted]
    for name, want in wanted.items():
        have = found.get(name)
        if have is None:
            faults.append(f"{name} is missing")
        elif have.shape != want.shape or have.dtype != want.dtype:
            faults.append(f"{name} is {_kind(have)}, {_kind(want)} wanted")
        elif not bool(torch.isfinite(have).all()):
            faults.append(f"{name} holds numbers that are not finite")
    return faults


def latents(seeds: Sequence[int], z_dim: int, z_dist: str = "normal") -> Tensor:
    """Draws z [N,z_dim], row i by a generator of its own seeded with seeds[i].

    So a picture depends on its seed alone, never on the batch that it is drawn in.
    """
    rows = []
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        draw = torch.randn if z_dist == "normal" else torch.rand
        rows.append(draw(z_dim, generator=rng))
    return torch.stack(rows)


@torch.no_grad()
def draw(
    generator: GeneratorNet, labels: Rows, seeds: Sequence[int], *, psi: float = 1.0
) -> Pictures:
    """Draws one picture for each row of labels [N,L] and seed -> uint8 [N,R,R,3].

    psi is the truncation: 1 = full variety, 0 = the mean face of the labels. Raises UsageError if
    the numbers of rows, seeds or labels do not fit, or psi is outside 0 to 2.
    """
    spec = generator.spec
    if labels.shape != (len(seeds), len(spec.labels)):
        raise UsageError(
            f"labels are {list(labels.shape)}; {[len(seeds), len(spec.labels)]} wanted "
            f"for {len(seeds)} seeds and {len(spec.labels)} labels"
        )
    if not 0 <= psi <= 2:
        raise UsageError(f"psi is {psi:g}; 0 (the mean face) to 2 wanted, 1 is full variety")
    device = next(generator.parameters()).device
    pictures = []
    for start in range(0, len(seeds), CHUNK):
        z = latents(seeds[start : start + CHUNK], spec.z_dim, spec.z_dist).to(device)
        asked = torch.from_numpy(labels[start : start + CHUNK]).to(device)
        pictures.append(to_uint8(generator(z, asked, psi=psi)))
    return np.concatenate(pictures) if pictures else np.zeros((0, *_size(spec)), dtype=np.uint8)


def to_uint8(images: Tensor) -> Pictures:
    """Turns [N,3,H,W] in [-1,1] into uint8 [N,H,W,3], rounding to the nearest."""
    scaled = images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def grid(images: Pictures, columns: int) -> Image.Image:
    """Lays pictures [N,H,W,3] out row by row, `columns` wide; the last row is filled with white."""
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * columns, height, width, 3), 255, dtype=np.uint8)
    sheet[:count] = images
    laid = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return Image.fromarray(laid.reshape(rows * height, columns * width, 3))


def sample_sheet(generator: GeneratorNet, rows: Rows, *, seed: int, count: int = 32) -> Pictures:
    """Draws `count` pictures with typical labels of `rows` [M,L]; the same ones for a seed."""
    labels = typical_labels(rows, count, seed)
    return draw(generator, labels, range(seed, seed + count))


def label_table(
    generator: GeneratorNet,
    row_labels: Sequence[Sequence[str]],
    seeds: Sequence[int],
    *,
    psi: float = 1.0,
    titles: Sequence[str] | None = None,
) -> Image.Image:
    """Draws a table: row i has the labels row_labels[i], column j the seed seeds[j].

    titles, one a row, are written to its left; None writes the labels' names, [] nothing.
    """
    rows = label_rows(row_labels, generator.spec.labels)
    pictures = draw(
        generator, rows.repeat(len(seeds), axis=0), list(seeds) * len(row_labels), psi=psi
    )
    table = grid(pictures, len(seeds))
    if titles is None:
        titles = [" ".join(names).replace("_", " ") for names in row_labels]
    return titled(table, titles, row_px=generator.spec.resolution_px) if titles else table


def titled(table: Image.Image, titles: Sequence[str], *, row_px: int) -> Image.Image:
    """Returns the table with a title at the left of each of its rows, which are row_px high."""
    margin = 8 + max(round(ImageDraw.Draw(table).textlength(title)) for title in titles)
    sheet = Image.new("RGB", (margin + table.width, table.height), "white")
    sheet.paste(table, (margin, 0))
    pen = ImageDraw.Draw(sheet)
    for row, title in enumerate(titles):
        pen.text((4, row_px * row + row_px // 2), title, fill="black", anchor="lm")
    return sheet


def _size(spec: GeneratorSpec) -> tuple[int, int, int]:
    return spec.resolution_px, spec.resolution_px, 3


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
