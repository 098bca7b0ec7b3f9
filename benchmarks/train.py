"""`python -m benchmarks.train`: how fast each family trains here, and in how much memory.

Each family is trained in a process of its own on made-up pictures: on a GPU at its preset's full
size, compiled and in bfloat16, on CPUs at widths that suit them. It reports pictures per second,
peak memory, and which share of a step is spent waiting for data. Then our `stylegan2` step is timed
beside a plain PyTorch one of the same widths (`benchmarks.plain_stylegan2`), by turns in one
process; lazy penalties count as often as they come. The last line on stdout is JSON.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.plain_stylegan2 import PlainSettings, PlainSize, PlainTraining
from benchmarks.process import BenchmarkError, peak_mb, run_module
from dataset.errors import OmokageError
from models.config import TrainConfig, overridden
from models.families import FAMILIES, family_of
from models.presets import PRESETS
from models.training.checkpoint import TrainState
from models.training.data import Batches
from models.training.distributed import gpu_count, held_device, synchronise
from models.training.loop import new_state, set_up, uses_bf16
from models.training.losses import positive_weights
from models.training.parts import Parts
from models.training.step import train_step

# As many labels as a real set has, and their names, by which a family may choose.
LABELS = (
    *("short_hair", "long_hair", "blonde_hair", "black_hair", "brown_hair", "blue_hair"),
    *("white_hair", "pink_hair", "grey_hair", "purple_hair", "red_hair", "green_hair"),
    *("blue_eyes", "red_eyes", "brown_eyes", "green_eyes", "purple_eyes", "yellow_eyes"),
    *("hair_ornament", "animal_ears", "twintails", "ahoge", "ponytail"),
)
ROWS = 2048  # made-up pictures

# What fits two cores: small widths and 64 px, where the family's sides are not fixed.
_SMALL: dict[str, Any] = {"batch": 16, "compile": False, "precision": "fp32"}
_NARROW: dict[str, Any] = {"g_width": 0.25, "d_width": 0.5}
_FEW: dict[str, Any] = {"g_channel_base": 1024, "d_channel_base": 1024, "channel_max": 128}
_FEW |= {"w_dim": 128, "mapping_layers": 2, "resolution_px": 64}
ON_CPU: dict[str, dict[str, Any]] = {
    "dcgan64": _SMALL | _NARROW,
    "dcgan96": _SMALL | _NARROW,
    "acgan64": _SMALL | _NARROW,
    "srresnet": _SMALL | _NARROW | {"blocks": 4, "resolution_px": 64},
    "stylegan2": _SMALL | _FEW,
    "omokage": _SMALL | _FEW,
}
# Both sides of the comparison, which needs no labels: without them the plain one is the paper's.
COMPARED = TrainConfig(
    family="stylegan2",
    resolution_px=64,
    g_channel_base=2048,
    d_channel_base=2048,
    batch=8,
    lr_g=2e-3,
    lr_d=2e-3,
    beta1=0.0,
    r1_every=16,
    pl_weight=2.0,
    pl_every=4,
    mixing=0.9,
    flip=False,
    precision="fp32",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        result = run(options)
    except OmokageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BenchmarkError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    line = json.dumps(result)
    if options.out:
        Path(options.out).write_text(f"{json.dumps(result, indent=1)}\n")
    print(line, flush=True)
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measures what the options ask for; returns the result."""
    if options.child:
        work = _compared if options.child == "plain" else _measured
        with held_device(options.device) as device:
            return work(options, device)
    chosen = options.families.split(",") if options.families else list(FAMILIES)
    families = {family: _of_family(options, family) for family in chosen if family_of(family)}
    with held_device(options.device) as device:
        result: dict[str, Any] = {
            "benchmark": "train",
            "device": device_name(device),
            "torch": torch.__version__,
            "runs": options.runs,
            "families": families,
        }
    if not options.skip_plain:
        step = _child(options, "plain")
        result |= {"value": step["ratio"], "unit": "ours / plain stylegan2 step", "step": step}
    return result


def config_of(family: str, device: torch.device, overrides: list[str]) -> TrainConfig:
    """Returns the settings that a family is measured with on a device."""
    config = dataclasses.replace(PRESETS[family], device=str(device))
    if device.type == "cpu":
        config = dataclasses.replace(config, **ON_CPU[family])
    else:
        config = dataclasses.replace(config, compile=True)
    return overridden(config, overrides)


