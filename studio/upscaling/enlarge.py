"""Enlarges a picture 2x or 4x, tile by tile, after every option has been checked."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dataset.decode import Picture
from dataset.errors import UsageError, nearest
from studio.upscaling.waifu2x import (
    DENOISE,
    FACTORS,
    KINDS,
    UPSCALERS,
    Advance,
    Gate,
    Kind,
    Means,
    Network,
    Planes,
    network,
    planes_of,
)
from studio.validation import SIDE_MAX_PX

TILE_MIN_PX, TILE_MAX_PX = 16, 1024


@dataclass(frozen=True)
class Tile:
    """A part of a picture, in its pixels; the tiles of a picture neither overlap nor leave gaps."""

    top: int
    left: int
    height: int
    width: int


def upscale(
    picture: Picture,
    factor: int,
    *,
    model: str = "anime",
    denoise: int = -1,
    tile_px: int | None = None,
    advance: Advance | None = None,
) -> Picture:
    """Returns the picture with sides `factor` times as long: uint8 [H*f, W*f, 3], RGB.

    factor: 2, or 4, which is twice 2. model: one of UPSCALERS. denoise: -1 none, 0 to 3 takes away
    ever more traces of JPEG, in the first doubling alone. tile_px: side of the tiles, by default
    the upscaler's own; memory beside picture and result grows with it alone. advance: is called for
    each finished tile (see `tile_count`); what it raises ends the work.

    The same picture and options give the same bytes; with another tile_px they may differ by 1 of
    255, by rounding. cunet on more than one tile takes about 3x as long (see `Gate`). Any number
    of threads may call it. Raises UsageError, naming every fault, before any work; UpscalerMissing
    if a package is not there.
    """
    check_upscale(picture, factor, model=model, denoise=denoise, tile_px=tile_px)
    kind = KINDS[model]
    side = tile_px or kind.tile_px
    for level in (denoise, -1)[: FACTORS.index(factor) + 1]:
        picture = _doubled(picture, kind, network(model, level), side=side, advance=advance)
    return picture


def tile_count(
    height: int, width: int, factor: int, *, model: str = "anime", tile_px: int | None = None
) -> int:
    """Returns how often `upscale` calls `advance` for a picture of that size."""
    kind = KINDS[model]
    count = 0
    for times in range(FACTORS.index(factor) + 1):
        once = count_tiles(height << times, width << times, tile_px or kind.tile_px)
        count += once * (1 + len(kind.gates)) if once > 1 else once
    return count


def check_upscale(
    picture: Picture, factor: int, *, model: str, denoise: int, tile_px: int | None = None
) -> None:
    """Raises UsageError, naming every fault, if `upscale` would refuse these; does no work."""
    faults = []
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        faults.append(f"the picture is {picture.dtype} {list(picture.shape)}; uint8 [H,W,3] wanted")
    elif not picture.size:
        faults.append("the picture has no pixels")
    elif factor in FACTORS and max(picture.shape) * factor > SIDE_MAX_PX:
        height, width = picture.shape[:2]
        faults.append(
            f"{width}x{height} made {factor}x larger is {width * factor}x{height * factor} px; "
            f"at most {SIDE_MAX_PX} px a side are made"
        )
    if factor not in FACTORS:
        faults.append(f"the factor is {factor}; 2 or 4 wanted")
    if model not in UPSCALERS:
        known = ", ".join(UPSCALERS)
        faults.append(f'there is no upscaler "{model}", only {known}{nearest(model, UPSCALERS)}')
    if denoise not in DENOISE:
        faults.append(f"denoise is {denoise}; -1 (none) or 0 to 3 wanted")
    if tile_px is not None and not TILE_MIN_PX <= tile_px <= TILE_MAX_PX:
        faults.append(f"the tiles are {tile_px} px; {TILE_MIN_PX} to {TILE_MAX_PX} wanted")
    elif tile_px is not None and tile_px % 2:
        faults.append(f"the tiles are {tile_px} px; an even number wanted")
    if faults:
        raise UsageError("; ".join(faults))


def _doubled(
    picture: Picture,
    kind: Kind,
    net: Network,
    *,
    side: int,
    advance: Advance | None,
) -> Picture:
    """Returns the picture with doubled sides, each tile run with real pixels as its margin."""
    height, width = picture.shape[:2]
    doubled = np.empty((2 * height, 2 * width, 3), np.uint8)
    means = gate_means(picture, kind, net, side=side, advance=advance)
    for tile in tiles(height, width, side):
        pixels = with_margin(picture, tile, kind.margin_px, even=kind.even)
        _paste(net.run(planes_of(pixels), means), doubled, tile)
        if advance is not None:
            advance(1)
    return doubled


def _paste(planes: Planes, doubled: Picture, tile: Tile) -> None:
    """Writes a network's answer, rounded, where its tile lies in the doubled picture."""
    rows = slice(2 * tile.top, 2 * (tile.top + tile.height))
    columns = slice(2 * tile.left, 2 * (tile.left + tile.width))
    kept = planes[:, : 2 * tile.height, : 2 * tile.width].transpose(1, 2, 0)
    doubled[rows, columns] = np.clip(np.rint(kept * np.float32(255)), 0, 255).astype(np.uint8)


