"""The generator of rosinality's PyTorch StyleGAN2: where each of our tensors stands in it.

Layout, for Generator(size, style_dim W, n_mlp M):

    style.1 ... style.M             weight [W,W], bias [W]             (style.0 has no weights)
    input.input                     [1,C,4,4]
    conv1, convs.0 ...              conv.weight [1,O,I,3,3], noise.weight [1], activate.bias [O],
                                    conv.modulation.{weight [I,W], bias [I]}; convs of even number
                                    double the side and have conv.blur.kernel [4,4]
    to_rgb1, to_rgbs.0 ...          conv.weight [1,3,I,1,1], conv.modulation, bias [1,3,1,1];
                                    to_rgbs have upsample.kernel [4,4]
    noises.noise_0 ...              [1,1,s,s], one for conv1 and each of convs

A checkpoint keeps it as `g_ema`; `latent_avg` [W] beside it is the mean w, which forks repeat for
each layer. Code before January 2020 kept no noises. Under DataParallel all names begin with
`module.`; pSp, e4e and their kin keep it as the `decoder.` of a `state_dict`.
Source: https://github.com/rosinality/stylegan2-pytorch, whose layout this describes.
"""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dataset.errors import TrainingError
from models.import_stylegan2.tensor_table import Found, Row, Table, spec_from
from models.import_stylegan2.torch_file import StoredTensor
from models.io.safe_io import shown

LAYOUT = "rosinality"
CENTRE = "latent_avg"
MARK = "style.1.weight"  # every generator of this layout has it
PREFIXES = ("", "module.", "decoder.")
NOISES = "noises."
NOISE_SEED = 20_191_219  # of the maps of a file that has none


def read_rosinality(held: Any, *, where: str, size_bytes: int) -> Found:
    """Understands what a `.pt` holds: a checkpoint with `g_ema`, or a generator's state alone.

    Raises TrainingError naming what is there if that is no generator of this layout, and every
    tensor that is missing, unknown or misshapen.
    """
    state, centre = _state(held, where=where)
    table = Table(state, where=where, size_bytes=size_bytes)
    layers = _count(table, "style.", ".weight", first=1)
    doublings = _count(table, "to_rgbs.", ".conv.weight", first=0)
    w_dim = table.shape(MARK, dimensions=2)[1]
    colours = table.shape("to_rgb1.conv.weight", dimensions=5)[1]
    if colours != 3:
        raise TrainingError(f"{where}: its pictures have {colours} channels, 3 wanted")
    widths = {4: table.shape("conv1.conv.weight", dimensions=5)[1]}
    for at in range(doublings):
        widths[8 << at] = table.shape(f"convs.{2 * at}.conv.weight", dimensions=5)[1]
    spec = spec_from(
        widths, labels=(), z_dim=w_dim, w_dim=w_dim, mapping_layers=layers, where=where
    )
    filters = [f"convs.{2 * at}.conv.blur.kernel" for at in range(doublings)]
    filters += [f"to_rgbs.{at}.upsample.kernel" for at in range(doublings)]
    table.check_filters(filters, gain=4.0)
    rows = [*_rows(widths, layers=layers, w_dim=w_dim)]
    if centre:
        shape = state[CENTRE].shape
        repeated = shape[-1:] == (w_dim,) and 0 not in shape
        rows.append(Row("w_avg", CENTRE, shape if repeated else (w_dim,)))
    noise: dict[str, Tensor] = {}
    notes = []
    if not any(name.startswith(NOISES) for name in table.names):
        noise = _own_noise([row for row in rows if row.theirs.startswith(NOISES)])
        rows = [row for row in rows if row.ours not in noise]
        notes.append(
            f"the file holds no noise maps; ours are of seed {NOISE_SEED}, so pictures with the "
            "noise const are not its maker's"
        )
    tensors = table.taken(rows, ignored=filters) | noise
    if centre:
        tensors["w_avg"] = _one_row(tensors["w_avg"], where=where)
    return Found(LAYOUT, spec, tensors, centre_known=centre, notes=tuple(notes))


def _own_noise(rows: list[Row]) -> dict[str, Tensor]:
    """Draws the noise maps of `rows` by our names from NOISE_SEED."""
    rng = torch.Generator().manual_seed(NOISE_SEED)
    return {row.ours: torch.randn(row.shape, generator=rng) for row in rows}


def _one_row(centre: Tensor, *, where: str) -> Tensor:
    """Returns the mean w [W] of a tensor [...,W] that repeats it."""
    rows = centre.reshape(-1, centre.shape[-1])
    if not bool((rows == rows[0]).all()):
        raise TrainingError(
            f"{where}: {CENTRE} is {list(centre.shape)} and its rows differ; one mean w "
            f"{list(rows.shape[1:])}, or the same in each row, wanted"
        )
    return rows[0].clone()


