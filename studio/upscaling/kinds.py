"""The kinds of upscaler: whose files they are, and what their networks ask of a tile."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """A place where a network weighs its channels by their means over all that it sees.

    The means must be the whole picture's, not a tile's, or each tile comes out a little different:
    at the borders of cunet's tiles that would be a step of up to 29 of 255.
    """

    features: str  # the blob whose channels are weighed, [C, H, W]
    means: str  # the blob with their means, [C]
    before: int  # cells of the features that lie left of a tile's own first one
    px: int  # pixels of the picture to a cell, a side


@dataclass(frozen=True)
class Kind:
    """One network architecture with the weights of one training; each doubles the sides."""

    folder: str  # below the package's models/
    margin_px: int  # what the network takes off each side of its input, before doubling
    tile_px: int  # side of the tiles, margin not counted
    even: bool = False  # whether a tile's sides must be even: it halves them and doubles them back
    gates: tuple[Gate, ...] = ()  # in the order in which the network comes to them


# By cunet's strides and unpadded convolutions: each cell's place follows from its layers.
_CUNET_GATES = (
    Gate("Convolution5_ReLU5", "Pooling1", before=6, px=2),
    Gate("Convolution13_ReLU13", "Pooling2", before=7, px=1),
    Gate("Convolution18_ReLU17", "Pooling3", before=1, px=2),
    Gate("Convolution22_ReLU21", "Pooling4", before=1, px=1),
)

# upconv_7, 256 -> 512 on one core: 0.36 s in tiles of 64 px, 0.55 in 128: caches hold the former.
# cunet: a picture of one tile needs no passes of their own for its gates' means, and a tile of 128
# px takes 0.4 GB of memory, one of 256 px 1.2.
KINDS = {
    "anime": Kind("models-upconv_7_anime_style_art_rgb", margin_px=7, tile_px=64),
    "photo": Kind("models-upconv_7_photo", margin_px=7, tile_px=64),
    "cunet": Kind("models-cunet", margin_px=18, tile_px=128, even=True, gates=_CUNET_GATES),
}
UPSCALERS = tuple(KINDS)
FACTORS = (2, 4)
DENOISE = (-1, 0, 1, 2, 3)  # -1: none; 0 to 3: traces of JPEG taken away, little to much
