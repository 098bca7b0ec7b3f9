"""Faces: finds, crops and judges the faces on all kept pictures; one table results.

Memory does not grow with the pictures' number but for some 300 bytes each: tables are read and
written by batches, the small copies that likeness is judged by lie in temporary files.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset.cropping import FaceSettings
from dataset.digests import RowsDigest
from dataset.errors import EmptyStageError
from dataset.in_order import InOrder
from dataset.memory import give_back_free_memory, give_back_large_blocks
from dataset.merging import JUDGED_BY, Judged, judge
from dataset.policy import read_rejects
from dataset.progress import Advance, progress
from dataset.schemas import FACES, FACES_PATH, PARQUET
from dataset.shards import (
    DIGITS,
    SHARD,
    Plan,
    check_originals,
    commit_shard,
    crop_batch,
    first_posts,
    plan_shard,
    shard_path,
    shard_places,
)
from dataset.store import Store
from dataset.streams import batches

__all__ = ["FaceSettings", "FacesTable", "crop_shards"]

ROWS_A_GROUP = 2_048  # of faces.parquet: a group is held in several forms while it is written
BATCH = 16  # pictures a task: small enough for a bar that moves, large enough to travel


@dataclass(frozen=True)
class FacesTable:
    """What `crop_shards` made: the table's path, its counts and the digest of its content."""

    path: str
    rows: int
    kept: int
    dropped: dict[str, int]  # by drop_reason
    pictures: int
    pictures_without_face: int
    pictures_reused: int
    unreadable: list[str]  # a line for each picture, naming file and fault
    shards: int
    shards_reused: int
    digest: str


def crop_shards(
    store: Store, settings: FaceSettings, executor: Executor, *, judge_again: bool = False
) -> FacesTable:
    """Crops the faces of all kept posts' pictures and writes `faces.parquet`.

    The pictures are those of posts.lance with a sha256 and no drop_reason, each once, for the
    first of its posts by board and number. Each of the 16 shards is committed when its last picture
    is done and used again while its pictures and settings stand; if one fails, the others are
    finished first. The result does not depend on the executor, but on the build before: the faces
    that it kept stay, and only the others are looked through for near-duplicates, unless the
    settings are others or for `judge_again`. Raises EmptyStageError if no face
    is left, ConfigError for a damaged rejects.txt, ComputeError for workers that die or go, and
    StoreError, before a crop is removed, if more blobs are missing than single accidents explain.
    """
    give_back_large_blocks()
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what it was given
    posts = first_posts(store)
    rejects = frozenset(read_rejects(store))
    plans = _plans(store, posts, settings)
    check_originals(store, plans)
    for plan in plans:
        # A file of other settings must not outlive its crops, which are about to be overwritten.
        if not plan.whole and plan.todo.num_rows == plan.pictures.num_rows:
            store.remove(plan.path)
    give_back_free_memory()
    _crop(store, plans, settings, executor)
    give_back_free_memory()
    judged = judge(store, posts, rejects=rejects, settings=settings, again=judge_again)
    return _written(store, posts, plans, judged=judged)


def _plans(store: Store, posts: pa.Table, settings: FaceSettings) -> list[Plan]:
    pictures = posts.select(["sha256", "ext", "cropped"])
    places = shard_places(posts)
    return [
        plan_shard(store, digit, pictures.slice(first, count), settings)
        for digit, (first, count) in zip(DIGITS, places, strict=True)
    ]


def _crop(store: Store, plans: list[Plan], settings: FaceSettings, executor: Executor) -> None:
    """Crops what the plans leave to do, committing each shard as soon as it is whole.

    A shard that fails does not keep the others from being finished; its error is raised then.
    """
    tasks = (
        (plan.digit, (store, settings, batch)) for plan in plans for batch in plan.batches(BATCH)
    )
    work = InOrder[pa.Table](executor, crop_batch, tasks)
    failed: dict[str, Exception] = {}
    total = sum(plan.todo.num_rows for plan in plans)
    try:
        with progress("faces", total, unit="pictures") as advance:
            for plan in plans:
                if not plan.whole:
                    _commit(store, plan, settings, work=work, advance=advance, failed=failed)
    except BaseException:
        work.cancel()
        raise
    if failed:
        error = next(iter(failed.values()))
        error.add_note(
            f"Shards {', '.join(failed)} were not finished; the others stand. Run it again."
        )
        raise error


