"""`python -m benchmarks.engines`: the same crop work on each engine, side by side.

Painted pictures are cropped by a plain loop in one process, by processes of this machine, by a Dask
cluster and by Ray, the last three with as many workers as --workers says and started in the run. Of
each two runs are made, of a batch per worker and of all pictures: the first is what starting costs,
the difference what a picture costs. Processor seconds and memory are those of all processes,
daemons included, sampled five times a second (memory as the proportional set size: of shared pages
a part).
"""

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pyarrow as pa

from benchmarks.process import ONE_BLAS_THREAD, REPOSITORY, BenchmarkError
from dataset import tables
from dataset.compute import parse_compute
from dataset.cropping import FaceSettings
from dataset.crops import BATCH, Cropper, first_posts, keys_of
from dataset.engines import engine_of, map_batches
from dataset.schemas import POSTS, POSTS_PATH
from dataset.store import Store, blob_path

LOOP = "loop"
ENGINES = (LOOP, "processes", "distributed", "ray")
PAINTED = 64
SAMPLED_EVERY_S = 0.2
SETTINGS = FaceSettings()


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its line."""
    options = _parser().parse_args(arguments)
    if options.home:  # the measured child
        print(json.dumps(_cropped(options)))
        return
    if options.pictures <= BATCH * options.workers:
        raise BenchmarkError(f"--pictures: more than {BATCH} a worker wanted")
    with tempfile.TemporaryDirectory(prefix="omokage-bench-") as folder:
        print(f"painting {options.pictures:,} pictures", file=sys.stderr)
        make_home(Path(folder), options.pictures)
        runs = {engine: _measured(engine, Path(folder), options) for engine in options.engines}
    if len({one["digest"] for one in runs.values()}) > 1:
        raise BenchmarkError(f"the engines did not do the same work: {runs}")
    by_engine = {engine: {**one, **_against(one, runs.get(LOOP))} for engine, one in runs.items()}
    result = {
        "benchmark": "engines",
        "value": max(one["pictures_per_s"] for one in by_engine.values()),
        "unit": "pictures/s, of the fastest",
        "pictures": options.pictures,
        "workers": options.workers,
        "engines": by_engine,
        "load_average": [round(one, 1) for one in os.getloadavg()],
        "device": f"cpu x{os.cpu_count()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    print(json.dumps(result))


def make_home(root: Path, count: int) -> None:
    """Fills a home with JPEGs and their posts: PAINTED pictures, coded ever more coarsely."""
    from demo import painter  # only the parent needs it

    store, now = Store(root), datetime.datetime.now(datetime.UTC)
    lists: dict[str, list[str]] = {name: [] for name in POSTS.names if name.startswith("tags_")}
    rows, painted = [], []
    for number in range(count):
        if number < PAINTED:  # painting takes ten times as long as cropping
            picture = np.asarray(painter.draw(number).image)
            painted.append(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95 - number // PAINTED]
        content = cv2.imencode(".jpg", painted[number % PAINTED], quality)[1].tobytes()
        sha256 = hashlib.sha256(content).hexdigest()
        store.write_bytes(blob_path(sha256, "jpg"), content, durable=False)
        post = {"board": "board", "post_id": number + 1, "sha256": sha256, "ext": "jpg"}
        rows.append({**lists, **post, "rating": "general", "fetched_at": now})
    posts = pa.Table.from_pylist(rows, schema=POSTS)
    tables.write(store, POSTS_PATH, posts.to_batches(), schema=POSTS)


def _measured(engine: str, home: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What an engine costs: to start, and for each picture."""
    first = BATCH * options.workers
    start = _run(engine, home, options, pictures=first)
    whole = _run(engine, home, options, pictures=options.pictures)
    more = options.pictures - first
    return {
        "pictures_per_s": round(more / (whole["seconds"] - start["seconds"]), 2),
        "cpu_ms_per_picture": round(1000 * (whole["cpu_s"] - start["cpu_s"]) / more, 2),
        "start_s": round(start["seconds"], 2),
        "start_cpu_s": round(start["cpu_s"], 2),
        "peak_mb": round(whole["peak_mb"]),
        "processes": whole["processes"],
        "digest": whole["digest"],
    }


