"""Faces: finds, crops and judges the faces on all kept pictures; one table results."""

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset.cropping import FaceSettings
from dataset.digests import content_digest
from dataset.errors import ConfigError, EmptyStageError, SchemaError, listed
from dataset.likeness import THUMB_BYTES, similar_pairs, thumb_distance
from dataset.progress import Advance, progress
from dataset.schemas import FACES, FACES_PATH, POSTS, POSTS_PATH, read_table, write_table
from dataset.shards import (
    DIGITS,
    NO_FACE,
    SHARD,
    Blob,
    Plan,
    commit_shard,
    crop_batch,
    plan_shard,
    shard_path,
)
from dataset.store import Store

__all__ = ["FaceSettings", "FacesTable", "crop_shards"]

REJECTS_PATH = "rejects.txt"
SOLO = "solo"
BATCH = 16  # pictures a task: small enough for a bar that moves, large enough to travel

Reasons = npt.NDArray[np.object_]  # [N], a text or None


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


def crop_shards(store: Store, settings: FaceSettings, executor: Executor) -> FacesTable:
    """Crops the faces of all kept posts' pictures and writes `faces.parquet`.

    The pictures are those of posts.parquet with a sha256 and no drop_reason, each once, for the
    first of its posts by board and number. Each of the 16 shards is committed when its last picture
    is done and used again while its pictures and settings stand; if one fails, the others are
    finished first. The result does not depend on the executor. Raises EmptyStageError if no face
    is left, ConfigError for a damaged rejects.txt.
    """
    posts = _first_posts(store)
    rejects = _rejects(store)
    plans = _plans(store, posts, settings)
    _crop(store, plans, settings, executor)
    return _merge(store, posts, plans, rejects=rejects, settings=settings)


def _first_posts(store: Store) -> pa.Table:
    """One row a picture, sorted by sha256: ext, board, post_id, whether it is solo or cropped.

    A picture is cropped if any of its posts says so; the rest is of its first post.
    """
    table = read_table(store, POSTS_PATH, declared=POSTS)
    usable = table.filter(pc.and_(pc.is_null(table["drop_reason"]), pc.is_valid(table["sha256"])))
    if not usable.num_rows:
        raise EmptyStageError(
            f"{store.url(POSTS_PATH)}: none of {table.num_rows:,} posts has a stored picture "
            "that is not dropped. Crawl first; its drop_reason column says why posts were refused."
        )
    _check_blobs(store, usable)
    usable = usable.append_column("solo", _has_tag(usable["tags_general"], SOLO))
    faces_already = usable.filter(pc.fill_null(usable["cropped"], fill_value=False))["sha256"]
    usable = usable.select(["sha256", "ext", "board", "post_id", "solo"])
    ordered = usable.sort_by([(name, "ascending") for name in ("sha256", "board", "post_id")])
    names = ordered["sha256"].to_numpy()
    first = np.ones(len(names), bool)
    first[1:] = names[1:] != names[:-1]
    firsts = ordered.filter(pa.array(first))
    cropped = pc.is_in(firsts["sha256"], value_set=faces_already.combine_chunks())
    return firsts.append_column("cropped", cropped)


def _check_blobs(store: Store, usable: pa.Table) -> None:
    named = pc.match_substring_regex(usable["sha256"], "^[0-9a-f]{64}$")
    whole = pc.and_(named, pc.is_valid(usable["ext"]))
    faults = [
        f'{row["board"]} {row["post_id"]}: sha256 is "{row["sha256"]}", ext is "{row["ext"]}"'
        for row in usable.filter(pc.invert(whole)).to_pylist()
    ]
    if faults:
        raise SchemaError(
            f"{store.url(POSTS_PATH)}: 64 hex digits and an extension wanted:\n{listed(faults)}"
        )


def _has_tag(tags: pa.ChunkedArray, tag: str) -> pa.Array:
    lists = tags.combine_chunks()
    rows = pc.list_parent_indices(lists).filter(pc.equal(pc.list_flatten(lists), tag))
    has = np.zeros(len(lists), bool)
    has[rows.to_numpy()] = True
    return pa.array(has)


