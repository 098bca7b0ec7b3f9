"""Every family at equal processor time: how near its faces come, and whether labels show.

`python -m benchmarks.families --home var --minutes 10` trains each family's `-small` preset on one
thread of the CPU until it has used so many minutes of processor time (not of the wall: two train
side by side), and then measures what its averaged weights draw against the manifest's eval split:
the Fréchet distance, the share of asked-for hair colours that show, the pictures it has seen. Each
leaves `runs/families/FAMILY/` in the home, with table.png: a hair colour a row, a character a
column. Interrupted, the same command goes on. The last line on stdout is JSON.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks.children import REPOSITORY
from dataset.errors import OmokageError, UsageError
from dataset.manifest import Manifest, load_manifest
from dataset.packed import Packed, pack
from dataset.store import Store
from models.entry import Stopped
from models.extractors import chunks, extractor
from models.families import FAMILIES, family_of
from models.generators import load_generator
from models.labels import typical_labels
from models.loop import train
from models.metrics.frechet import frechet_distance, statistics
from models.metrics.hair import hair_labels, hair_tones, hits, tones_by_label
from models.networks import GeneratorNet
from models.presets import preset
from models.sampling import draw
from models.tables import swap_table
from models.tracking import NoTracker
from models.training_set import TrainingSet

FIGURES = "figures.json"  # written last: where it stands, the family is done
ENDLESS = "total_kimg=1000000"
COLUMNS, ROWS = 8, 6  # of a table
COLOURS = 160  # of a table's palette: a picture for a page of documentation stays below 200 kB


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        result = _family(options, options.child) if options.child else _all(options)
    except OmokageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(result), flush=True)
    return 0


def _all(options: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures the asked-for families, some at once; returns the result."""
    names = options.families.split(",") if options.families else list(FAMILIES)
    for name in names:
        family_of(name)
    with ThreadPoolExecutor(options.at_once) as pool:
        rows = list(pool.map(lambda name: _child(options, name), names))
    manifest = load_manifest(Store(options.home), options.manifest)
    return {
        "benchmark": "families",
        "value": min(row["fd_efficientnet_lite0"] for row in rows),
        "unit": "fd_efficientnet_lite0 of the best",
        "cpu_minutes": options.minutes,
        "fakes": options.fakes,
        "manifest": manifest.digest,
        "train_rows": manifest.train_rows,
        "eval_rows": manifest.eval_rows,
        "families": dict(zip(names, rows, strict=True)),
        "device": f"cpu x1 of {os.cpu_count()} ({platform.machine()})",
        "torch": torch.__version__,
    }


