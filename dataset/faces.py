"""Faces: finds, crops and judges the faces on all kept pictures; one table results.

Memory does not grow with the pictures' number but for some 300 bytes each: tables are read and
written by batches, and small copies are read where two faces are compared.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset import tables
from dataset.cropping import FaceSettings
from dataset.crops import (
    CROPS_PATH,
    FORMER_CROPS,
    FORMER_SHARDS,
    REMEDY,
    Cropped,
    bring_up_to,
    first_posts,
)
from dataset.digests import ROW_DIGEST, SumDigest, row_digests
from dataset.engines import Engine
from dataset.errors import EmptyStageError, SchemaError
from dataset.media import give_back_free_memory, give_back_large_blocks
from dataset.merging import JUDGED_BY, Earlier, Judged, judge
from dataset.policy import read_rejects
from dataset.schemas import DIGEST, FACES, FACES_PATH, FORMER_FACES_PATH, REPEATS, SCANNED
from dataset.store import Store

__all__ = ["FaceSettings", "FacesTable", "crop_faces"]

_MERGED = 16_384  # rows of a merge
_WHOLE = 0.5  # from this part of the rows on, all are written anew
_STORED = FACES.append(pa.field(DIGEST, ROW_DIGEST, nullable=False)).append(
    pa.field(REPEATS, pa.string())
)


@dataclass(frozen=True)
class FacesTable:
    """What `crop_faces` made: the table's path, its counts and the digest of its content."""

    path: str
    rows: int
    kept: int
    dropped: dict[str, int]  # by drop_reason
    pictures: int
    pictures_without_face: int
    pictures_reused: int
    unreadable: list[str]  # a line for each picture, naming file and fault
    digest: str  # of all rows, whatever their order
    changed: int  # rows that were written or removed


def crop_faces(
    store: Store, settings: FaceSettings, engine: Engine, *, judge_again: bool = False
) -> FacesTable:
    """Crops the faces of all kept posts' pictures and brings `faces.lance` up to them.

    The pictures are those of posts.lance with a sha256 and no drop_reason, each once, for the
    first of its posts by board and number. Only new ones are cropped, and only rows that changed
    are written. The result does not depend on the engine, but on the build before: the faces
    that it kept stay, and only the others are looked through for near-duplicates, unless the
    settings are others or for `judge_again`. Raises EmptyStageError if no face
    is left, ConfigError for a damaged rejects.txt, ComputeError for workers that die or go, and
    StoreError, before a crop is removed, if more blobs are missing than single accidents explain.
    """
    give_back_large_blocks()
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what it was given
    posts = first_posts(store)
    rejects = frozenset(read_rejects(store))
    pictures = posts.select(["sha256", "ext", "cropped"])
    with _remedied(store):
        cropped = bring_up_to(store, pictures, settings, engine)
        give_back_free_memory()
        earlier = Earlier.of(store)
        judged = judge(store, posts, earlier, rejects=rejects, settings=settings, again=judge_again)
        changed = _write(store, posts, judged, earlier)
    made = _summary(store, posts, judged, cropped, changed=changed)
    for path in (FORMER_FACES_PATH, FORMER_SHARDS, FORMER_CROPS):
        store.remove(path)
    return made


@contextlib.contextmanager
def _remedied(store: Store) -> Iterator[None]:
    """Says of a damaged table of crops what to do: it is no table that a build makes anew."""
    try:
        yield
    except SchemaError as error:
        if store.url(CROPS_PATH) not in str(error):
            raise
        raise SchemaError(str(error).replace("Build it again.", REMEDY)) from error


def _write(store: Store, posts: pa.Table, judged: Judged, earlier: Earlier) -> int:
    """Brings the table up to what was judged: by the rows that changed, if they are not many.

    Returns how many did, and how many went.
    """
    changed, gone = _changes(posts, judged, earlier)
    is_table = store.exists(FACES_PATH) and earlier.rules == judged.rules
    if not is_table or len(changed) > _WHOLE * len(judged.rows):
        declared = _STORED.with_metadata({**FACES.metadata, JUDGED_BY: judged.rules})
        if gone and store.exists(FACES_PATH):
            tables.mark(store, FACES_PATH)
        parts = _parts(posts, judged, np.arange(len(judged.rows)))
        tables.write(store, FACES_PATH, parts, schema=declared)
    else:
        tables.forget(store, FACES_PATH, "face_id", gone)
        for start in range(0, len(changed), _MERGED):
            rows = pa.Table.from_batches(_parts(posts, judged, changed[start : start + _MERGED]))
            tables.merge(store, FACES_PATH, rows, key=["face_id"])
        tables.tidy(store, FACES_PATH)
    tables.purge_marked(store, FACES_PATH)
    return len(changed) + len(gone)


