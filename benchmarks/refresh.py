"""`python -m benchmarks.refresh`: what a refresh with a few new posts costs a home of many.

A home of `--posts` posts is made up, each with a picture that is a face already: the rows of the
ledger and of the tables of crops and faces are written as builds before would have, all blobs are
links to one small picture. Then `--new` posts with pictures of their own come in, and
each stage and each asset check runs in a process of its own, which reports its seconds, without
the start of Python and the imports, and its peak memory. Homes of several sizes (`--posts 100000
1000000`) take turns at each stage, so that what they take is comparable on a busy machine too.

Tags are of ~10,000 different ones by a Zipf law, the appearance tags as frequent as on a board.
Hashes are clustered as real faces' are, and one face in twenty is a copy of another one.
"""

import argparse
import contextlib
import datetime as dt
import hashlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.likeness import COPIES, COPYING, clustered
from benchmarks.process import ONE_BLAS_THREAD, peak_mb, run_module
from crawlers.export import export_posts
from crawlers.ledger import Ledger
from crawlers.ledger_file import FILE
from crawlers.post import TAG_KINDS, Post
from dataset import tables
from dataset.cropping import FaceSettings
from dataset.crops import CROPS, CROPS_PATH, ROWS_AN_APPEND
from dataset.digests import ROW_DIGEST, row_digests
from dataset.duplicates import THUMB_BYTES, Hashes, Rows, Thumbs, coarse
from dataset.faces import crop_faces
from dataset.labels import LabelSettings, choose_labels, read_labels
from dataset.manifest import build_manifest
from dataset.merging import JUDGED_BY, NEAR_DUPLICATE, rules_digest
from dataset.schemas import (
    DIGEST,
    FACES,
    FACES_PATH,
    MACHINE_LABELS_PATH,
    POSTS_PATH,
    REPEATS,
    row_count,
)
from dataset.store import Store, blob_path

