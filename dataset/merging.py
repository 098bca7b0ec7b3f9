"""Judges all faces together: what the reject list, other faces and other pictures drop."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset import tables
from dataset.cropping import FaceSettings
from dataset.crops import CROPS, CROPS_PATH, face_keys, key_places
from dataset.digests import bytes_of
from dataset.duplicates import (
    COARSE_CELLS,
    THUMB_BYTES,
    Copies,
    Mask,
    Pairs,
    Rows,
    Rule,
    Thumbs,
    repeats,
)
from dataset.errors import OmokageError
from dataset.schemas import FACES, REPEATS, SCANNED, batches, check_batch, faces_path
from dataset.store import Store, digest_of

Reasons = npt.NDArray[np.object_]  # [N], a text or None
Seen = npt.NDArray[np.uint8]  # [N], of each face one of the next three

KEPT, REPEATED, NEW = range(3)  # by the build before; new too is what was dropped otherwise
NEAR_DUPLICATE = "near_duplicate"
JUDGED_BY = b"judged_by"  # in the metadata of the table of faces: the digest of the rules

# Two pictures that are alike as a whole show the same face where their boxes overlap so much ...
MIN_IOU = 0.5
# ... and the crops' colours differ by no more: those of copies of real pictures reach 27.
SAME_PLACE_RMS_MAX = 30.0
ASPECT_MAX = 1.04  # of two copies of one picture, whose sides were rounded

_VERSION = 1  # raise it when faces are judged by other rules than before
_SIDES = ("x", "y", "w", "h", "square_x", "square_y", "side")
# By what a face is known again beside its face_id: its place on the picture and its look.
_WHERE = (*_SIDES, "phash")
_COLUMNS = (
    "fault", "sha256", "face_id", "drop_reason", *_WHERE,
    "picture_width", "picture_height", "picture_phash", "coarse", "picture_coarse",
)  # fmt: skip


_READ = pa.schema(
    [
        *(FACES.field(name) for name in ("face_id", "board", "post_id", "drop_reason", *_WHERE)),
        pa.field(REPEATS, pa.string()),
    ]
)


@dataclass(frozen=True)
class Earlier:
    """The table of faces as the build before left it, by face_id.

    ids: [N], sorted; where: what `_WHERE` says, [N, 8]; the others: [N].
    """

    ids: npt.NDArray[np.bytes_]
    where: npt.NDArray[np.int64]
    boards: Reasons
    post_ids: npt.NDArray[np.int64]
    reasons: Reasons
    repeats: npt.NDArray[np.bytes_]  # the face_id of what each repeats, empty for none
    rules: str | None  # digest of the rules that it was judged by

    @classmethod
    def of(cls, store: Store) -> "Earlier":
        """Reads it; there is nothing in it if there is no table or one that cannot be read."""
        path = faces_path(store)
        try:
            return cls._read(store, path) if store.exists(path) else cls._of([], None)
        except (pa.ArrowInvalid, OmokageError):  # it is written anew
            return cls._of([], None)

    @classmethod
    def _read(cls, store: Store, path: str) -> "Earlier":
        if tables.is_lance(path):
            schema = tables.schema_of(store, path)
        else:
            with store.open(path) as file:
                schema = pq.read_schema(file)
        columns = [name for name in _READ.names if name in schema.names]
        # All columns, so that a damaged one is found here, where the table is made anew.
        parts = batches(store, path, declared=FACES, columns=schema.names, rows=SCANNED)
        return cls._of([part.select(columns) for part in parts], schema.metadata)

    @classmethod
    def _of(cls, parts: list[pa.RecordBatch], metadata: dict[bytes, bytes] | None) -> "Earlier":
        rows = pa.Table.from_batches(parts) if parts else _READ.empty_table()
        if REPEATS not in rows.column_names:  # of an older home
            rows = rows.append_column(REPEATS, pa.nulls(rows.num_rows, pa.string()))
        keys = face_keys(rows["face_id"])
        order = np.argsort(keys, kind="stable")
        rules = (metadata or {}).get(JUDGED_BY)
        return cls(
            keys[order],
            _where(rows)[order],
            _texts(rows["board"])[order],
            rows["post_id"].to_numpy()[order],
            _texts(rows["drop_reason"])[order],
            face_keys(rows[REPEATS])[order],
            None if rules is None else rules.decode(),
        )

    def places(self, keys: npt.NDArray[np.bytes_]) -> Rows:
        """Returns the row of each face_id, -1 for one that is not there: [M]."""
        return key_places(self.ids, keys)


@dataclass(frozen=True)
class Judged:
    """All faces of the table of crops, in its order."""

    crops: tables.Snapshot
    rows: Rows  # [N], row of each face in the table of crops
    ids: npt.NDArray[np.bytes_]  # [N], face_ids as of `face_keys`
    where: npt.NDArray[np.int64]  # [N, 8], as in Earlier
    post_of: npt.NDArray[np.int32]  # [N], row of each face's post
    reasons: Reasons
    repeats: npt.NDArray[np.bytes_]  # [N], as in Earlier
    pictures_without_face: int
    rules: str  # digest of the rules that they were judged by


@dataclass(frozen=True)
class _Cut:
    """The faces that have crops: what their likeness is judged by."""

    faces: Rows  # [C], among all faces
    hashes: npt.NDArray[np.uint64]
    picture_hashes: npt.NDArray[np.uint64]
    boxes: npt.NDArray[np.float16]  # [C, 4], left top right bottom, 0-1
    aspects: npt.NDArray[np.float32]  # width over height
    coarse: npt.NDArray[np.uint8]  # [C, COARSE_CELLS]
    picture_coarse: npt.NDArray[np.uint8]


def judge(
    store: Store,
    posts: pa.Table,
    earlier: Earlier,
    *,
    rejects: frozenset[str],
    settings: FaceSettings,
    again: bool = False,
) -> Judged:
    """Reads the table of crops and adds the drops that take more than one picture to see.

    posts: a row a picture, by sha256, with board, post_id and solo. What the build before keeps,
    as `earlier` says, is not judged again, unless by other rules than these or for `again`.
    """
    held = tables.Snapshot(store, CROPS_PATH)
    rejected = pa.array(sorted(rejects), pa.string())
    content = posts["sha256"].chunk(0).buffers()[1]
    pictures = np.frombuffer(content, "S32", posts.num_rows)
    parts: list[tuple[Any, ...]] = [
        (
            np.empty(0, np.int64),
            face_keys(pa.array([], pa.string())),
            np.empty((0, len(_WHERE)), np.int64),
            np.empty(0, np.int32),
            np.empty(0, object),
        )
    ]
    cuts: list[_Cut] = []
    without = first_row = first_face = 0
    for batch in held.scan(columns=_COLUMNS, rows=SCANNED):
        check_batch(batch, CROPS, first_row=first_row, where=store.url(CROPS_PATH))
        without += batch.num_rows - batch["fault"].null_count
        at = np.flatnonzero(pc.is_valid(batch["face_id"]).to_numpy(zero_copy_only=False))
        faces = batch.take(pa.array(at))
        names = bytes_of(faces["sha256"], 32)
        parts.append(
            (
                first_row + at,
                face_keys(faces["face_id"]),
                _where(faces),
                np.searchsorted(pictures, names).astype(np.int32),
                _own_reasons(faces, rejected),
            )
        )
        cuts.append(_cut(faces, first=first_face))
        first_row += batch.num_rows
        first_face += len(at)
    rows, ids, where, post_of, reasons = _joined(parts)
    judged = Judged(
        held,
        rows,
        ids,
        where,
        post_of,
        reasons,
        np.full(len(ids), b"", ids.dtype),
        without,
        rules_digest(settings),
    )
    _drop_several_on_solo(judged, posts)
    if cuts:
        cut = _Cut(*_joined([tuple(vars(one).values()) for one in cuts]))
        fresh = again or earlier.rules != judged.rules
        seen = np.full(len(rows), NEW, np.uint8) if fresh else _outcomes(judged, earlier)
        _keep_repeats(judged, earlier, seen)
        _drop_near_duplicates(judged, posts, cut, seen=seen, settings=settings)
    return judged


def rules_digest(settings: FaceSettings) -> str:
    """Returns the digest of all that decides which faces show the same."""
    return digest_of(
        [_VERSION, settings.digest, MIN_IOU, SAME_PLACE_RMS_MAX, ASPECT_MAX, THUMB_BYTES]
    )


def _own_reasons(faces: pa.RecordBatch, rejected: pa.Array) -> Reasons:
    reasons = _texts(faces["drop_reason"])
    listed = pc.is_in(faces["face_id"], value_set=rejected).to_numpy(zero_copy_only=False)
    reasons[listed & (reasons == None)] = "rejected"  # noqa: E711 - of each element
    return reasons


def _texts(column: pa.Array | pa.ChunkedArray) -> Reasons:
    """A column of few different texts, as objects: None where it is empty."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    found = pc.dictionary_encode(whole)
    texts = np.array([*found.dictionary.to_pylist(), None], object)
    codes = pc.fill_null(found.indices, len(texts) - 1)
    return np.asarray(texts[codes.to_numpy(zero_copy_only=False)], object)