def _rejects(store: Store) -> set[str]:
    """The face_ids of the hand-made reject list: one a line, as an id or as a crop's file name."""
    if not store.exists(REJECTS_PATH):
        return set()
    lines = store.read_bytes(REJECTS_PATH).decode(errors="replace").splitlines()
    stripped = {number: line.split("#")[0].strip() for number, line in enumerate(lines, start=1)}
    ids = {number: re.sub(r"^.*/|\.png$", "", text) for number, text in stripped.items() if text}
    faults = [
        f'line {number}: "{text}" is no face_id'
        for number, text in ids.items()
        if not re.fullmatch(r"[0-9a-f]{16}-\d+", text)
    ]
    if faults:
        raise ConfigError(
            f"{store.url(REJECTS_PATH)}: one face_id a line wanted, such as "
            f"0123456789abcdef-0 (the name of a file under crops/):\n{listed(faults)}"
        )
    return set(ids.values())


def _plans(store: Store, posts: pa.Table, settings: FaceSettings) -> list[Plan]:
    blobs: dict[str, list[Blob]] = {digit: [] for digit in DIGITS}
    columns = (posts[name].to_pylist() for name in ("sha256", "ext", "cropped"))
    for blob in map(Blob, *columns):
        blobs[blob.sha256[0]].append(blob)
    return [plan_shard(store, digit, blobs[digit], settings) for digit in DIGITS]


def _crop(store: Store, plans: list[Plan], settings: FaceSettings, executor: Executor) -> None:
    """Crops what the plans leave to do, committing each shard as soon as it is whole."""
    for plan in plans:
        if not plan.whole and not plan.todo:  # pictures have only gone
            commit_shard(store, plan, settings, [])
    total = sum(len(plan.todo) for plan in plans)
    if not total:
        return
    with progress("faces", total, unit="pictures") as advance:
        tasks = {
            executor.submit(crop_batch, store, settings, batch): (plan, len(batch))
            for plan in plans
            for batch in _batches(plan)
        }
        try:
            failed = _gather(store, settings, tasks, advance)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
    if failed:
        error = next(iter(failed.values()))
        error.add_note(
            f"Shards {', '.join(failed)} were not finished; the others stand. Run it again."
        )
        raise error


def _batches(plan: Plan) -> Iterator[tuple[Blob, ...]]:
    for start in range(0, len(plan.todo), BATCH):
        yield plan.todo[start : start + BATCH]


def _gather(
    store: Store,
    settings: FaceSettings,
    tasks: dict[Future[list[dict[str, Any]]], tuple[Plan, int]],
    advance: Advance,
) -> dict[str, BaseException]:
    """Commits each shard after its last batch; returns the first error of each that failed."""
    waiting = Counter(plan.digit for plan, _ in tasks.values())
    rows: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, BaseException] = {}
    for task in as_completed(list(tasks)):
        plan, pictures = tasks[task]
        waiting[plan.digit] -= 1
        error = task.exception()
        if error is not None:
            failed.setdefault(plan.digit, error)
            rows.pop(plan.digit, None)
            continue
        advance(pictures)
        if plan.digit in failed:
            continue
        rows.setdefault(plan.digit, []).extend(task.result())
        if not waiting[plan.digit]:
            commit_shard(store, plan, settings, rows.pop(plan.digit))
    return failed


def _merge(
    store: Store, posts: pa.Table, plans: list[Plan], *, rejects: set[str], settings: FaceSettings
) -> FacesTable:
    """Joins shards and posts, drops what takes more than one picture to see, writes the table."""
    shards = [
        read_table(store, plan.path, declared=SHARD).drop(["thumb", "cropped"]) for plan in plans
    ]
    table = pa.concat_tables(shards)
    without = pc.sum(pc.equal(table["fault"], NO_FACE)).as_py() or 0
    unread = pc.fill_null(pc.not_equal(table["fault"], NO_FACE), fill_value=False)
    unreadable = sorted(table.filter(unread)["fault"].to_pylist())
    faces = _with_posts(table.filter(pc.is_valid(table["face_id"])), posts)
    faces = _with_drops(store, faces, rejects=rejects, settings=settings).select(FACES.names)
    write_table(store, FACES_PATH, faces, declared=FACES)
    counts = Counter(faces["drop_reason"].to_pylist())
    made = FacesTable(
        path=FACES_PATH,
        rows=faces.num_rows,
        kept=counts.pop(None, 0),
        dropped=dict(sorted(counts.items())),
        pictures=posts.num_rows,
        pictures_without_face=without,
        pictures_reused=posts.num_rows - sum(len(plan.todo) for plan in plans),
        unreadable=unreadable,
        shards=len(plans),
        shards_reused=sum(plan.whole for plan in plans),
        digest=content_digest(faces),
    )
    _check_not_empty(made)
    return made


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


