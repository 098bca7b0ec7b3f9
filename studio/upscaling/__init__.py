"""Pictures made 2x or 4x larger by waifu2x's networks on a CPU, in tiles of bounded memory."""

from studio.upscaling.enlarge import check_upscale, tile_count, upscale
from studio.upscaling.waifu2x import DENOISE, FACTORS, UPSCALERS, UpscalerMissing

__all__ = [
    "DENOISE",
    "FACTORS",
    "UPSCALERS",
    "UpscalerMissing",
    "check_upscale",
    "tile_count",
    "upscale",
]
