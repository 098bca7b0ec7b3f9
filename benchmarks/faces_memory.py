"""`python -m benchmarks.faces_memory`: is the crop stage's peak memory flat?

Made-up pictures of 64 px, all different, are taken as faces already (`cropped`), so that each gives
a crop and a row, and none is a repetition: the most that has to be held. 1,000 are compared with
100,000. The stage runs in a child process with a pool of workers; it reports its own peak memory
and that of each worker.
"""

import argparse
import datetime
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pyarrow as pa

from benchmarks.process import ONE_BLAS_THREAD, peak_mb, run_module
from dataset import tables
from dataset.compute import executor_of, parse_compute
from dataset.cropping import FaceSettings
from dataset.faces import crop_faces
from dataset.schemas import POSTS, POSTS_PATH
from dataset.store import Store, blob_path

SIDE_PX = 64
TAGS = [f"tag_{number}" for number in range(29)]
ROWS_AT_ONCE = 2_000


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its line."""
    options = _parser().parse_args(arguments)
    if options.home:  # the child
        print(json.dumps(_measured(Path(options.home), options.compute)))
        return
    with tempfile.TemporaryDirectory(prefix="omokage-bench-", dir=options.folder) as folder:
        by_count = {
            str(count): _of(Path(folder) / str(count), count, options.compute)
            for count in options.pictures
        }
    growth = {
        name: round(_growth([one[name] for one in by_count.values()]), 3)
        for name in ("parent_mb", "worker_mb")
    }
    result = {
        "benchmark": "faces_memory",
        "value": max(growth.values()),
        "unit": "peak memory, largest over smallest",
        "growth": growth,
        "pictures": by_count,
        "compute": options.compute,
        "device": f"cpu x{os.cpu_count()}",
    }
    print(json.dumps(result))


def make_home(root: Path, count: int) -> None:
    """Writes `count` pictures and their posts, with 30 tags each."""
    store = Store(root)
    rng = np.random.default_rng(0)
    parts = (
        _posts(store, rng, range(first, min(first + ROWS_AT_ONCE, count)))
        for first in range(0, count, ROWS_AT_ONCE)
    )
    batches = (batch for part in parts for batch in part.to_batches())
    tables.write(store, POSTS_PATH, batches, schema=POSTS)


def _posts(store: Store, rng: np.random.Generator, numbers: range) -> pa.Table:
    now = datetime.datetime.now(datetime.UTC)
    lists: dict[str, list[str]] = {name: [] for name in POSTS.names if name.startswith("tags_")}
    rows = [
        {
            **lists,
            "board": "board",
            "post_id": number + 1,
            "sha256": _blob(store, rng),
            "ext": "png",
            "rating": "general",
            "tags_general": ["solo", *TAGS],
            "fetched_at": now,
        }
        for number in numbers
    ]
    return pa.Table.from_pylist(rows, schema=POSTS)


def _blob(store: Store, rng: np.random.Generator) -> str:
    """Stores one picture of rough patches of colour; returns its sha256."""
    patches = rng.integers(0, 255, (8, 8, 3), np.uint8)
    picture = cv2.resize(patches, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_NEAREST)
    content = cv2.imencode(".png", picture)[1].tobytes()
    sha256 = hashlib.sha256(content).hexdigest()
    path = store.state.local(blob_path(sha256, "png"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return sha256


def _of(root: Path, count: int, compute: str) -> dict[str, float]:
    print(f"making {count:,} pictures", file=sys.stderr)
    make_home(root, count)
    arguments = ["--home", str(root.resolve()), "--compute", compute]
    return run_module("benchmarks.faces_memory", *arguments, variables=ONE_BLAS_THREAD)


def _measured(home: Path, compute: str) -> dict[str, float]:
    """The crop stage; only this runs in the child."""
    started = time.perf_counter()
    with executor_of(parse_compute(compute, workers=2)) as executor:
        made = crop_faces(Store(home), FaceSettings(cropped=True), executor)
        workers = [child.pid for child in psutil.Process().children()]
        peaks = [peak_mb(pid) for pid in workers]
    return {
        "parent_mb": round(peak_mb(), 1),
        "worker_mb": round(max(peaks, default=peak_mb()), 1),
        "kept": made.kept,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _growth(peaks: list[float]) -> float:
    return max(peaks) / min(peaks)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faces_memory",
        description="Compares the crop stage's peak memory over numbers of pictures.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--pictures", type=int, nargs="+", default=[1_000, 100_000], help="how many, to compare"
    )
    parser.add_argument("--compute", default="processes:2", help="as OMOKAGE_COMPUTE")
    parser.add_argument("--folder", default=None, help="where the pictures go: 1.5 GB for 100,000")
    parser.add_argument("--home", default="", help=argparse.SUPPRESS)  # the measured child
    return parser


if __name__ == "__main__":
    main()