SIDE_PX = 64
BOARD = "board"
VARIETY = 10_000
NOISES = 4_096  # patterns that tell the small copies of different faces apart
_DIGESTED = pa.field(DIGEST, ROW_DIGEST, nullable=False)
_REPEATS = pa.field(REPEATS, pa.string())
LINKS = 50_000  # to one file: ext4 takes 65,000
ROWS_AT_ONCE = 2_000
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
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
CHAIN = ("posts", "faces", "labels", "machine_labels", "manifest")
SHEETS = ("posts_sheet", "faces_sheet")
CHECKS = (
    "posts_schema", "posts_kept", "posts_are_safe", "no_orphan_blobs", "ledger_and_files_agree",
    "records_are_recent", "faces_schema", "faces_kept", "labels_wanted", "machine_labels_schema",
    "manifest_rows",
)  # fmt: skip
STAGES = (*CHAIN, *SHEETS, *CHECKS)


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark and prints its line."""
    options = _parser().parse_args(arguments)
    if options.stage:  # the child
        print(json.dumps(_measured(Store(options.home), options.stage)))
        return
    with tempfile.TemporaryDirectory(prefix="omokage-bench-", dir=options.folder) as folder:
        homes = {
            count: _made(Path(folder).resolve() / str(count), count, options)
            for count in options.posts
        }
        stages: dict[int, dict[str, Any]] = {count: {} for count in homes}
        for stage in STAGES:
            if stage in (*CHAIN, *options.stages):  # what is checked has to be there
                for count, home in homes.items():
                    stages[count][stage] = _run(home, stage)
    seconds = {
        count: round(sum(one["seconds"] for one in made.values()), 2)
        for count, made in stages.items()
    }
    result = {
        "benchmark": "refresh",
        "value": seconds[max(seconds)],
        "unit": "s",
        "posts": max(seconds),
        "new": options.new,
        "seconds": seconds,
        "times_the_smallest": round(seconds[max(seconds)] / seconds[min(seconds)], 2),
        "peak_mb": max(one["peak_mb"] for made in stages.values() for one in made.values()),
        "stages": stages,
        "device": f"cpu x{os.cpu_count()}",
    }
    print(json.dumps(result))


def _made(folder: Path, posts: int, options: argparse.Namespace) -> Store:
    """Makes a home of so many posts to which new ones have come."""
    folder.mkdir()
    home = Store(folder)
    print(f"making {posts:,} posts", file=sys.stderr)
    names = add_made_up(home, posts, tags=options.tags)
    _run(home, "posts")
    add_faces(home, names)
    add_pictures(home, posts, options.new, tags=options.tags)
    return home


def add_made_up(store: Store, count: int, *, tags: int) -> list[str]:
    """Adds `count` kept posts to the ledger of a new home and their blobs; returns the sha256s."""
    rng = np.random.default_rng(0)
    names = [rng.bytes(32).hex() for _ in range(count)]
    content = _picture(rng)
    with Ledger.of(store) as ledger:
        ledger.admit_import(BOARD, "danbooru")
    _link(store, content, [blob_path(name, "png") for name in names])
    _note(store, names, [len(content)] * count, first=0, tags=_tag_lists(rng, count, tags))
    return names


def add_pictures(store: Store, first: int, count: int, *, tags: int) -> None:
    """Adds posts with pictures of their own, numbered after the `first` ones."""
    rng = np.random.default_rng(1)
    contents = [_picture(rng) for _ in range(count)]
    names = [hashlib.sha256(content).hexdigest() for content in contents]
    for name, content in zip(names, contents, strict=True):
        store.write_bytes(blob_path(name, "png"), content, durable=False)
    _note(store, names, list(map(len, contents)), first=first, tags=_tag_lists(rng, count, tags))


def add_faces(store: Store, names: Sequence[str]) -> None:
    """Writes what a build of faces makes of all posts: the tables of crops and of faces.

    names: the pictures' sha256s by the posts' order, in which a copy follows what it is a copy of.
    """
    settings, rng = FaceSettings(), np.random.default_rng(2)
    hashes = clustered(rng, rng.integers(0, 2**64, len(names), np.uint64, endpoint=False))
    copies = np.arange(1, -(-len(names) // COPIES)) * COPIES
    hashes[copies] = hashes[copies - 1] ^ COPYING[copies // COPIES % len(COPYING)]
    colours = rng.integers(0, 255, (len(names), 3), np.uint8)
    noises = rng.integers(0, 64, (NOISES, THUMB_BYTES), np.uint8)
    origins = np.arange(len(names))
    origins[copies] -= 1
    png = _picture(rng)
    order = np.argsort(np.array(names))  # as they are cropped

    def parts() -> Iterator[pa.Table]:
        for start in range(0, len(names), ROWS_AN_APPEND):
            rows = order[start : start + ROWS_AN_APPEND]
            shown = np.tile(colours[origins[rows]], (1, THUMB_BYTES // 3))
            thumbs = shown ^ noises[origins[rows] % NOISES]
            yield _crops_rows([names[row] for row in rows], hashes[rows], thumbs, png=png)

    made_by = {**CROPS.metadata, b"settings": settings.crop_digest}
    tables.write(store, CROPS_PATH, (), schema=CROPS.with_metadata(made_by))
    for part in parts():
        tables.append(store, CROPS_PATH, part)

    def faces() -> Iterator[pa.RecordBatch]:
        for start, made in zip(range(0, len(names), ROWS_AN_APPEND), parts(), strict=True):
            rows = order[start : start + ROWS_AN_APPEND]
            repeats = [
                f"{names[origins[row]][:16]}-0" if origins[row] != row else None for row in rows
            ]
            yield from _faces_rows(made, rows + 1, repeats).to_batches()

    schema = FACES.append(_DIGESTED).append(_REPEATS)
    judged_by = {**FACES.metadata, JUDGED_BY: rules_digest(settings)}
    tables.write(store, FACES_PATH, faces(), schema=schema.with_metadata(judged_by))


def _faces_rows(made: pa.Table, post_ids: Rows, repeats: Sequence[str | None]) -> pa.Table:
    repeated = pa.array([one is not None for one in repeats])
    reasons = pc.if_else(repeated, NEAR_DUPLICATE, pa.scalar(None, pa.string()))
    columns = {"board": pa.array([BOARD] * len(post_ids)), "post_id": pa.array(post_ids)}
    for name in made.column_names:
        columns[name] = made[name]
    for name in ("crop", "crop_sha256"):
        columns[name] = pc.if_else(repeated, pa.scalar(None, pa.string()), made[name])
    columns["drop_reason"] = reasons
    faces = pa.table({name: columns[name] for name in FACES.names}).cast(FACES)
    faces = faces.append_column(_DIGESTED, row_digests(faces, FACES.names))
    return faces.append_column(_REPEATS, pa.array(repeats, pa.string()))


def _crops_rows(names: list[str], hashes: Hashes, thumbs: Thumbs, *, png: bytes) -> pa.Table:
    count = len(names)
    small = pa.array([row.tobytes() for row in thumbs], pa.binary())
    cells = pa.array(coarse(thumbs).view(np.int32)[:, 0])
    phash = pa.array([f"{one:016x}" for one in hashes.tolist()])
    sides = {"w", "h", "side", "picture_width", "picture_height"}
    values = {
        "sha256": pa.array(names),
        "face_id": pa.array([f"{name[:16]}-0" for name in names]),
        "pad_frac": pa.array(np.zeros(count, np.float32)),
        "sharpness": pa.array(np.linspace(50, 900, count, dtype=np.float32)),
        "phash": phash,
        "picture_phash": phash,
        "crop": pa.array([_crop(name) for name in names]),
        "crop_sha256": pa.array([name[::-1] for name in names]),
        "cropped": pa.array([True] * count),
        "thumb": small,
        "picture_thumb": small,
        "coarse": cells,
        "picture_coarse": cells,
        "png": pa.array([png] * count, pa.binary()),
        **{name: pa.array(np.full(count, SIDE_PX)) for name in sides},
        **{name: pa.array(np.zeros(count)) for name in ("x", "y", "square_x", "square_y")},
    }
    absent = {name: pa.nulls(count) for name in CROPS.names if name not in values}
    return pa.table({name: (values | absent)[name] for name in CROPS.names}).cast(CROPS)


def _crop(name: str) -> str:
    return f"crops/{name[:2]}/{name[:16]}-0.png"


def _picture(rng: np.random.Generator) -> bytes:
    """A PNG of rough patches of colour."""
    patches = rng.integers(0, 255, (8, 8, 3), np.uint8)
    picture = cv2.resize(patches, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_NEAREST)
    return bytes(cv2.imencode(".png", picture)[1])


def _link(store: Store, content: bytes, paths: Sequence[str]) -> None:
    """Lets all paths be the same content: a link takes a tenth of the time of a file."""
    source = ""
    for number, path in enumerate(paths):
        target = store.state.local(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if number % LINKS:
            os.link(source, target)
        else:
            target.write_bytes(content)
            source = os.fspath(target)


def _note(
    store: Store,
    names: Sequence[str],
    sizes: Sequence[int],
    *,
    first: int,
    tags: Iterator[list[str]],
) -> None:
    """Writes rows of the ledger as an import would, but all at once."""
    kinds: dict[str, Any] = {f"tags_{kind}": () for kind in TAG_KINDS}
    post = Post(
        **kinds, board=BOARD, post_id=0, md5=None, ext="png", width=SIDE_PX, height=SIDE_PX,
        rating="general", source=None, score=None, created_at=NOW, updated_at=None, fetched_at=NOW,
        file_url="file:///a.png", cropped=True,
    )  # fmt: skip
    record, now = post.to_record(), NOW.isoformat()

    def rows() -> Iterator[tuple[Any, ...]]:
        for post_id, (name, size, chosen) in enumerate(
            zip(names, sizes, tags, strict=True), start=first + 1
        ):
            record.update(post_id=post_id, tags_general=chosen, md5=name[:32])
            said = json.dumps(record, ensure_ascii=False)
            yield (
                BOARD, post_id, "", "kept", name[:32], name, "png", SIDE_PX, SIDE_PX, size, said,
                now, now,
            )  # fmt: skip

    with contextlib.closing(sqlite3.connect(store.state.local(FILE))) as ledger, ledger:
        ledger.executemany(
            "INSERT INTO posts (board, post_id, query, state, md5, sha256, ext, width, height, "
            "size_bytes, record, noted_at, settled_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            rows(),
        )


def _tag_lists(rng: np.random.Generator, count: int, tags: int) -> Iterator[list[str]]:
    """Lists of tags: appearance tags by their parts, then others by a Zipf law up to `tags`."""
    names = [*PARTS, *(f"made_up_tag_{number:05d}" for number in range(VARIETY - len(PARTS)))]
    for first in range(0, count, ROWS_AT_ONCE):
        rows = min(ROWS_AT_ONCE, count - first)
        has = rng.random((rows, len(PARTS))) < np.array(list(PARTS.values()))
        rare = len(PARTS) + rng.zipf(1.3, (rows, tags)) % (VARIETY - len(PARTS))
        for mask, others in zip(has, rare.tolist(), strict=True):
            chosen = [*np.flatnonzero(mask).tolist(), *others][:tags]
            yield [names[code] for code in dict.fromkeys(chosen)]


def _run(store: Store, stage: str) -> dict[str, Any]:
    arguments = ["--home", store.root, "--stage", stage]
    return run_module("benchmarks.refresh", *arguments, variables=ONE_BLAS_THREAD)


def _measured(store: Store, stage: str) -> dict[str, Any]:
    """One stage; only this runs in the child."""
    os.environ["OMOKAGE_PROGRESS"] = "off"
    work = _prepared(store, stage)
    before = peak_mb()
    started, worked = time.perf_counter(), time.process_time()
    facts = work()
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_s": round(time.process_time() - worked, 2),
        "peak_mb": round(peak_mb(), 1),
        "before_mb": round(before, 1),  # Python and its modules
        **facts,
    }


def _prepared(store: Store, stage: str) -> Callable[[], dict[str, Any]]:
    """The stage's work, with all that it needs imported; it returns what it made."""
    if stage in CHAIN:
        return partial(_CHAIN[stage], store)
    from assets import checks, faces, posts
    from assets.resources import StoreResource

    if stage in SHEETS:
        sheet = {"posts_sheet": posts._sheet, "faces_sheet": faces._sheet}[stage]
        path = {"posts_sheet": POSTS_PATH, "faces_sheet": FACES_PATH}[stage]
        count = row_count(store, path)
        return lambda: {"side_px": max(sheet(store, path, count).size)}
    check = next(
        one for one in checks.table_checks() if stage in {key.name for key in one.check_keys}
    )
    checked: Callable[[StoreResource], Any] = check
    return lambda: {"passed": checked(StoreResource(root=store.root)).passed}


