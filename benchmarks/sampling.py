"""`python -m benchmarks.sampling`: seconds that a 10 s label morph at 128 px, 30 frames/s, takes.

Each network has random weights, which take as long as trained ones: stylegan2 at several widths,
its full one (base 16384) among them, and dcgan64, whose 64 px are enlarged to 128. The film is an
MP4 written to a temporary folder; its drawing and its encoding are timed apart too.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.process import peak_mb
from models.families import family_of
from models.families.base import GeneratorNet, NetworkSize
from models.labels import label_rows
from models.sampling.characters import characters
from models.sampling.clips import Clip, make_clip, morph, one_way
from models.sampling.video import write_clip

LABELS = ("blonde_hair", "black_hair", "blue_eyes", "long_hair")
SIDE_PX = 128
LIMIT_S = 60.0  # limit on two cores
FULL = 16_384


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its line."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    networks = {f"stylegan2/{base}": _network("stylegan2", base) for base in options.bases}
    networks["dcgan64"] = _network("dcgan64", 0)
    results = {name: _timed(network, options) for name, network in networks.items()}
    for name, one in results.items():
        print(f"{name}: {one}", file=sys.stderr)
    widest = f"stylegan2/{max(options.bases)}"
    result = {
        "benchmark": "sampling",
        "value": results[widest]["film_s"],
        "unit": "s",
        "network": widest,
        "limit_s": LIMIT_S,
        "frames": round(options.seconds * options.fps),
        "side_px": SIDE_PX,
        "networks": results,
        "peak_mb": round(peak_mb(), 1),
        "device": f"cpu x{options.threads}",
    }
    print(json.dumps(result))


def _network(family: str, channel_base: int) -> GeneratorNet:
    torch.manual_seed(0)
    maker = family_of(family)
    side_px = SIDE_PX if SIDE_PX in maker.resolutions_px else maker.resolutions_px[0]
    size = NetworkSize(side_px, channel_base=channel_base)
    return maker.generator(maker.spec(LABELS, size)).eval().requires_grad_(False)


def _timed(network: GeneratorNet, options: argparse.Namespace) -> dict[str, float]:
    labels = [label_rows([[name, "blue_eyes"]], LABELS) for name in LABELS[:2]]
    way = morph(network, *(characters(network.spec, [1], row) for row in labels))
    times = one_way(round(options.seconds * options.fps))
    clip = make_clip(network, [1], way, times, cell_px=SIDE_PX)
    _drawn(clip, times[:8])  # warm up
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "morph.mp4"
        started, cpu_started = time.perf_counter(), time.process_time()
        write_clip(clip, [film], fps=options.fps)
        film_s = time.perf_counter() - started
        cpu_s = time.process_time() - cpu_started
        size = film.stat().st_size
    part = times[:: max(1, len(times) // 32)]
    started = time.perf_counter()
    _drawn(clip, part)
    frame_s = (time.perf_counter() - started) / len(part)
    return {
        "film_s": round(film_s, 2),
        "film_cpu_s": round(cpu_s, 2),  # of all threads: the better figure on a shared machine
        "frames_per_s": round(len(times) / film_s, 1),
        "draw_ms_a_frame": round(1000 * frame_s, 1),
        "film_kb": round(size / 1000, 1),
    }


def _drawn(clip: Clip, times: list[float]) -> None:
    for _frame in clip.frames_at(times):
        pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sampling",
        description="Times a label morph as an MP4 at 128 px with random weights.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the film")
    parser.add_argument("--fps", type=int, default=30, help="frames a second")
    parser.add_argument(
        "--bases", type=int, nargs="+", default=[4096, FULL], help="channel bases of stylegan2"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    return parser


if __name__ == "__main__":
    main()