class Training:
    """A training of made-up pictures, of which single steps can be taken."""

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        *,
        labels: Sequence[str],
        backend: str = "inductor",
    ) -> None:
        set_up(config, device)
        names = family_of(config.family).labels(tuple(labels))
        self.config, self.device = config, device
        self.state = new_state(config, names, device)
        self.bf16 = uses_bf16(config, device)
        G, D = self.state.G, self.state.D
        self.parts = Parts(G, D, bf16=self.bf16, compiled=config.compile, backend=backend)
        rows = np.random.default_rng(0).random((ROWS, len(names))) < 0.2
        self.positive_weight = positive_weights(torch.from_numpy(rows).float()).to(device)
        self._labels = rows

    def batches(self, images: npt.NDArray[np.uint8]) -> "TimedBatches":
        """Returns batches of these pictures, up to ROWS, and of made-up labels."""
        config = self.config
        labels = self._labels[: len(images)]
        return TimedBatches(
            images, labels, batch=config.batch, seed=config.seed, device=self.device
        )

    def step(
        self, batches: Batches, state: TrainState, config: TrainConfig, parts: Parts
    ) -> dict[str, Tensor]:
        """Takes one step on these batches."""
        weights = self.positive_weight
        return train_step(state, config, batches, parts=parts, positive_weight=weights)

    def steps(self, batches: Batches, count: int) -> float:
        """Takes `count` steps and returns the seconds that they took, all work done."""
        synchronise(self.device)
        began = time.perf_counter()
        for _ in range(count):
            self.step(batches, self.state, self.config, self.parts)
        synchronise(self.device)
        return time.perf_counter() - began


class TimedBatches(Batches):
    """Batches that can tell how long they were waited for."""

    def __init__(self, *rest: Any, device: torch.device, **named: Any) -> None:
        super().__init__(*rest, device=device, **named)
        self._on, self.timing, self.waited_s = device, False, 0.0

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """As of `Batches`; while `timing`, what came before is done with first and not counted."""
        if not self.timing:
            return super().at(step)
        synchronise(self._on)
        began = time.perf_counter()
        found = super().at(step)
        synchronise(self._on)
        self.waited_s += time.perf_counter() - began
        return found


def made_up(folder: Path, side_px: int) -> npt.NDArray[np.uint8]:
    """Returns ROWS pictures [ROWS,3,side,side], mapped from a file as those of a real set are."""
    shape = (ROWS, 3, side_px, side_px)
    path = folder / "pictures.npy"
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    rng = np.random.default_rng(1)
    for row in range(ROWS):
        made[row] = rng.integers(0, 256, shape[1:], np.uint8)
    made.flush()
    mapped: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return mapped


def _measured(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Trains one family; only the child runs this."""
    config = config_of(options.child, device, options.set)
    training = Training(config, device, labels=LABELS)
    period = period_of(config)
    count = period * math.ceil(options.steps / period)
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="omokage-bench-"))
        images = made_up(Path(folder), config.resolution_px)
        batches = opened.enter_context(contextlib.closing(training.batches(images)))
        began = time.perf_counter()
        training.steps(batches, period + 1)  # every graph that is compiled, and its buffers
        warm_s = time.perf_counter() - began
        training.steps(batches, period - 1)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = [training.steps(batches, count) / count for _ in range(options.runs)]
        batches.timing = True
        waits = []
        for _ in range(options.runs):
            batches.waited_s = 0.0
            whole = training.steps(batches, count)
            waits.append(batches.waited_s / whole)
    rates = [config.images_a_step / each for each in seconds]
    return {
        "images_per_s": round(statistics.median(rates), 1),
        "stdev": round(statistics.stdev(rates), 1) if len(rates) > 1 else 0.0,
        "s_per_1000_images": round(1000 / statistics.median(rates), 3),
        "step_ms": round(1000 * statistics.median(seconds), 2),
        "peak_mb": round(_peak_mb(device), 1),
        "data_wait": round(statistics.median(waits), 5),
        "warm_up_s": round(warm_s, 1),
        "steps_a_run": count,
        "resolution_px": config.resolution_px,
        "batch": config.batch,
        "g_parameters": _parameters(training.state.G),
        "d_parameters": _parameters(training.state.D),
        "loss": config.loss,
        "precision": "bf16" if training.bf16 else "fp32",
        "compiled": config.compile,
    }


def _compared(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Times our step and the plain one by turns; only the child runs this."""
    config = dataclasses.replace(COMPARED, device=str(device), compile=device.type == "cuda")
    config = overridden(config, options.set)
    ours = Training(config, device, labels=())
    plain = plain_training(config, device)
    _check_same(ours, plain)
    period = period_of(config)
    sides: dict[str, list[float]] = {"ours": [], "plain": []}
    cpu = {"ours": 0.0, "plain": 0.0}  # what a machine that is shared does not hide
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="omokage-bench-"))
        images = made_up(Path(folder), config.resolution_px)
        batches = opened.enter_context(contextlib.closing(ours.batches(images)))
        others = opened.enter_context(contextlib.closing(ours.batches(images)))
        plain_steps = plain_stepper(plain, others, device)
        for turn in range(options.runs + 1):
            took, began = {"ours": 0.0, "plain": 0.0}, time.process_time()
            for _ in range(period):
                took["ours"] += ours.steps(batches, 1)
                between = time.process_time()
                took["plain"] += plain_steps(1)
                ended = time.process_time()
                if turn > 0:
                    cpu["ours"] += between - began
                    cpu["plain"] += ended - between
                began = ended
            if turn == 0:
                continue  # it warms up
            for side, seconds in took.items():
                sides[side].append(seconds / period)
            _say(f"turn {turn}: " + ", ".join(f"{k} {v / period:.3f} s" for k, v in took.items()))
    ratios = [own / other for own, other in zip(*sides.values(), strict=True)]
    medians = {side: statistics.median(seconds) for side, seconds in sides.items()}
    return {
        "ratio": round(medians["ours"] / medians["plain"], 3),
        "ratio_stdev": round(statistics.stdev(ratios), 3) if len(ratios) > 1 else 0.0,
        "cpu_ratio": round(cpu["ours"] / cpu["plain"], 3),
        "ours_s": round(medians["ours"], 4),
        "plain_s": round(medians["plain"], 4),
        "turns": options.runs,
        "steps_a_turn": period,
        "resolution_px": config.resolution_px,
        "channel_base": config.g_channel_base,
        "batch": config.batch,
        "g_parameters": _parameters(ours.state.G),
        "d_parameters": _parameters(ours.state.D),
        "compiled": config.compile,
    }