def _posts(store: Store) -> dict[str, Any]:
    made = export_posts(store, [])
    return {"kept": made.kept}


def _faces(store: Store) -> dict[str, Any]:
    with ThreadPoolExecutor(1) as executor:
        made = crop_faces(store, FaceSettings(), executor)
    cropped = made.pictures - made.pictures_reused
    return {"kept": made.kept, "dropped": made.dropped, "cropped": cropped}


def _labels(store: Store) -> dict[str, Any]:
    return {"labels": len(choose_labels(store, LabelSettings()).labels)}


def _machine_labels(store: Store) -> dict[str, Any]:
    from models.tagger.data import all_tagged
    from models.tagger.machine_labels import write_none

    tagged = all_tagged(store)
    write_none(store, tuple(read_labels(store)[0]))
    return {"tagged": tagged}


def _manifest(store: Store) -> dict[str, Any]:
    made = build_manifest(store, machine_labels=MACHINE_LABELS_PATH)
    return {"rows": made.train_rows + made.eval_rows, "digest": made.digest}


_CHAIN = {
    "posts": _posts,
    "faces": _faces,
    "labels": _labels,
    "machine_labels": _machine_labels,
    "manifest": _manifest,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.refresh",
        description="Times a refresh of a made-up home, stage by stage.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--posts", type=int, nargs="+", default=[10_000], metavar="N",
        help="posts that are there before; of several homes each stage runs in turn",
    )  # fmt: skip
    parser.add_argument("--new", type=int, default=1_000, help="posts that come in")
    parser.add_argument("--tags", type=int, default=30, help="tags of a post")
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE",
        help="previews and checks that are measured beside the chain",
    )  # fmt: skip
    parser.add_argument("--folder", default=None, help="where the home goes: 8 kB for each post")
    parser.add_argument("--home", default="", help=argparse.SUPPRESS)  # the measured child
    parser.add_argument("--stage", default="", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
