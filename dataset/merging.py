"""Judges all faces together: what the reject list, other faces and other pictures drop."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset.cropping import FaceSettings
from dataset.duplicates import THUMB_BYTES, Mask, Pairs, Rule, ThumbFile, Thumbs, repeats
from dataset.errors import SchemaError
from dataset.memory import give_back_free_memory
from dataset.schemas import FACES, FACES_PATH
from dataset.shards import (
    DIGITS,
    NO_FACE,
    ROWS_A_GROUP,
    SHARD,
    in_digits,
    read_columns,
    shard_path,
    shard_places,
)
from dataset.store import Store, digest_of
from dataset.streams import batches

Reasons = npt.NDArray[np.object_]  # [N], a text or None
Seen = npt.NDArray[np.uint8]  # [N], of each face one of the next three

KEPT, REPEATED, NEW = range(3)  # by the build before; new too is what was dropped otherwise
NEAR_DUPLICATE = "near_duplicate"
JUDGED_BY = b"judged_by"  # in the metadata of faces.parquet: the digest of the rules

# Two pictures that are alike as a whole show the same face where their boxes overlap so much ...
MIN_IOU = 0.5
# ... and the crops' colours differ by no more: those of copies of real pictures reach 27.
SAME_PLACE_RMS_MAX = 30.0
ASPECT_MAX = 1.04  # of two copies of one picture, whose sides were rounded

_VERSION = 1  # raise it when faces are judged by other rules than before
_WHERE = ("phash", "x", "y", "w", "h")  # by what a face is known again beside its face_id
_COLUMNS = (
    "fault", "sha256", "face_id", "drop_reason", *_WHERE,
    "picture_width", "picture_height", "picture_phash",
)  # fmt: skip
_THUMBS = ("thumb", "picture_thumb")


@dataclass(frozen=True)
class Judged:
    """All faces of the shards, in the order of their face_ids."""

    post_of: npt.NDArray[np.int32]  # [N], row of each face's post
    reasons: Reasons
    pictures_without_face: int
    unreadable: list[str]
    rules: str  # digest of the rules that they were judged by


@dataclass
class _Cut:
    """The faces that have crops, by shards: what their likeness is judged by."""

    rows: list[npt.NDArray[np.int32]] = field(default_factory=list)  # among all faces
    hashes: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    picture_hashes: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    boxes: list[npt.NDArray[np.float16]] = field(default_factory=list)  # left top right bottom, 0-1
    aspects: list[npt.NDArray[np.float32]] = field(default_factory=list)  # width over height


def judge(
    store: Store,
    posts: pa.Table,
    *,
    rejects: frozenset[str],
    settings: FaceSettings,
    again: bool = False,
) -> Judged:
    """Reads the shards and adds the drops that take more than one picture to see.

    posts: a row a picture, by sha256, with board, post_id and solo. What the faces.parquet of the
    build before keeps is not judged again, unless by other rules than these or for `again`.
    """
    cut = _Cut()
    post_of, reasons, unreadable = [], [], []
    without = first = 0
    rules = rules_digest(settings)
    with ThumbFile() as crops, ThumbFile() as pictures:
        for digit, (before, count) in zip(DIGITS, shard_places(posts), strict=True):
            rows = read_columns(store, digit, _COLUMNS)
            faulty = rows["fault"].drop_null()
            noted = faulty.filter(pc.not_equal(faulty, NO_FACE)).to_pylist()
            unreadable += noted
            without += len(faulty) - len(noted)
            faces = rows.filter(pc.is_valid(rows["face_id"]))
            reasons.append(_own_reasons(faces, rejects))
            of_shard = in_digits(posts["sha256"].slice(before, count))
            places = pc.index_in(faces["sha256"], value_set=of_shard)
            post_of.append(places.to_numpy().astype(np.int32) + np.int32(before))
            _add(cut, faces, first=first)
            _add_thumbs(store, digit, crops=crops, pictures=pictures)
            first += faces.num_rows
        assert len(crops) == len(pictures) == sum(map(len, cut.rows))
        judged = Judged(
            np.concatenate(post_of),
            np.concatenate(reasons),
            without,
            unreadable,
            rules,
        )
        post_of.clear()
        reasons.clear()
        give_back_free_memory()
        _drop_several_on_solo(judged, posts)
        seen = np.full(first, NEW, np.uint8) if again else _seen(store, rules, first)
        _drop_near_duplicates(
            judged, posts, cut, seen=seen, crops=crops, pictures=pictures, settings=settings
        )
    return judged


def rules_digest(settings: FaceSettings) -> str:
    """Returns the digest of all that decides which faces show the same."""
    return digest_of(
        [_VERSION, settings.digest, MIN_IOU, SAME_PLACE_RMS_MAX, ASPECT_MAX, THUMB_BYTES]
    )


def _own_reasons(faces: pa.Table, rejects: frozenset[str]) -> Reasons:
    found = pc.dictionary_encode(faces["drop_reason"].combine_chunks())
    texts = np.array([*found.dictionary.to_pylist(), None], object)
    reasons: Reasons = texts[pc.fill_null(found.indices, len(texts) - 1).to_numpy()]
    listed = pc.is_in(faces["face_id"], value_set=pa.array(sorted(rejects), pa.string()))
    reasons[listed.to_numpy() & (reasons == None)] = "rejected"  # noqa: E711 - of each element
    return reasons


def _seen(store: Store, rules: str, count: int) -> Seen:
    """What the build before made of each of the `count` faces: all are new if it says nothing.

    So they are without its table, with a damaged one, or with one that was judged by other rules.
    """
    if not store.exists(FACES_PATH):
        return np.full(count, NEW, np.uint8)
    columns = ("face_id", *_WHERE, "drop_reason")
    declared = pa.schema([FACES.field(name) for name in columns])
    seen = []
    try:
        with store.open(FACES_PATH) as file:
            if (pq.read_schema(file).metadata or {}).get(JUDGED_BY) != rules.encode():
                return np.full(count, NEW, np.uint8)
        for digit in DIGITS:
            parts = batches(store, FACES_PATH, declared=FACES, columns=columns, digit=digit)
            earlier = pa.Table.from_batches(parts, schema=declared).combine_chunks()
            faces = read_columns(store, digit, columns)
            seen.append(_outcomes(faces.filter(pc.is_valid(faces["face_id"])), earlier))
    except (pa.ArrowInvalid, SchemaError):
        return np.full(count, NEW, np.uint8)
    return np.concatenate(seen)


def _outcomes(faces: pa.Table, earlier: pa.Table) -> Seen:
    """What the earlier rows say of the faces: of the same place on the same picture."""
    rows = pc.index_in(faces["face_id"], value_set=earlier["face_id"].combine_chunks())
    there = earlier.take(rows)
    same = pc.is_valid(rows)
    for name in _WHERE:
        same = pc.and_(same, pc.fill_null(pc.equal(there[name], faces[name]), fill_value=False))
    repeated = pc.fill_null(pc.equal(there["drop_reason"], NEAR_DUPLICATE), fill_value=False)
    outcomes = np.full(faces.num_rows, NEW, np.uint8)
    outcomes[pc.and_(same, pc.is_null(there["drop_reason"])).to_numpy()] = KEPT
    outcomes[pc.and_(same, repeated).to_numpy()] = REPEATED
    return outcomes


def _add(cut: _Cut, faces: pa.Table, *, first: int) -> None:
    """Adds the faces that have crops; `first` is the number of the shard's first face."""
    with_crop = np.flatnonzero(pc.is_valid(faces["picture_phash"]).to_numpy())
    with_crops = faces.take(pa.array(with_crop))
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