def _state(held: Any, *, where: str) -> tuple[dict[str, StoredTensor], bool]:
    """Returns the generator's tensors, the mean w among them, and whether that is there."""
    if not isinstance(held, dict):
        raise TrainingError(f"{where} holds a {type(held).__name__}; a checkpoint or state wanted")
    key = next((key for key in ("g_ema", "state_dict") if key in held), None)
    state = held if key is None else held[key]
    if not isinstance(state, dict):
        raise TrainingError(f"{where}: {key} is a {type(state).__name__}; a state wanted")
    prefix = next((prefix for prefix in PREFIXES if f"{prefix}{MARK}" in state), None)
    if prefix is None:
        raise TrainingError(f"{where} holds no StyleGAN2 generator; {_instead(held, state)}")
    tensors = {
        str(name).removeprefix(prefix): value
        for name, value in state.items()
        if str(name).startswith(prefix)  # beside a decoder stands its encoder
    }
    for name, value in tensors.items():
        if not isinstance(value, StoredTensor):
            kind = type(value).__name__
            raise TrainingError(f"{where}: {shown(prefix + name)} is a {kind}, a tensor wanted")
    centre = held.get(CENTRE)
    if isinstance(centre, StoredTensor):
        tensors[CENTRE] = centre
    elif centre is not None:
        raise TrainingError(f"{where}: {CENTRE} is a {type(centre).__name__}, a tensor wanted")
    return tensors, isinstance(centre, StoredTensor)


def _instead(held: dict[Any, Any], state: dict[Any, Any]) -> str:
    """Says what is in a file without a generator of this layout."""
    if any(str(name).startswith("generator.progression") for name in [*held, *state]):
        return "it is a StyleGAN1"
    if "g" in held and "g_ema" not in held:
        return (
            'g_ema, the averaged generator, is missing; torch.save({"g_ema": its "g"}, FILE) makes '
            "a file of the generator without averaging"
        )
    under = [str(name).removesuffix(MARK) for name in state if str(name).endswith(f".{MARK}")]
    if under:
        return (
            f'one is under "{shown(under[0])}": save what is there, without that prefix, by '
            "torch.save as g_ema"
        )
    names = ", ".join(shown(str(name)) for name in list(state)[:4])
    return f"g_ema or a generator's state with {MARK} wanted, it holds {names or 'nothing'}"


def _count(table: Table, before: str, after: str, *, first: int) -> int:
    """Returns how many tensors "<before>N<after>" there are; N must count up from `first`."""
    pattern = re.compile(rf"{re.escape(before)}(\d{{1,3}}){re.escape(after)}")
    numbers = sorted(int(match[1]) for name in table.names if (match := pattern.fullmatch(name)))
    if not numbers or numbers != list(range(first, first + len(numbers))):
        shown_numbers = ", ".join(map(str, numbers)) or "not at all"
        raise TrainingError(
            f"{table.where}: the tensors {before}N{after} are numbered {shown_numbers}; "
            f"{first}, {first + 1}, … wanted"
        )
    return len(numbers)


def _rows(widths: dict[int, int], *, layers: int, w_dim: int) -> Iterator[Row]:
    for at in range(layers):
        yield Row(f"mapping.layers.{at}.weight", f"style.{at + 1}.weight", (w_dim, w_dim))
        yield Row(f"mapping.layers.{at}.bias", f"style.{at + 1}.bias", (w_dim,))
    yield Row("const", "input.input", (1, widths[4], 4, 4))
    yield from _conv(0, widths[4], widths[4], side=4, w_dim=w_dim)
    yield from _rgb(0, widths[4], w_dim=w_dim)
    for at, side in enumerate(sorted(widths)[1:], start=1):
        before, count = widths[side // 2], widths[side]
        yield from _conv(2 * at - 1, before, count, side=side, w_dim=w_dim)
        yield from _conv(2 * at, count, count, side=side, w_dim=w_dim)
        yield from _rgb(at, count, w_dim=w_dim)


def _conv(at: int, inputs: int, outputs: int, *, side: int, w_dim: int) -> Iterator[Row]:
    ours, theirs = f"convs.{at}", f"convs.{at - 1}" if at else "conv1"
    yield Row(f"{ours}.weight", f"{theirs}.conv.weight", (1, outputs, inputs, 3, 3))
    yield from _affine(ours, theirs, inputs, w_dim=w_dim)
    yield Row(f"{ours}.bias", f"{theirs}.activate.bias", (outputs,))
    yield Row(f"{ours}.noise_strength", f"{theirs}.noise.weight", (1,))
    yield Row(f"{ours}.noise_const", f"noises.noise_{at}", (1, 1, side, side))


def _rgb(at: int, inputs: int, *, w_dim: int) -> Iterator[Row]:
    ours, theirs = f"rgbs.{at}", f"to_rgbs.{at - 1}" if at else "to_rgb1"
    yield Row(f"{ours}.weight", f"{theirs}.conv.weight", (1, 3, inputs, 1, 1))
    yield from _affine(ours, theirs, inputs, w_dim=w_dim)
    yield Row(f"{ours}.bias", f"{theirs}.bias", (1, 3, 1, 1))


def _affine(ours: str, theirs: str, inputs: int, *, w_dim: int) -> Iterator[Row]:
    modulation = f"{theirs}.conv.modulation"
    yield Row(f"{ours}.affine.weight", f"{modulation}.weight", (inputs, w_dim))
    yield Row(f"{ours}.affine.bias", f"{modulation}.bias", (inputs,))
