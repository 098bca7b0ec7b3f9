"""`python -m benchmarks.manifest`: seconds and peak memory of labels and manifest for many rows.

Posts and faces are made up (not timed), with ~10,000 different tags by a Zipf law and the
appearance tags as frequent as on a board. Labels and manifest run in a child process, which reports
its own peak memory. With --flat, the peaks at 1,000, 10,000 and 100,000 rows are
compared instead.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.process import ONE_BLAS_THREAD, peak_mb, run_module
from dataset import tables
from dataset.schemas import FACES, FACES_PATH, PARQUET, POSTS, POSTS_PATH, ROWS_A_GROUP
from dataset.store import Store

VARIETY = 10_000
ROWS_AT_ONCE = 2_000  # as the crawl's export writes them
FLAT_ROWS = (1_000, 10_000, 100_000)
CROP = "crops/0/crop.png"  # every row's: crops are not read by these two stages
# Parts of the pictures with these tags, about as on a board.
PARTS = {
    "long_hair": 0.46, "short_hair": 0.27, "blue_eyes": 0.21, "blonde_hair": 0.19,
    "black_hair": 0.18, "brown_hair": 0.18, "hair_ornament": 0.17, "red_eyes": 0.15, "hat": 0.14,
    "animal_ears": 0.14, "very_long_hair": 0.11, "twintails": 0.11, "blue_hair": 0.10,
    "green_eyes": 0.10, "brown_eyes": 0.10, "purple_eyes": 0.10, "white_hair": 0.09,
    "yellow_eyes": 0.09, "pink_hair": 0.09, "grey_hair": 0.09, "ahoge": 0.08, "purple_hair": 0.08,
    "braid": 0.08, "hair_ribbon": 0.08, "ponytail": 0.07, "red_hair": 0.065, "green_hair": 0.055,
    "cat_ears": 0.04, "glasses": 0.04, "medium_hair": 0.04, "blunt_bangs": 0.03,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its line."""
    options = _parser().parse_args(arguments)
    if options.home:  # the child
        print(json.dumps(_timed(Path(options.home))))
        return
    result = _flat(options.tags) if options.flat else _speed(options.rows, options.tags)
    print(json.dumps({"benchmark": "manifest", **result, "device": f"cpu x{os.cpu_count()}"}))


def make_home(root: Path, rows: int, tags: int) -> None:
    """Writes posts.lance and faces.parquet with `rows` rows each, one face a post."""
    store = Store(root)
    rng = np.random.default_rng(0)
    store.make_folder("crops/0")
    with store.writing(CROP) as file:
        Image.new("RGB", (128, 128)).save(file, "PNG")
    names = [f"made_up_tag_{number:05d}" for number in range(VARIETY - len(PARTS))]
    vocabulary = pa.array([*PARTS, *names])
    blobs = [rng.bytes(32).hex() for _ in range(rows)]
    # Of posts the order is their number's, of faces their name's: as the stages before write them.
    parts = (
        _posts(rng, blobs[first : first + ROWS_AT_ONCE], first, tags=tags, vocabulary=vocabulary)
        for first in range(0, rows, ROWS_AT_ONCE)
    )
    batches = (batch for part in parts for batch in part.to_batches())
    tables.write(store, POSTS_PATH, batches, schema=POSTS)
    order = np.array(sorted(range(rows), key=blobs.__getitem__))
    with store.writing(FACES_PATH) as file, pq.ParquetWriter(file, FACES, **PARQUET) as writer:
        for first in range(0, rows, ROWS_A_GROUP):
            numbers = order[first : first + ROWS_A_GROUP]
            writer.write_table(_faces([blobs[number] for number in numbers], numbers))


def _posts(
    rng: np.random.Generator, blobs: list[str], first: int, *, tags: int, vocabulary: pa.Array
) -> pa.Table:
    count = len(blobs)
    lists = _tag_lists(rng, count, tags, vocabulary=vocabulary)
    empty = pa.ListArray.from_arrays(np.zeros(count + 1, np.int32), pa.array([], pa.string()))
    time_us = pa.array(np.full(count, 1_700_000_000_000_000), pa.timestamp("us", tz="UTC"))
    values = {
        "board": pa.array(["board"] * count),
        "post_id": pa.array(np.arange(first, first + count) + 1),
        "md5": pa.array([blob[:32] for blob in blobs]),
        "sha256": pa.array(blobs),
        "ext": pa.array(["jpg"] * count),
        "rating": pa.array(["general"] * count),
        "source": pa.array([f"https://example.org/art/{blob[:12]}" for blob in blobs]),
        "fetched_at": time_us,
        "created_at": time_us,
    }
    for name in POSTS.names:
        if name.startswith("tags_"):
            values[name] = lists if name == "tags_general" else empty
    missing = [name for name in POSTS.names if name not in values]
    values |= {name: pa.nulls(count, POSTS.field(name).type) for name in missing}
    return pa.table({name: values[name] for name in POSTS.names}).cast(POSTS)


