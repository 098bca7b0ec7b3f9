"""Judges all faces together: what the reject list, other faces and other pictures drop."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset.cropping import FaceSettings
from dataset.duplicates import THUMB_BYTES, Mask, Pairs, Rule, ThumbFile, Thumbs, repeats
from dataset.memory import give_back_free_memory
from dataset.shards import DIGITS, NO_FACE, ROWS_A_GROUP, SHARD, in_digits, shard_path, shard_places
from dataset.store import Store
from dataset.streams import batches

Reasons = npt.NDArray[np.object_]  # [N], a text or None

# Two pictures that are alike as a whole show the same face where their boxes overlap so much ...
MIN_IOU = 0.5
# ... and the crops' colours differ by no more: those of copies of real pictures reach 27.
SAME_PLACE_RMS_MAX = 30.0
ASPECT_MAX = 1.04  # of two copies of one picture, whose sides were rounded

_COLUMNS = (
    "fault", "sha256", "face_id", "x", "y", "w", "h", "phash", "drop_reason", "thumb",
    "picture_width", "picture_height", "picture_phash", "picture_thumb",
)  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """All faces of the shards, in the order of their face_ids."""

    post_of: npt.NDArray[np.int32]  # [N], row of each face's post
    reasons: Reasons
    pictures_without_face: int
    unreadable: list[str]


@dataclass
class _Cut:
    """The faces that have crops, by batches: what their likeness is judged by."""

    rows: list[npt.NDArray[np.int32]] = field(default_factory=list)  # among all faces
    hashes: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    picture_hashes: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    boxes: list[npt.NDArray[np.float16]] = field(default_factory=list)  # left top right bottom, 0-1
    aspects: list[npt.NDArray[np.float32]] = field(default_factory=list)  # width over height


def judge(
    store: Store, posts: pa.Table, *, rejects: frozenset[str], settings: FaceSettings
) -> Judged:
    """Reads the shards and adds the drops that take more than one picture to see.

    posts: a row a picture, by sha256, with board, post_id and solo.
    """
    cut = _Cut()
    post_of, reasons, unreadable = [], [], []
    without = first = 0
    with ThumbFile() as crops, ThumbFile() as pictures:
        for batch, pictures_of_shard, before in _shard_rows(store, posts):
            faulty = batch["fault"].drop_null().to_pylist()
            without += faulty.count(NO_FACE)
            unreadable += [fault for fault in faulty if fault != NO_FACE]
            faces = batch.filter(pc.is_valid(batch["face_id"]))
            reasons.append(_own_reasons(faces, rejects))
            places = pc.index_in(faces["sha256"], value_set=pictures_of_shard)
            post_of.append(places.to_numpy().astype(np.int32) + np.int32(before))
            _add(cut, faces, first=first, crops=crops, pictures=pictures)
            first += faces.num_rows
        judged = Judged(
            np.concatenate(post_of),
            np.concatenate(reasons),
            without,
            unreadable,
        )
        post_of.clear()
        reasons.clear()
        give_back_free_memory()
        _drop_several_on_solo(judged, posts)
        _drop_near_duplicates(judged, posts, cut, crops=crops, pictures=pictures, settings=settings)
    return judged


def _shard_rows(store: Store, posts: pa.Table) -> Iterator[tuple[pa.RecordBatch, pa.Array, int]]:
    """Each batch of the shards, with its shard's pictures and how many come before these."""
    for digit, (before, count) in zip(DIGITS, shard_places(posts), strict=True):
        of_shard = in_digits(posts["sha256"].slice(before, count))
        for batch in batches(
            store, shard_path(digit), declared=SHARD, columns=_COLUMNS, rows=ROWS_A_GROUP
        ):
            yield batch, of_shard, before


def _own_reasons(faces: pa.RecordBatch, rejects: frozenset[str]) -> Reasons:
    ids, found = faces["face_id"].to_pylist(), faces["drop_reason"].to_pylist()
    reasons: Reasons = np.full(len(ids), None, dtype=object)
    for row, (face_id, reason) in enumerate(zip(ids, found, strict=True)):
        if reason is not None:
            reasons[row] = sys.intern(reason)
        elif face_id in rejects:
            reasons[row] = "rejected"
    return reasons