def _add_thumbs(store: Store, digit: str, *, crops: ThumbFile, pictures: ThumbFile) -> None:
    """Adds the small copies of the same faces, in the same order."""
    for batch in batches(
        store, shard_path(digit), declared=SHARD, columns=_THUMBS, rows=ROWS_A_GROUP
    ):
        for file, column in zip((crops, pictures), batch.columns, strict=True):
            file.append(_thumbs(column.drop_null()))


def _thumbs(column: pa.Array) -> Thumbs:
    joined = b"".join(column.to_pylist())
    return np.frombuffer(joined, np.uint8).reshape(len(column), THUMB_BYTES)


def _hashes(column: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    return np.frombuffer(bytes.fromhex("".join(column.to_pylist())), ">u8").astype(np.uint64)


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
    seen: Seen,
    crops: ThumbFile,
    pictures: ThumbFile,
    settings: FaceSettings,
) -> None:
    """Of faces that show the same, the one that was kept before stays: else the first one.

    Those that were dropped before come first: what they repeated may have gone since. Then the new
    ones, both by their posts' board and number.
    """
    rows = _joined(cut.rows)
    places = np.flatnonzero(judged.reasons[rows] == None)  # noqa: E711 - among those with crops
    rank = _ranks(posts)[judged.post_of[rows[places]]]
    outcomes = seen[rows[places]]
    places = places[np.lexsort((rank, outcomes))]
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
    repeated = repeats([by_picture, by_crop], standing=int(np.count_nonzero(outcomes == KEPT)))
    judged.reasons[rows[places[repeated]]] = NEAR_DUPLICATE


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
