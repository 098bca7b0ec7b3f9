"""Means over a whole picture of the channels that a network's gates weigh, tile by tile."""

import numpy as np

from dataset.decode import Picture
from studio.upscaling.kinds import Gate, Kind
from studio.upscaling.networks import Advance, Means, Network, planes_of
from studio.upscaling.tiles import Tile, tiles, with_margin


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
