"""`python -m benchmarks.upscaling`: seconds to make a drawn face larger, on one core.

Ours (tiles, checks, rounding) against the same network run once on the whole padded picture by
bare ncnn, and against Pillow's bicubic: 64 to 128 px, 128 to 256, 128 to 512. The three take turns,
so that what else runs on the machine falls on all of them; it reports medians. Core seconds count
the CPU time of a thread, the better figure on a shared machine.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import ncnn
import numpy as np
from PIL import Image

from benchmarks.process import peak_mb
from dataset.decode import Picture
from demo.painter import draw
from studio.upscaling import KINDS, UPSCALERS, network_files, upscale

CASES = ((64, 2), (128, 2), (128, 4))  # side in px, factor
LIMIT_S = 1.0  # limit of 128 to 512 px
SEED = 9000  # of the drawn picture


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its line."""
    options = _parser().parse_args(arguments)
    bare = Bare(options.model)
    cases = {}
    for side, factor in CASES:
        name = f"{side} to {side * factor} px"
        cases[name] = _timed(_face(side), factor, bare, options)
        print(f"{name}: {cases[name]}", file=sys.stderr)
    longest = cases[name]
    result = {
        "benchmark": "upscaling",
        "value": longest["ours_core_s"],
        "unit": "s of one core",
        "case": name,
        "limit_s": LIMIT_S,
        "model": options.model,
        "rounds": options.rounds,
        "cases": cases,
        "peak_mb": round(peak_mb(), 1),
        "device": "cpu x1",
    }
    print(json.dumps(result))


class Bare:
    """The same network as a plain loop around ncnn: no tiles, the whole padded picture at once."""

    def __init__(self, model: str) -> None:
        files = network_files(model, -1)
        self._margin = KINDS[model].margin_px
        self._net = ncnn.Net()
        self._net.opt.num_threads = 1
        self._net.load_param(str(files.param))
        self._net.load_model(str(files.weights))

    def upscale(self, picture: Picture, factor: int) -> Picture:
        """Returns the picture `factor` times as large: 2, or 4 by twice 2; even sides only."""
        for _ in range(factor // 2):
            margin = ((self._margin, self._margin),) * 2
            whole = np.pad(picture, (*margin, (0, 0)), "edge").transpose(2, 0, 1)
            planes = np.ascontiguousarray(whole, np.float32) / np.float32(255)
            extractor = self._net.create_extractor()
            extractor.input("Input1", ncnn.Mat(planes))  # reads `planes` in place
            _, made = extractor.extract("Eltwise4")
            larger = np.clip(np.rint(255 * np.array(made)), 0, 255)
            picture = np.ascontiguousarray(larger.transpose(1, 2, 0), np.uint8)
        return picture


def _timed(
    picture: Picture, factor: int, bare: Bare, options: argparse.Namespace
) -> dict[str, float]:
    ways: dict[str, Callable[[], Picture]] = {
        "ours": lambda: upscale(picture, factor, model=options.model),
        "bare": lambda: bare.upscale(picture, factor),
        "bicubic": lambda: _bicubic(picture, factor),
    }
    made = {name: way() for name, way in ways.items()}  # warm up
    wall: dict[str, list[float]] = {name: [] for name in ways}
    core: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            started, core_started = time.perf_counter(), time.thread_time()
            way()
            wall[name].append(time.perf_counter() - started)
            core[name].append(time.thread_time() - core_started)
    results = {f"{name}_s": round(statistics.median(wall[name]), 4) for name in ways}
    results |= {f"{name}_core_s": round(statistics.median(core[name]), 4) for name in ways}
    apart = np.abs(made["ours"].astype(int) - made["bare"])
    return results | {"most_apart_of_255": int(apart.max())}


def _bicubic(picture: Picture, factor: int) -> Picture:
    size = (picture.shape[1] * factor, picture.shape[0] * factor)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _face(side: int) -> Picture:
    drawing = draw(SEED)
    face = drawing.faces[0]
    box = (face.x, face.y, face.x + face.w, face.y + face.h)
    cut = drawing.image.convert("RGB").crop(box)
    return np.asarray(cut.resize((side, side), Image.Resampling.LANCZOS))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.upscaling",
        description="Times upscaling of a drawn face against bare ncnn and bicubic.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", choices=UPSCALERS, default=UPSCALERS[0], help="upscaler")
    parser.add_argument("--rounds", type=int, default=15, help="turns of which the median counts")
    return parser


if __name__ == "__main__":
    main()
