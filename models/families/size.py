"""How big a network is: the numbers by which the settings scale a family's table."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class NetworkSize:
    """Asked-for sizes of G or D; a family reads those that mean something to it.

    Attributes:
        resolution_px: side of the pictures.
        width: multiplier of the channel counts (families that count by width).
        blocks: residual blocks (`srresnet`).
        channel_base, channel_max: a layer at side s has min(base / s, max) channels.
        w_dim, mapping_layers: of the mapping network; z has w_dim numbers too.

    """

    resolution_px: int
    width: float = 1.0
    blocks: int = 16
    channel_base: int = 16_384
    channel_max: int = 512
    w_dim: int = 512
    mapping_layers: int = 8


def scaled(channels: int, width: float) -> int:
    """Returns `channels` of a family's table at a width; at least 4, so that something is left."""
    return max(4, round(channels * width))