def _where(faces: pa.Table | pa.RecordBatch) -> npt.NDArray[np.int64]:
    sides = [faces[name].to_numpy().astype(np.int64) for name in _SIDES]
    return np.stack([*sides, _hashes(faces["phash"]).view(np.int64)], axis=1)


def _outcomes(judged: Judged, earlier: Earlier) -> Seen:
    """What the build before made of the faces: of the same place on the same picture."""
    places = earlier.places(judged.ids)
    outcomes = np.full(len(places), NEW, np.uint8)
    known = np.flatnonzero(places >= 0)
    there = places[known]
    same = (earlier.where[there] == judged.where[known]).all(axis=1)
    said = earlier.reasons[there]
    outcomes[known[same & (said == None)]] = KEPT  # noqa: E711 - of each element
    outcomes[known[same & (said == NEAR_DUPLICATE)]] = REPEATED
    return outcomes


def _keep_repeats(judged: Judged, earlier: Earlier, seen: Seen) -> None:
    """Drops those again that repeat what is still kept: they need not be compared."""
    repeated = np.flatnonzero((seen == REPEATED) & (judged.reasons == None))  # noqa: E711
    if not len(repeated):
        return
    origins = earlier.repeats[earlier.places(judged.ids[repeated])]
    order = np.argsort(judged.ids, kind="stable")
    places = key_places(judged.ids[order], origins)
    known = np.flatnonzero(places >= 0)
    there = order[places[known]]
    stands = known[(seen[there] == KEPT) & (judged.reasons[there] == None)]  # noqa: E711
    judged.reasons[repeated[stands]] = NEAR_DUPLICATE
    judged.repeats[repeated[stands]] = origins[stands]