def _add(
    cut: _Cut, faces: pa.RecordBatch, *, first: int, crops: ThumbFile, pictures: ThumbFile
) -> None:
    """Adds the faces that have crops; `first` is the number of the batch's first face."""
    with_crop = np.flatnonzero(pc.is_valid(faces["thumb"]).to_numpy(zero_copy_only=False))
    with_crops = faces.take(pa.array(with_crop))
    crops.append(_thumbs(with_crops["thumb"]))
    pictures.append(_thumbs(with_crops["picture_thumb"]))
    cut.rows.append((first + with_crop).astype(np.int32))
    cut.hashes.append(_hashes(with_crops["phash"]))
    cut.picture_hashes.append(_hashes(with_crops["picture_phash"]))
    x, y, w, h, width, height = (
        with_crops[name].to_numpy().astype(np.float32)
        for name in ("x", "y", "w", "h", "picture_width", "picture_height")
    )
    edges = (x / width, y / height, (x + w) / width, (y + h) / height)
    cut.boxes.append(np.stack(edges, axis=1).astype(np.float16))
    cut.aspects.append(width / height)


def _thumbs(column: pa.Array) -> Thumbs:
    joined = b"".join(column.to_pylist())
    return np.frombuffer(joined, np.uint8).reshape(len(column), THUMB_BYTES)


def _hashes(column: pa.Array) -> npt.NDArray[np.uint64]:
    return np.array([int(text, 16) for text in column.to_pylist()], dtype=np.uint64)


def _drop_several_on_solo(judged: Judged, posts: pa.Table) -> None:
    """A solo picture has one face: of several, no one knows here which are false."""
    left = np.flatnonzero(judged.reasons == None)  # noqa: E711 - of each element
    of_post = judged.post_of[left]
    several = np.bincount(of_post, minlength=posts.num_rows)[of_post] > 1
    solo = posts["solo"].to_numpy()[of_post]
    judged.reasons[left[solo & several]] = "several_faces_on_solo"


def _drop_near_duplicates(
    judged: Judged,
    posts: pa.Table,
    cut: _Cut,
    *,
    crops: ThumbFile,
    pictures: ThumbFile,
    settings: FaceSettings,
) -> None:
    """Of faces that show the same, the one of the first post by board and number stays."""
    rows = _joined(cut.rows)
    places = np.flatnonzero(judged.reasons[rows] == None)  # noqa: E711 - among those with crops
    rank = _ranks(posts)[judged.post_of[rows[places]]]
    places = places[np.argsort(rank, kind="stable")]
    of_post = judged.post_of[rows[places]]
    boxes, aspects = _joined(cut.boxes)[places], _joined(cut.aspects)[places]

    def same_crop(pairs: Pairs) -> Mask:
        return crops.alike(places[pairs], settings.thumb_rms_max)

    def same_place(pairs: Pairs) -> Mask:
        one, two = pairs.T
        aspect = aspects[one] / aspects[two]
        alike = (np.maximum(aspect, 1 / aspect) <= ASPECT_MAX) & (of_post[one] != of_post[two])
        alike &= overlap(boxes[one].astype(np.float32), boxes[two].astype(np.float32)) >= MIN_IOU
        for thumbs, rms_max in ((pictures, settings.picture_rms_max), (crops, SAME_PLACE_RMS_MAX)):
            alike[alike] = thumbs.alike(places[pairs[alike]], rms_max)
        return np.asarray(alike, bool)

    hashes, picture_hashes = _joined(cut.hashes)[places], _joined(cut.picture_hashes)[places]
    by_crop = Rule(hashes, settings.phash_distance, same_crop)
    by_picture = Rule(picture_hashes, settings.picture_distance, same_place)
    judged.reasons[rows[places[repeats([by_picture, by_crop])]]] = "near_duplicate"


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Joins the parts and forgets them."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


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