def _commit(
    store: Store,
    plan: Plan,
    settings: FaceSettings,
    *,
    work: InOrder[pa.Table],
    advance: Advance,
    failed: dict[str, Exception],
) -> None:
    try:
        commit_shard(store, plan, settings, _advancing(work.of(plan.digit), advance))
    except Exception as error:  # raised by _crop, when the other shards are finished
        failed[plan.digit] = error
        work.skip(plan.digit)


def _advancing(parts: Iterator[pa.Table], advance: Advance) -> Iterator[pa.Table]:
    for part in parts:
        yield part
        advance(pc.count_distinct(part["sha256"]).as_py())


def _written(store: Store, posts: pa.Table, plans: list[Plan], *, judged: Judged) -> FacesTable:
    """Writes the table: the shards' rows with their posts and final drop_reasons."""
    digest = RowsDigest(FACES.names)
    counts: Counter[str | None] = Counter()
    declared = FACES.with_metadata({**FACES.metadata, JUDGED_BY: judged.rules})
    with store.writing(FACES_PATH) as file, pq.ParquetWriter(file, declared, **PARQUET) as writer:
        for rows in _row_groups(_final_rows(store, posts, judged)):
            digest.update(rows)
            counts.update(rows["drop_reason"].to_pylist())
            writer.write_table(rows)
    made = FacesTable(
        path=FACES_PATH,
        rows=counts.total(),
        kept=counts.pop(None, 0),
        dropped={str(reason): count for reason, count in sorted(counts.items())},
        pictures=posts.num_rows,
        pictures_without_face=judged.pictures_without_face,
        pictures_reused=posts.num_rows - sum(plan.todo.num_rows for plan in plans),
        unreadable=sorted(judged.unreadable),
        shards=len(plans),
        shards_reused=sum(plan.whole for plan in plans),
        digest=digest.hexdigest(),
    )
    _check_not_empty(made)
    return made


def _final_rows(store: Store, posts: pa.Table, judged: Judged) -> Iterator[pa.Table]:
    """All faces by batches, in the order of their face_ids, as they are to be written."""
    columns = [name for name in FACES.names if name in SHARD.names]
    first = 0
    for digit in DIGITS:
        for batch in batches(store, shard_path(digit), declared=SHARD, columns=columns):
            faces = pa.Table.from_batches([batch.filter(pc.is_valid(batch["face_id"]))])
            rows = slice(first, first + faces.num_rows)
            first += faces.num_rows
            at = pa.array(judged.post_of[rows])
            for name in ("board", "post_id"):
                faces = faces.append_column(name, posts[name].take(at))
            yield _with_reasons(faces, judged.reasons[rows])


def _with_reasons(faces: pa.Table, reasons: npt.NDArray[np.object_]) -> pa.Table:
    """The faces with their final drop_reasons [N]; one that is dropped has no crop."""
    texts = pa.array(reasons, pa.string())
    for name in ("crop", "crop_sha256"):
        emptied = pc.if_else(pc.is_valid(texts), pa.scalar(None, pa.string()), faces[name])
        faces = faces.set_column(faces.schema.get_field_index(name), name, emptied)
    faces = faces.set_column(faces.schema.get_field_index("drop_reason"), "drop_reason", texts)
    return faces.select(FACES.names).cast(FACES)


def _row_groups(parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of ROWS_A_GROUP, as faces.parquet holds them."""
    held = FACES.empty_table()
    for part in parts:
        held = pa.concat_tables([held, part])
        if held.num_rows >= ROWS_A_GROUP:
            yield held.slice(0, ROWS_A_GROUP).combine_chunks()
            held = held.slice(ROWS_A_GROUP)
    if held.num_rows:
        yield held.combine_chunks()


def _check_not_empty(made: FacesTable) -> None:
    if made.kept:
        return
    drops = "".join(f", {count:,} {reason}" for reason, count in made.dropped.items())
    first = f" The first unreadable: {made.unreadable[0]}." if made.unreadable else ""
    raise EmptyStageError(
        f"No face is left of {made.pictures:,} pictures: {made.pictures_without_face:,} without a "
        f"face, {len(made.unreadable):,} unreadable{drops}.{first} Is this a board of portraits? "
        "If the pictures are faces already, set `cropped`."
    )