def gate_means(
    picture: Picture, kind: Kind, net: Network, *, side: int, advance: Advance | None
) -> Means:
    """Returns the means that the network would find if it saw the picture in one piece.

    One pass over all tiles a gate, since a gate's features depend on the gates before it. The
    means of a picture of one tile are left to the network: {}.
    """
    height, width = picture.shape[:2]
    if max(height, width) <= side:
        return {}
    means: Means = {}
    for gate in kind.gates:
        total, cells = np.zeros(1), 0
        for tile in tiles(height, width, side):
            pixels = with_margin(picture, tile, kind.margin_px, even=kind.even)
            features = net.run(planes_of(pixels), means, blob=gate.features)
            own = features[:, *_own(gate, tile, height, width)]
            total = total + own.sum(axis=(1, 2), dtype=np.float64)
            cells += own.shape[1] * own.shape[2]
            if advance is not None:
                advance(1)
        means[gate.means] = (total / cells).astype(np.float32)
    return means


def _own(gate: Gate, tile: Tile, height: int, width: int) -> tuple[slice, slice]:
    """Returns the cells that count for this tile: each of the picture's counts for one tile."""
    return (
        _part(gate, tile.top, tile.height, height),
        _part(gate, tile.left, tile.width, width),
    )


def _part(gate: Gate, start: int, length: int, whole: int) -> slice:
    # What the margins at the picture's own edges give belongs to the tiles there.
    first = 0 if start == 0 else gate.before
    last = None if start + length == whole else gate.before + length // gate.px
    return slice(first, last)


def tiles(height: int, width: int, side: int) -> Iterator[Tile]:
    """Yields a picture's tiles row by row; those at its right and lower edge may be smaller."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Tile(top, left, min(side, height - top), min(side, width - left))


def count_tiles(height: int, width: int, side: int) -> int:
    """Returns how many tiles `tiles` yields."""
    return -(-height // side) * -(-width // side)


def with_margin(picture: Picture, tile: Tile, margin: int, *, even: bool) -> Picture:
    """Returns the tile's pixels and `margin` more on each side, [H+2m, W+2m, 3].

    What lies beyond the picture is its nearest pixel, as if the whole picture had been padded; no
    more of the picture than the tile is copied. even: one further row or column below or at the
    right where a side would be odd.
    """
    more_h, more_w = (tile.height % 2, tile.width % 2) if even else (0, 0)
    rows = _within(tile.top - margin, tile.height + 2 * margin + more_h, picture.shape[0])
    columns = _within(tile.left - margin, tile.width + 2 * margin + more_w, picture.shape[1])
    return np.asarray(picture[np.ix_(rows, columns)], np.uint8)


def _within(start: int, count: int, length: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Returns `count` indices from `start`, those outside of 0 to length - 1 moved to the edge."""
    return np.clip(np.arange(start, start + count, dtype=np.intp), 0, length - 1)