def _tag_lists(
    rng: np.random.Generator, count: int, tags: int, *, vocabulary: pa.Array
) -> pa.ListArray:
    """Lists of `tags` tags: appearance tags by their parts, the rest by a Zipf law."""
    seen = rng.random((count, len(PARTS))) < np.array(list(PARTS.values()))
    rare = len(PARTS) + rng.zipf(1.3, (count, tags)) % (len(vocabulary) - len(PARTS))
    codes = np.where(seen, np.arange(len(PARTS)), -1)
    rows = np.sort(np.concatenate([codes, rare], axis=1), axis=1)[:, ::-1]
    keep = np.cumsum(rows >= 0, axis=1) <= tags + seen.sum(axis=1, keepdims=True)
    chosen = (rows >= 0) & keep
    excess = chosen.sum(axis=1, keepdims=True) - tags
    chosen &= np.cumsum(chosen, axis=1) > excess  # drops the rarest, not appearance tags
    offsets = np.concatenate([[0], np.cumsum(chosen.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, vocabulary.take(pa.array(rows[chosen])))


def _faces(blobs: list[str], numbers: npt.NDArray[np.int64]) -> pa.Table:
    count = len(blobs)
    values: dict[str, pa.Array] = {
        "face_id": pa.array([f"{blob[:16]}-0" for blob in blobs]),
        "board": pa.array(["board"] * count),
        "post_id": pa.array(numbers + 1),
        "sha256": pa.array(blobs),
        "pad_frac": pa.array(np.zeros(count, np.float32)),
        "sharpness": pa.array(np.linspace(50, 900, count, dtype=np.float32)),
        "phash": pa.array([blob[-16:] for blob in blobs]),
        "crop": pa.array([CROP] * count),
        "crop_sha256": pa.array([blob[::-1] for blob in blobs]),
        "drop_reason": pa.nulls(count, pa.string()),
    }
    boxes = {name: pa.array(np.full(count, 128, np.int32)) for name in FACES.names}
    columns = {name: values.get(name, boxes[name]) for name in FACES.names}
    return pa.table(columns).cast(FACES)


def _timed(home: Path) -> dict[str, float]:
    """The two stages, each timed; only this part runs in the child."""
    from dataset.labels import LabelSettings, choose_labels
    from dataset.manifest import build_manifest

    store = Store(home)
    started = time.perf_counter()
    labels = choose_labels(store, LabelSettings())
    chosen = time.perf_counter()
    made = build_manifest(store)
    ended = time.perf_counter()
    return {
        "labels_s": round(chosen - started, 2),
        "manifest_s": round(ended - chosen, 2),
        "labels": len(labels.labels),
        "rows": made.train_rows + made.eval_rows,
        "peak_mb": round(peak_mb(), 1),
    }


def _measured(rows: int, tags: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="omokage-bench-") as folder:
        print(f"making {rows:,} rows", file=sys.stderr)
        make_home(Path(folder), rows, tags)
        return run_module("benchmarks.manifest", "--home", folder, variables=ONE_BLAS_THREAD)


def _speed(rows: int, tags: int) -> dict[str, object]:
    measured = _measured(rows, tags)
    value = round(measured["labels_s"] + measured["manifest_s"], 2)
    return {"value": value, "unit": "s", "tags": tags, **measured}


def _flat(tags: int) -> dict[str, object]:
    peaks = {str(rows): _measured(rows, tags)["peak_mb"] for rows in FLAT_ROWS}
    growth = round(max(peaks.values()) / min(peaks.values()), 3)
    return {"value": growth, "unit": "peak memory, largest over smallest", "peak_mb": peaks}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.manifest",
        description="Times labels and manifest for made-up posts and faces.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="posts, with a face each")
    parser.add_argument("--tags", type=int, default=30, help="tags of a post")
    parser.add_argument(
        "--flat", action="store_true", help="compare peak memory at 1,000 to 100,000 rows instead"
    )
    parser.add_argument("--home", default="", help=argparse.SUPPRESS)  # the timed child
    return parser


if __name__ == "__main__":
    main()