def _child(options: argparse.Namespace, family: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.families", "--child", family]
    command += ["--home", options.home, "--minutes", str(options.minutes)]
    command += ["--fakes", str(options.fakes), "--out", options.out]
    command += ["--manifest", options.manifest] if options.manifest else []
    command += [part for text in options.set for part in ("--set", text)]
    # Set before torch is imported: its threads would otherwise share the processors.
    made = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if made.returncode:
        raise UsageError(f"{family} ended with code {made.returncode}; its words are above")
    row: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return row


def _family(options: argparse.Namespace, family: str) -> dict[str, Any]:
    """Trains one family for the time and measures it; returns its figures."""
    store, out = Store(options.home), f"{options.out}/{family}"
    if store.exists(f"{out}/{FIGURES}"):
        done: dict[str, Any] = store.read_json(f"{out}/{FIGURES}")
        return done
    config = preset(f"{family}-small", [ENDLESS, "device=cpu", "threads=1", *options.set])
    manifest = load_manifest(store, options.manifest)
    splits = {
        split: pack(store, manifest, split, resolution_px=config.resolution_px)
        for split in ("train", "eval")
    }
    reals = splits["train"]
    data = TrainingSet(reals.images, reals.labels, tuple(manifest.labels), manifest.digest)
    used = _TimeLimit(options.minutes * 60)
    try:
        train(
            store,
            out,
            config,
            data=data,
            report=lambda _payload: None,
            tracker=NoTracker(),
            stop_signal=used.signal,
        )
    except Stopped as stopped:
        if stopped.signum != signal.SIGALRM:
            raise
    generator = load_generator(store.url(out))
    figures = {
        "images_seen": _images_seen(store, out),
        "cpu_s": round(used.seconds, 1),
        **_measured(generator, manifest, splits["eval"], fakes=options.fakes),
        "parameters": sum(weight.numel() for weight in generator.parameters()),
        "resolution_px": generator.spec.resolution_px,
        "config_digest": config.digest,
    }
    table = _table(generator, manifest, splits["eval"])
    with store.writing(f"{out}/table.png", durable=False) as file:
        table.quantize(COLOURS).save(file, "PNG", optimize=True)
    store.write_json(f"{out}/{FIGURES}", figures)
    return figures


class _TimeLimit:
    """Tells a training to stop, by SIGALRM, once this process has used so much processor time."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._started = limit_s, time.process_time()
        self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        """The processor time used since."""
        return time.process_time() - self._started

    def signal(self) -> int:
        """Returns SIGALRM when the time is used, else 0."""
        return signal.SIGALRM if self.seconds >= self._limit_s else 0


def _images_seen(store: Store, out: str) -> int:
    lines = store.read_bytes(f"{out}/progress.jsonl").decode().splitlines()
    return int(json.loads(lines[-1])["images_seen"])


def _measured(
    generator: GeneratorNet, manifest: Manifest, reals: Packed, *, fakes: int
) -> dict[str, float]:
    """The distance of `fakes` pictures to all of `reals`, and how often asked-for hair shows."""
    network = extractor("efficientnet_lite0")
    rows = _rows(generator, manifest, reals)
    pictures = reals.images.transpose(0, 2, 3, 1)
    asked = typical_labels(rows, fakes, 0)
    drawn = draw(generator, asked, range(fakes))
    hair = hair_labels(generator.spec.labels)
    tones = hair_tones(np.ascontiguousarray(pictures))
    means = tones_by_label(tones, rows[:, hair])
    distance = frechet_distance(
        statistics(network(chunks(drawn))), statistics(network(chunks(pictures)))
    )
    return {
        "fd_efficientnet_lite0": round(distance, 1),
        "hair_colour_hits": round(hits(hair_tones(drawn), asked[:, hair], means), 3),
        "real_hair_colour_hits": round(hits(tones, rows[:, hair], means), 3),
    }


def _rows(generator: GeneratorNet, manifest: Manifest, reals: Packed) -> npt.NDArray[np.float32]:
    columns = [list(manifest.labels).index(name) for name in generator.spec.labels]
    return reals.labels[:, columns].astype(np.float32)


def _table(generator: GeneratorNet, manifest: Manifest, reals: Packed) -> Image.Image:
    rows, known = _rows(generator, manifest, reals), generator.spec.labels
    frequent = sorted(hair_labels(known), key=lambda column: -rows[:, column].sum())[:ROWS]
    columns = max(4, COLUMNS * 64 // generator.spec.resolution_px)
    return swap_table(generator, rows, [known[column] for column in frequent], seeds=range(columns))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.families", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--home", required=True, metavar="DIR", help="root of the store, with a manifest")
    add("--manifest", metavar="DIGEST", help="the face set (default: the newest)")
    add("--families", default="", metavar="A,B", help="which ones (default: all)")
    add("--minutes", type=float, default=10.0, metavar="M", help="of processor time for each")
    add("--fakes", type=int, default=1000, metavar="N", help="pictures to measure (default: 1000)")
    add("--at-once", type=int, default=os.cpu_count() or 1, metavar="N", help="side by side")
    add("--out", default="runs/families", metavar="RELDIR", help="folder below the home")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of all")
    add("--child", default="", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
