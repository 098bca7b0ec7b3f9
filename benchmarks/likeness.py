"""`python -m benchmarks.likeness`: seconds to find the near-duplicates among many hashes.

Three sets, each in a child process that reports its own peak memory: random hashes, hashes that are
clustered as real faces' are, and hashes that are all the same. Each row has a small colour copy.
In the first two, one row in twenty is a copy of an earlier one and has to be found.

With `--new`, so many more come in after a build: what that kept stands, and the new ones and those
that it found to be copies are compared with it.
"""

import argparse
import json
import os
import tempfile
import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.process import peak_mb, run_module
from dataset import tables
from dataset.cropping import FaceSettings
from dataset.crops import ROWS_AN_APPEND
from dataset.duplicates import THUMB_BYTES, Copies, Hashes, Rows, Rule, Thumbs, coarse, repeats
from dataset.store import Store

KINDS = ("random", "clustered", "equal")
COPIES = 20  # one row in so many is a copy
# Bits in which a copy differs, in turn: none; two of one 16-bit band; one, and two, of each band.
COPYING = np.array([0, 0b101 << 20, 0x0001000100010001, 0x0003000300030003], np.uint64)
CLUSTERS = 400
# Chance that a bit is that of the cluster's centre. Of real faces 4 pairs in 100,000 are within 10
# bits; this gives about as many.
KEPT_BITS = 0.83
SETTINGS = FaceSettings()


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its line."""
    options = _parser().parse_args(arguments)
    if options.kind:  # the child
        print(json.dumps(_timed(options.kind, options.hashes, options.new)))
        return
    counts = ["--hashes", str(options.hashes), "--new", str(options.new)]
    by_kind = {
        kind: run_module("benchmarks.likeness", "--kind", kind, *counts) for kind in options.kinds
    }
    result = {
        "benchmark": "likeness",
        "value": max(one["seconds"] for one in by_kind.values()),
        "unit": "s",
        "hashes": options.hashes,
        "new": options.new,
        "kinds": by_kind,
        "device": f"cpu x{os.cpu_count()}",
    }
    print(json.dumps(result))


def made_up(kind: str, count: int, new: int = 0) -> tuple[Hashes, Thumbs, Rows]:
    """Returns hashes [N], colour copies [N, THUMB_BYTES] and the rows that repeat an earlier one.

    Of the last `new` rows they repeat one of the rows before those.
    """
    rng = np.random.default_rng(0)
    if kind == "equal":
        one = rng.integers(0, 255, (1, THUMB_BYTES), np.uint8)
        return np.full(count, 1, np.uint64), one.repeat(count, axis=0), np.arange(1, count)
    hashes = rng.integers(0, 2**64, count, np.uint64, endpoint=False)
    if kind == "clustered":
        hashes = clustered(rng, hashes)
    colours = rng.integers(0, 255, (count, 1, 3), np.uint8)
    thumbs = colours.repeat(THUMB_BYTES // 3, axis=1).reshape(count, THUMB_BYTES)
    thumbs ^= rng.integers(0, 64, thumbs.shape, np.uint8)  # so that none is like another
    copies = np.arange(1, -(-count // COPIES)) * COPIES
    originals = copies - 1 - np.where(copies >= count - new, new // COPIES * COPIES, 0)
    hashes[copies] = hashes[originals] ^ COPYING[copies // COPIES % len(COPYING)]
    thumbs[copies] = thumbs[originals] ^ 1
    return hashes, thumbs, copies


def clustered(rng: np.random.Generator, hashes: Hashes) -> Hashes:
    """Returns hashes [N] that have most bits of one of a few centres."""
    centres = rng.integers(0, 2**64, CLUSTERS, np.uint64, endpoint=False)
    own = np.zeros(len(hashes), np.uint64)
    for bit in range(64):
        chosen = rng.random(len(hashes)) > KEPT_BITS
        own |= chosen.astype(np.uint64) << np.uint64(bit)
    of_centre: npt.NDArray[np.uint64] = centres[rng.integers(0, CLUSTERS, len(hashes))]
    return np.asarray(of_centre ^ own, np.uint64)


def _timed(kind: str, count: int, new: int) -> dict[str, float]:
    hashes, made, copies = made_up(kind, count + new, new)
    rows = np.arange(count + new)
    standing = 0
    if new:  # what an earlier build kept, what it found, what is new
        kept = np.setdiff1d(rows[:count], copies)
        rows = np.concatenate([kept, copies[copies < count], rows[count:]])
        standing = len(kept)
    compared = 0
    with tempfile.TemporaryDirectory() as folder:
        thumbs = _stored(Store(folder), made)
        del made

        def alike(pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
            nonlocal compared
            compared += len(pairs)
            return thumbs.alike(rows[pairs], SETTINGS.thumb_rms_max)

        started, worked = time.perf_counter(), time.process_time()
        rule = Rule(hashes[rows], SETTINGS.phash_distance, alike)
        found = int((repeats([rule], standing=standing) >= 0).sum())
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - worked
    return {
        "seconds": round(seconds, 2),
        "cpu_s": round(cpu_s, 2),
        "proposed_pairs": compared,
        "found": found,
        "copies": len(copies),
        "peak_mb": round(peak_mb(), 1),
    }


def _stored(store: Store, made: Thumbs) -> Copies:
    """Puts the copies into a table, from which they are read as in a build."""
    schema = pa.schema([pa.field("thumb", pa.binary())])
    parts = (made[start : start + ROWS_AN_APPEND] for start in range(0, len(made), ROWS_AN_APPEND))
    batches = (
        pa.record_batch([pa.array([one.tobytes() for one in part], pa.binary())], schema=schema)
        for part in parts
    )
    tables.write(store, "copies.lance", batches, schema=schema)
    cells = [coarse(made[start : start + 256]) for start in range(0, len(made), 256)]
    held = tables.Snapshot(store, "copies.lance")

    def read(rows: Rows) -> Thumbs:
        taken = held.take(rows.tolist(), columns=["thumb"])["thumb"].to_pylist()
        return np.frombuffer(b"".join(taken), np.uint8).reshape(-1, THUMB_BYTES)

    return Copies(np.concatenate(cells), read)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.likeness",
        description="Times the search for near-duplicates among made-up hashes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--hashes", type=int, default=100_000, help="how many")
    parser.add_argument("--new", type=int, default=0, help="how many more come in afterwards")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which sets")
    parser.add_argument("--kind", default="", choices=["", *KINDS], help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