def _against(one: dict[str, Any], loop: dict[str, Any] | None) -> dict[str, float]:
    if loop is None:
        return {}
    return {
        "overhead_cpu_ms_per_picture": round(
            one["cpu_ms_per_picture"] - loop["cpu_ms_per_picture"], 2
        )
    }


def _run(engine: str, home: Path, options: argparse.Namespace, *, pictures: int) -> dict[str, Any]:
    """Crops some pictures in a child process; adds what all its processes took."""
    command = [sys.executable, "-m", "benchmarks.engines", "--home", str(home)]
    command += ["--engines", engine, "--pictures", str(pictures)]
    command += ["--workers", str(options.workers)]
    child = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **ONE_BLAS_THREAD},
        stdout=subprocess.PIPE,
        text=True,
    )
    seen: dict[tuple[int, float], float] = {}  # processor seconds by process
    peak_mb, most = 0.0, 0
    while child.poll() is None:
        memory_mb, alive = _sampled(child.pid, seen)
        peak_mb, most = max(peak_mb, memory_mb), max(most, alive)
        time.sleep(SAMPLED_EVERY_S)
    assert child.stdout is not None
    said = child.stdout.read()
    if child.returncode != 0:
        raise BenchmarkError(f"{engine} ended with {child.returncode}")
    made: dict[str, Any] = json.loads(said.splitlines()[-1])
    made |= {"cpu_s": sum(seen.values()), "peak_mb": peak_mb, "processes": most}
    print(f"{engine}, {pictures} pictures: {json.dumps(made)}", file=sys.stderr, flush=True)
    return made


def _sampled(pid: int, seen: dict[tuple[int, float], float]) -> tuple[float, int]:
    """Notes the processor seconds of a process and all below; returns their memory and number."""
    memory, alive = 0.0, 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for one in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = one.cpu_times()
                seen[one.pid, one.create_time()] = times.user + times.system
                memory += one.memory_full_info().pss / 2**20
                alive += 1
    return memory, alive


def _cropped(options: argparse.Namespace) -> dict[str, Any]:
    """Crops the first pictures on one engine; only this runs in the child."""
    store = Store(options.home)
    pictures = first_posts(store).select(["sha256", "ext", "cropped"]).slice(0, options.pictures)
    (engine,) = options.engines
    started = time.perf_counter()
    rows = pa.concat_tables(_rows(engine, options.workers, store, pictures)).sort_by("sha256")
    seconds = time.perf_counter() - started
    made = rows["crop_sha256"].drop_null().to_pylist()
    digest = hashlib.sha256("".join(sorted(made)).encode()).hexdigest()[:12]
    return {"seconds": seconds, "faces": len(made), "digest": digest}


def _rows(engine: str, workers: int, store: Store, pictures: pa.Table) -> Iterator[pa.Table]:
    keys = keys_of(pictures)
    if engine == LOOP:
        yield from map(Cropper((store, SETTINGS)), keys)
        return
    with contextlib.ExitStack() as ends:
        if engine == "distributed":
            import distributed  # slow

            cluster: Any = distributed.LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=workers, threads_per_worker=1, dashboard_address=None
            )
            engine = f"{engine}:{ends.enter_context(cluster).scheduler_address}"
        made = ends.enter_context(engine_of(parse_compute(engine, workers=workers)))
        yield from map_batches(made, Cropper, (store, SETTINGS), keys)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engines",
        description="Crops the same pictures on each engine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--pictures", type=int, default=640, help="how many, to 5,760")
    parser.add_argument("--workers", type=int, default=2, help="of each engine but the loop")
    parser.add_argument(
        "--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="which, to compare"
    )
    parser.add_argument("--home", default="", help=argparse.SUPPRESS)  # the measured child
    return parser


if __name__ == "__main__":
    main()