def _changes(
    posts: pa.Table, judged: Judged, earlier: Earlier
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The faces that the table lacks or has otherwise, and the face_ids that it must not have."""
    places = earlier.places(judged.ids)
    boards = np.array(posts["board"].chunk(0).dictionary.to_pylist(), object)
    board = boards[posts["board"].chunk(0).indices.to_numpy()[judged.post_of]]
    post_ids = posts["post_id"].to_numpy()[judged.post_of]
    known = np.flatnonzero(places >= 0)
    at = places[known]
    same = np.zeros(len(places), bool)
    same[known] = (
        (earlier.where[at] == judged.where[known]).all(axis=1)
        & (earlier.boards[at] == board[known])
        & (earlier.post_ids[at] == post_ids[known])
        & (earlier.reasons[at] == judged.reasons[known])
        & (earlier.repeats[at] == judged.repeats[known])
    )
    left = np.ones(len(earlier.ids), bool)
    left[at] = False
    gone = [face_id.decode() for face_id in earlier.ids[left].tolist()]
    return np.flatnonzero(~same), gone


def _parts(
    posts: pa.Table, judged: Judged, faces: npt.NDArray[np.int64]
) -> Iterator[pa.RecordBatch]:
    """The rows of some faces, in their order, as they are to be written."""
    columns = [name for name in FACES.names if name not in ("board", "post_id")]
    for start in range(0, len(faces), SCANNED):
        some = faces[start : start + SCANNED]
        rows = judged.crops.take(judged.rows[some].tolist(), columns=columns)
        at = pa.array(judged.post_of[some])
        for name in ("board", "post_id"):
            rows = rows.append_column(name, posts[name].take(at))
        rows = _with_reasons(rows, judged.reasons[some])
        rows = rows.append_column(_STORED.field(DIGEST), row_digests(rows, FACES.names))
        repeated = [one.decode() or None for one in judged.repeats[some].tolist()]
        yield from rows.append_column(REPEATS, pa.array(repeated, pa.string())).to_batches()


def _with_reasons(faces: pa.Table, reasons: npt.NDArray[np.object_]) -> pa.Table:
    """The faces with their final drop_reasons [N]; one that is dropped has no crop."""
    texts = pa.array(reasons, pa.string())
    for name in ("crop", "crop_sha256"):
        emptied = pc.if_else(pc.is_valid(texts), pa.scalar(None, pa.string()), faces[name])
        faces = faces.set_column(faces.schema.get_field_index(name), name, emptied)
    faces = faces.set_column(faces.schema.get_field_index("drop_reason"), "drop_reason", texts)
    return faces.select(FACES.names).cast(FACES)


def _summary(
    store: Store, posts: pa.Table, judged: Judged, cropped: Cropped, *, changed: int
) -> FacesTable:
    digest = SumDigest()
    counts: Counter[str | None] = Counter()
    for batch in tables.scan(store, FACES_PATH, columns=["drop_reason", DIGEST], rows=SCANNED):
        digest.update(batch[DIGEST])
        for one in pc.value_counts(batch["drop_reason"]).to_pylist():
            counts[one["values"]] += one["counts"]
    made = FacesTable(
        path=FACES_PATH,
        rows=counts.total(),
        kept=counts.pop(None, 0),
        dropped={str(reason): count for reason, count in sorted(counts.items())},
        pictures=posts.num_rows,
        pictures_without_face=judged.pictures_without_face,
        pictures_reused=posts.num_rows - cropped.pictures,
        unreadable=sorted(cropped.unreadable),
        digest=digest.hexdigest(),
        changed=changed,
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
