"""The kinds of upscaler: whose files they are, and what their networks ask of a tile."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One network architecture with the weights of one training; each doubles the sides."""

    folder: str  # below the package's models/
    margin_px: int  # what the network takes off each side of its input, before doubling
    even: bool  # whether the sides of its input must be even (it halves them and doubles them back)
    tile_px: int  # side of the pictures it is run on, margin not counted


# upconv_7, 256 -> 512 on one core: 0.36 s in tiles of 64 px, 0.55 in 128: caches hold the former.
# cunet weighs its channels by their mean over the tile, so a tile should hold a whole face.
KINDS = {
    "anime": Kind("models-upconv_7_anime_style_art_rgb", margin_px=7, even=False, tile_px=64),
    "photo": Kind("models-upconv_7_photo", margin_px=7, even=False, tile_px=64),
    "cunet": Kind("models-cunet", margin_px=18, even=True, tile_px=256),
}
UPSCALERS = tuple(KINDS)
FACTORS = (2, 4)
DENOISE = (-1, 0, 1, 2, 3)  # -1: none; 0 to 3: traces of JPEG taken away, little to much