def _with_posts(faces: pa.Table, posts: pa.Table) -> pa.Table:
    rows = pc.index_in(faces["sha256"], value_set=posts["sha256"].combine_chunks())
    for name in ("board", "post_id", "solo"):
        faces = faces.append_column(name, posts[name].take(rows))
    return faces


def _with_drops(
    store: Store, faces: pa.Table, *, rejects: set[str], settings: FaceSettings
) -> pa.Table:
    """Adds the drops that need the posts, the reject list, or all other faces."""
    reasons: Reasons = np.array(faces["drop_reason"].to_pylist(), dtype=object)
    _drop_rejected(faces, reasons, rejects)
    _drop_several_on_solo(faces, reasons)
    _drop_near_duplicates(store, faces, reasons, settings)
    dropped = pa.array([reason is not None for reason in reasons], pa.bool_())
    for name in ("crop", "crop_sha256"):
        emptied = pc.if_else(dropped, pa.scalar(None, pa.string()), faces[name])
        faces = _replaced(faces, name, emptied)
    return _replaced(faces, "drop_reason", pa.array(reasons, pa.string()))


def _replaced(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)


def _drop_rejected(faces: pa.Table, reasons: Reasons, rejects: set[str]) -> None:
    ids = faces["face_id"].to_pylist()
    for row, face_id in enumerate(ids):
        if face_id in rejects and reasons[row] is None:
            reasons[row] = "rejected"


def _drop_several_on_solo(faces: pa.Table, reasons: Reasons) -> None:
    """A solo picture has one face: of several, no one knows here which are false."""
    left = np.flatnonzero([reason is None for reason in reasons])
    _, group, count = np.unique(
        faces["sha256"].to_numpy()[left], return_inverse=True, return_counts=True
    )
    solo = faces["solo"].to_numpy()[left].astype(bool)
    reasons[left[solo & (count[group] > 1)]] = "several_faces_on_solo"


def _drop_near_duplicates(
    store: Store, faces: pa.Table, reasons: Reasons, settings: FaceSettings
) -> None:
    """Of faces that show the same, the one of the first post by board and number stays."""
    keys = faces.select(["board", "post_id", "face_id"])
    order = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names]).to_numpy()
    left = order[[reasons[row] is None for row in order]]
    texts = faces["phash"].take(pa.array(left)).to_pylist()
    hashes = np.array([int(text, 16) for text in texts], dtype=np.uint64)
    pairs = similar_pairs(hashes, settings.phash_distance)
    rows, inside = np.unique(pairs, return_inverse=True)
    thumbs = _thumbs(store, faces.take(pa.array(left[rows])))
    alike = thumb_distance(thumbs, inside.reshape(pairs.shape)) <= settings.thumb_rms_max
    dropped: set[int] = set()
    for earlier, later in sorted(pairs[alike].tolist(), key=lambda pair: (pair[1], pair[0])):
        if earlier not in dropped:
            dropped.add(later)
    reasons[left[sorted(dropped)]] = "near_duplicate"


def _thumbs(store: Store, faces: pa.Table) -> npt.NDArray[np.uint8]:
    """The small colour copies of `faces`, in their order, read from the shards that hold them."""
    wanted = faces["face_id"].combine_chunks()
    found: dict[str, bytes] = {}
    for digit in sorted({face_id[0] for face_id in wanted.to_pylist()}):
        with store.open(shard_path(digit)) as file:
            shard = pq.read_table(file, columns=["face_id", "thumb"])
        shard = shard.filter(pc.is_in(shard["face_id"], value_set=wanted))
        found.update(zip(shard["face_id"].to_pylist(), shard["thumb"].to_pylist(), strict=True))
    joined = b"".join(found[face_id] for face_id in wanted.to_pylist())
    return np.frombuffer(joined, np.uint8).reshape(len(wanted), THUMB_BYTES)