def plain_training(config: TrainConfig, device: torch.device) -> PlainTraining:
    """Returns a plain training of the widths and penalties of `stylegan2` under these settings."""
    size = PlainSize(
        resolution_px=config.resolution_px,
        channel_base=config.g_channel_base,
        channel_max=config.channel_max,
        w_dim=config.w_dim,
        mapping_layers=config.mapping_layers,
    )
    shared = ("batch", "r1_gamma", "r1_every", "pl_weight", "pl_every", "mixing")
    settings = {name: getattr(config, name) for name in shared}
    return PlainTraining(size, PlainSettings(lr=config.lr_g, **settings), device)


def plain_stepper(
    plain: PlainTraining, batches: Batches, device: torch.device
) -> Callable[[int], float]:
    """Returns what takes so many plain steps and returns their seconds, all work done."""
    number = 0

    def steps(count: int) -> float:
        nonlocal number
        synchronise(device)
        began = time.perf_counter()
        for _ in range(count):
            plain.step(number, batches.at(number)[0])
            number += 1
        synchronise(device)
        return time.perf_counter() - began

    return steps


def _check_same(ours: Training, plain: PlainTraining) -> None:
    for name, own, other in (("G", ours.state.G, plain.G), ("D", ours.state.D, plain.D)):
        if _parameters(own) != _parameters(other):
            raise BenchmarkError(
                f"{name} has {_parameters(own):,} parameters, the plain one "
                f"{_parameters(other):,}: they are not the same network"
            )


def period_of(config: TrainConfig) -> int:
    """Steps after which every lazy penalty has come as often as it should."""
    lazy = {"r1_every": config.r1_gamma + config.r2_gamma, "pl_every": config.pl_weight}
    return math.lcm(*(getattr(config, name) for name, weight in lazy.items() if weight > 0))


def _parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_mb()


def _of_family(options: argparse.Namespace, family: str) -> dict[str, Any]:
    """Measures a family; on a CPU with the pipeline's settings of malloc, and without them."""
    if options.device != "cpu" and gpu_count():
        return _child(options, family)
    from pipeline.settings import COMPUTING  # not on top: a GPU's machine may lack the pipeline

    made = _child(options, family, variables=COMPUTING)
    plain = _child(options, family)
    return {**made, "plain_malloc_images_per_s": plain["images_per_s"]}


def _child(
    options: argparse.Namespace, work: str, *, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs one measurement in a process of its own, whose peak memory is nobody else's."""
    _say(f"{work}: {options.runs} runs")
    arguments = ["--child", work, "--device", options.device]
    arguments += ["--runs", str(options.runs), "--steps", str(options.steps)]
    arguments += [word for each in options.set for word in ("--set", each)]
    return run_module("benchmarks.train", *arguments, variables=variables)


def device_name(device: torch.device) -> str:
    """Returns the GPU's name, or how many processors' threads are used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu x{torch.get_num_threads()} of {os.cpu_count()}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--families", metavar="A,B", help=f"of {', '.join(FAMILIES)} (default: all)")
    add("--runs", type=int, default=5, metavar="N", help="medians are over (default: 5)")
    add("--steps", type=int, default=16, metavar="N", help="of a run, at least (default: 16)")
    add("--skip-plain", action="store_true", help="leave the comparison with a plain step out")
    add(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of each training"
    )
    add("--out", metavar="FILE", help="write the result here too, as JSON")
    add("--child", default="", help=argparse.SUPPRESS)  # one measurement
    return parser


if __name__ == "__main__":
    sys.exit(main())