def _cut(faces: pa.RecordBatch, *, first: int) -> _Cut:
    """The faces that have crops; `first` is the number of the batch's first face."""
    has_crop = pc.is_valid(faces["picture_phash"]).to_numpy(zero_copy_only=False)
    at = np.flatnonzero(has_crop)
    cut = faces.take(pa.array(at))
    x, y, w, h, width, height = (
        cut[name].to_numpy().astype(np.float32)
        for name in ("x", "y", "w", "h", "picture_width", "picture_height")
    )
    edges = (x / width, y / height, (x + w) / width, (y + h) / height)
    of_crop, of_picture = (
        cut[name].to_numpy().astype(np.int32).view(np.uint8).reshape(-1, COARSE_CELLS)
        for name in ("coarse", "picture_coarse")
    )
    return _Cut(
        first + at,
        _hashes(cut["phash"]),
        _hashes(cut["picture_phash"]),
        np.stack(edges, axis=1).astype(np.float16),
        width / height,
        of_crop,
        of_picture,
    )


def _joined(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Joins arrays one by one: the first of all parts, the second, and so on."""
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _hashes(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return bytes_of(whole, 8).view(">u8").astype(np.uint64)


def _drop_several_on_solo(judged: Judged, posts: pa.Table) -> None:
    """A solo picture has one face: of several, no one knows here which are false."""
    left = np.flatnonzero(judged.reasons == None)  # noqa: E711 - of each element
    of_post = judged.post_of[left]
    several = np.bincount(of_post, minlength=posts.num_rows)[of_post] > 1
    solo = posts["solo"].to_numpy()[of_post]
    judged.reasons[left[solo & several]] = "several_faces_on_solo"


def _drop_near_duplicates(
    judged: Judged, posts: pa.Table, cut: _Cut, *, seen: Seen, settings: FaceSettings
) -> None:
    """Of faces that show the same, the one that was kept before stays: else the first one.

    Those that were dropped before come first: what they repeated may have gone since. Then the new
    ones, both by their posts' board and number.
    """
    faces = cut.faces
    places = np.flatnonzero(judged.reasons[faces] == None)  # noqa: E711 - among those with crops
    rank = _ranks(posts)[judged.post_of[faces[places]]]
    outcomes = seen[faces[places]]
    places = places[np.lexsort((rank, outcomes))]
    faces = faces[places]
    of_post = judged.post_of[faces]
    boxes, aspects = cut.boxes[places], cut.aspects[places]

    def copies(column: str, cells: npt.NDArray[np.uint8]) -> Copies:
        def read(rows: Rows) -> Thumbs:
            at = judged.rows[faces[rows]]
            order = np.argsort(at)  # read in their order: half the time
            taken = judged.crops.take(at[order].tolist(), columns=[column])[column]
            joined = b"".join(taken.to_pylist())
            thumbs = np.empty((len(rows), THUMB_BYTES), np.uint8)
            thumbs[order] = np.frombuffer(joined, np.uint8).reshape(-1, THUMB_BYTES)
            return thumbs

        return Copies(cells[places], read)

    crops, pictures = copies("thumb", cut.coarse), copies("picture_thumb", cut.picture_coarse)

    def same_crop(pairs: Pairs) -> Mask:
        return crops.alike(pairs, settings.thumb_rms_max)

    def same_place(pairs: Pairs) -> Mask:
        one, two = pairs.T
        aspect = aspects[one] / aspects[two]
        alike = (np.maximum(aspect, 1 / aspect) <= ASPECT_MAX) & (of_post[one] != of_post[two])
        alike &= overlap(boxes[one].astype(np.float32), boxes[two].astype(np.float32)) >= MIN_IOU
        for thumbs, rms_max in ((pictures, settings.picture_rms_max), (crops, SAME_PLACE_RMS_MAX)):
            alike[alike] = thumbs.alike(pairs[alike], rms_max)
        return np.asarray(alike, bool)

    by_crop = Rule(cut.hashes[places], settings.phash_distance, same_crop)
    by_picture = Rule(cut.picture_hashes[places], settings.picture_distance, same_place)
    origins = repeats([by_picture, by_crop], standing=int(np.count_nonzero(outcomes == KEPT)))
    repeated = np.flatnonzero(origins >= 0)
    judged.reasons[faces[repeated]] = NEAR_DUPLICATE
    judged.repeats[faces[repeated]] = judged.ids[faces[origins[repeated]]]


def _ranks(posts: pa.Table) -> npt.NDArray[np.int32]:
    """The place of each post [P] by board and number."""
    boards = posts["board"].chunk(0).indices.to_numpy()  # of a dictionary in order
    order = np.lexsort((posts["post_id"].to_numpy(), boards))
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks


def overlap(one: npt.NDArray[np.float32], two: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns the intersection over union (0-1) of boxes [P, 4] as left, top, right, bottom."""
    low = np.maximum(one[:, :2], two[:, :2])
    high = np.minimum(one[:, 2:], two[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = [np.prod(box[:, 2:] - box[:, :2], axis=1) for box in (one, two)]
    shared: npt.NDArray[np.float32] = common / (areas[0] + areas[1] - common)
    return shared
