"""Pictures made 2x or 4x larger by waifu2x's networks on a CPU, in tiles of bounded memory."""

from studio.upscaling.files import UpscalerMissing
from studio.upscaling.kinds import DENOISE, FACTORS, UPSCALERS
from studio.upscaling.upscaling import check_upscale, tile_count, upscale

__all__ = [
    "DENOISE",
    "FACTORS",
    "UPSCALERS",
    "UpscalerMissing",
    "check_upscale",
    "tile_count",
    "upscale",
]
