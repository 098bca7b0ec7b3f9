"""The 16 shards of the crop work, by the sha256's first hex digit: planned, cropped, committed."""

import hashlib
import itertools
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset.cropping import Face, FaceSettings, faces_in
from dataset.decode import UnreadablePicture
from dataset.errors import EmptyStageError, SchemaError, StoreError, listed
from dataset.schemas import FACES, PARQUET, POSTS, POSTS_PATH, posts_path
from dataset.store import BLOBS, Store, blob_path, is_outage
from dataset.streams import batches

SOLO = "solo"
_COLUMNS = ("sha256", "ext", "board", "post_id", "tags_general", "cropped", "drop_reason")
_SHA256_BYTES = 32


class _PostColumns:
    """The usable posts in plain arrays, 50 bytes each: many small tables would take much more."""

    def __init__(self) -> None:
        self.sha256s = bytearray()
        self.solo, self.cropped = bytearray(), bytearray()
        self.post_ids = array("q")
        self.boards, self.exts = _DictionaryColumn(), _DictionaryColumn()

    def add(self, posts: pa.Table) -> None:
        self.sha256s += bytes.fromhex("".join(posts["sha256"].to_pylist()))
        self.solo += _has_tag(posts["tags_general"], SOLO).tobytes()
        said = pc.fill_null(posts["cropped"], fill_value=False)
        self.cropped += said.to_numpy().tobytes()
        self.post_ids.extend(posts["post_id"].to_pylist())
        self.boards.add(posts["board"].to_pylist())
        self.exts.add(posts["ext"].to_pylist())

    def table(self) -> pa.Table:
        """The first post of each picture, by sha256."""
        names = np.frombuffer(self.sha256s, f"S{_SHA256_BYTES}")
        post_ids = np.frombuffer(self.post_ids, np.int64)
        order = np.lexsort((post_ids, self.boards.ranks(), names))
        ordered = names[order]
        first = np.ones(len(order), bool)
        first[1:] = ordered[1:] != ordered[:-1]
        rows = order[first]
        cropped = np.frombuffer(self.cropped, bool)[order]
        content = pa.py_buffer(names[rows].tobytes())
        sha256s = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(_SHA256_BYTES), len(rows), [None, content]
        )
        return pa.table(
            {
                "sha256": sha256s,
                "ext": self.exts.column(rows),
                "board": self.boards.column(rows),
                "post_id": post_ids[rows],
                "solo": np.frombuffer(self.solo, bool)[rows],
                "cropped": np.logical_or.reduceat(cropped, np.flatnonzero(first)),
            }
        )


class _DictionaryColumn:
    """A column of few different texts."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._rows = array("i")

    def add(self, texts: list[str]) -> None:
        self._rows.extend(self._codes.setdefault(text, len(self._codes)) for text in texts)

    def ranks(self) -> npt.NDArray[np.int32]:
        """Each row's place among the texts in their order."""
        places = {text: place for place, text in enumerate(sorted(self._codes))}
        ranks = np.array([places[text] for text in self._codes], np.int32)
        return ranks[np.frombuffer(self._rows, np.int32)]

    def column(self, rows: npt.NDArray[np.int64]) -> pa.DictionaryArray:
        """The texts of these rows, with a dictionary in their order."""
        texts = pa.array(sorted(self._codes), pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(self.ranks()[rows]), texts)


def first_posts(store: Store) -> pa.Table:
    """Returns a row a picture, by sha256 (32 bytes): ext, board, post_id, solo, cropped.

    Pictures are those of posts.lance with a sha256 and no drop_reason; the post is the first by
    board and number. A picture is cropped (a face already) if any of its posts says so. Raises
    EmptyStageError if there is none, SchemaError for an impossible name.
    """
    columns = _PostColumns()
    rows = 0
    for batch in batches(store, posts_path(store), declared=POSTS, columns=_COLUMNS):
        rows += batch.num_rows
        stored = pc.and_(pc.is_null(batch["drop_reason"]), pc.is_valid(batch["sha256"]))
        usable = pa.Table.from_batches([batch.filter(stored)])
        _check_blobs(store, usable)
        columns.add(usable)
    if not columns.solo:
        raise EmptyStageError(
            f"{store.url(POSTS_PATH)}: none of {rows:,} posts has a stored picture "
            "that is not dropped. Crawl first; its drop_reason column says why posts were refused."
        )
    return columns.table()


def shard_places(posts: pa.Table) -> list[tuple[int, int]]:
    """Returns where each of the 16 shards' pictures begin in `posts`, and how many they are."""
    names = posts["sha256"].chunk(0)
    content = np.frombuffer(names.buffers()[1], np.uint8).reshape(-1, _SHA256_BYTES)
    ends = np.searchsorted(content[:, 0] >> 4, np.arange(17)).tolist()
    return [(first, end - first) for first, end in itertools.pairwise(ends)]


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


def _has_tag(tags: pa.ChunkedArray, tag: str) -> npt.NDArray[np.bool_]:
    lists = tags.combine_chunks()
    rows = pc.list_parent_indices(lists).filter(pc.equal(pc.list_flatten(lists), tag))
    has = np.zeros(len(lists), bool)
    has[rows.to_numpy()] = True
    return has


DIGITS = "0123456789abcdef"
NO_FACE = "no_face"
ROWS_A_GROUP = 256  # 2 kB each, most of it the small copies

_OF_POSTS = {"board", "post_id"}
SHARD = pa.schema(
    [
        pa.field("fault", pa.string()),  # no_face, or why the picture could not be read
        pa.field("sha256", pa.string(), nullable=False),
        *(field.with_nullable(True) for field in FACES if field.name not in _OF_POSTS | {"sha256"}),
        pa.field("cropped", pa.bool_(), nullable=False),  # its post said so when it was cropped
        pa.field("thumb", pa.binary()),
        pa.field("picture_width", pa.int32()),
        pa.field("picture_height", pa.int32()),
        pa.field("picture_phash", pa.string()),
        pa.field("picture_thumb", pa.binary()),
    ],
    metadata={"table": "shard"},
)


@dataclass(frozen=True)
class Blob:
    """A stored original."""

    sha256: str
    ext: str
    cropped: bool = False  # it is a face already: taken whole

    def __str__(self) -> str:
        return blob_path(self.sha256, self.ext)


@dataclass(frozen=True)
class Plan:
    """What is to be done for one shard: the rows of other `pictures` stand, `todo` is cropped.

    Both have the columns sha256 (32 bytes, half the length of its digits), ext and cropped, by
    sha256.
    """

    digit: str
    inputs: str
    whole: bool  # nothing has changed: the file stands as it is
    pictures: pa.Table
    todo: pa.Table

    @property
    def path(self) -> str:
        """Path of the shard's file."""
        return shard_path(self.digit)

    def batches(self, size: int) -> Iterator[tuple[Blob, ...]]:
        """Yields what is to be cropped in tuples of `size` pictures."""
        for start in range(0, self.todo.num_rows, size):
            part = self.todo.slice(start, size)
            columns = (part[name].to_pylist() for name in ("sha256", "ext", "cropped"))
            rows = zip(*columns, strict=True)
            yield tuple(Blob(sha256.hex(), ext, cropped) for sha256, ext, cropped in rows)


def shard_path(digit: str) -> str:
    """Returns the path of a shard's table under the home."""
    return f"faces/shard-{digit}.parquet"


def in_digits(sha256s: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns sha256s of 32 bytes as texts of 64 hex digits."""
    digits = b"".join(sha256s.to_pylist()).hex().encode()
    ends = np.arange(len(sha256s) + 1, dtype=np.int32) * 2 * _SHA256_BYTES
    return pa.StringArray.from_buffers(len(sha256s), pa.py_buffer(ends), pa.py_buffer(digits))


def plan_shard(store: Store, digit: str, pictures: pa.Table, settings: FaceSettings) -> Plan:
    """Compares a shard's stored file with its `pictures`, and finds what has to be cropped.

    Pictures that could not be read are tried again each time: the blob may have been mended.
    """
    names = in_digits(pictures["sha256"])
    inputs = _inputs_digest(names, pictures)
    stored = _stored_digests(store, digit)
    if stored is None or stored["settings"] != settings.crop_digest:
        return Plan(digit, inputs, whole=False, pictures=pictures, todo=pictures)
    cropped = names.filter(pictures["cropped"].combine_chunks())
    standing = _standing(store, digit, cropped)
    todo = pictures.filter(pc.invert(pc.is_in(names, value_set=standing)))
    whole = not todo.num_rows and stored["inputs"] == inputs
    return Plan(digit, inputs, whole=whole, pictures=pictures, todo=todo)


def _inputs_digest(names: pa.Array, pictures: pa.Table) -> str:
    """What `digest_of` makes of the list of [sha256, ext, cropped] of all pictures."""
    exts = pictures["ext"].combine_chunks().dictionary_encode()
    quoted = pa.array(
        [json.dumps(ext, ensure_ascii=False) for ext in exts.dictionary.to_pylist()], pa.string()
    )
    cropped = pc.if_else(pictures["cropped"].combine_chunks(), "true", "false")
    items = pc.binary_join_element_wise(
        '["', names, '",', quoted.take(exts.indices), ",", cropped, "]", ""
    )
    text = ",".join(items.to_pylist())
    return hashlib.sha256(f"[{text}]".encode()).hexdigest()


def check_originals(store: Store, plans: Sequence[Plan]) -> None:
    """Raises StoreError if more of the pictures to crop are missing than single accidents explain.

    Their shards would lose their rows and crops, which took hours to make.
    """
    blobs = (blob for plan in plans for batch in plan.batches(ROWS_A_GROUP) for blob in batch)
    missing = sum(not store.exists(str(blob)) for blob in blobs)
    count = sum(plan.pictures.num_rows for plan in plans)
    if is_outage(missing, count):
        raise StoreError(
            f"{store.url(BLOBS)}: {missing:,} of {count:,} pictures of posts.lance are missing. "
            "No crop was removed. Is a volume not mounted? Mount it and build faces again; if they "
            "are lost, build posts first"
        )


def crop_batch(store: Store, settings: FaceSettings, blobs: tuple[Blob, ...]) -> pa.Table:
    """Crops a few pictures and writes the crops; returns their shard rows. Runs in a worker."""
    rows = [row for blob in blobs for row in _crop(store, settings, blob)]
    return pa.Table.from_pylist(rows, schema=SHARD)


def commit_shard(
    store: Store, plan: Plan, settings: FaceSettings, fresh: Iterator[pa.Table]
) -> None:
    """Writes the shard's file as its `fresh` rows come, in the order of the plan's batches.

    It is there when the last has come, and not at all after an error. The crops that it does not
    name are removed before.
    """
    digests = {"settings": settings.crop_digest, "inputs": plan.inputs}
    declared = SHARD.with_metadata({**SHARD.metadata, **digests})
    named: set[str] = set()
    with store.writing(plan.path) as file:
        with pq.ParquetWriter(file, declared, **PARQUET) as writer:
            for rows in _gathered(_merged(_standing_rows(store, plan), fresh)):
                named.update(rows["crop"].drop_null().to_pylist())
                writer.write_table(rows.cast(declared))
        for crop in set(_crops_there(store, plan.digit)) - named:
            store.remove(crop)


def _standing_rows(store: Store, plan: Plan) -> Iterator[pa.Table]:
    """The rows of the stored file that are used again, in order."""
    if plan.todo.num_rows == plan.pictures.num_rows:
        return
    wanted, fresh = in_digits(plan.pictures["sha256"]), in_digits(plan.todo["sha256"])
    held = read_columns(store, plan.digit, ("sha256",))["sha256"]  # a look-up table for all rows
    used = pc.and_not(pc.is_in(held, value_set=wanted), pc.is_in(held, value_set=fresh))
    first = 0
    for batch in batches(store, plan.path, declared=SHARD, rows=ROWS_A_GROUP):
        of_batch = used.slice(first, batch.num_rows).combine_chunks()
        yield pa.Table.from_batches([batch.filter(of_batch)], schema=SHARD)
        first += batch.num_rows


def read_columns(store: Store, digit: str, columns: Sequence[str]) -> pa.Table:
    """Reads some columns of a shard, each in one piece: not those of the small copies."""
    parts = batches(store, shard_path(digit), declared=SHARD, columns=columns)
    schema = pa.schema([SHARD.field(name) for name in columns])
    return pa.Table.from_batches(parts, schema=schema).combine_chunks()


def _merged(standing: Iterator[pa.Table], fresh: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Joins two streams of rows, each sorted by sha256, into one; no picture is in both."""
    held = SHARD.empty_table()
    for part in fresh:
        last = pc.max(part["sha256"]).as_py()
        while not held.num_rows or held["sha256"][-1].as_py() <= last:
            following = next(standing, None)
            if following is None:
                break
            held = pa.concat_tables([held, following])
        before = pc.less_equal(held["sha256"], last)
        yield _sorted(pa.concat_tables([held.filter(before), part]))
        held = held.filter(pc.invert(before))
    yield held
    yield from standing


def _sorted(rows: pa.Table) -> pa.Table:
    return rows.sort_by([("sha256", "ascending"), ("face_id", "ascending")])


def _gathered(parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Joins small parts into row groups of at least ROWS_A_GROUP rows, but for the last."""
    held: list[pa.Table] = []
    for part in parts:
        held.append(part)
        if sum(one.num_rows for one in held) >= ROWS_A_GROUP:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _stored_digests(store: Store, digit: str) -> dict[str, str] | None:
    path = shard_path(digit)
    if not store.exists(path):
        return None
    with store.open(path) as file:
        try:
            metadata = pq.read_schema(file).metadata or {}
        except pa.ArrowInvalid as error:
            raise SchemaError(
                f"{store.url(path)} is not a Parquet file ({error}). "
                "Remove it and build faces again."
            ) from error
    return {name: metadata.get(name.encode(), b"").decode() for name in ("settings", "inputs")}


def _standing(store: Store, digit: str, cropped: pa.Array) -> pa.Array:
    """The sha256 of pictures that were read and whose crops are all still there.

    cropped: those that are faces already; one that was not taken so, or now is not, is left out.
    """
    there = pa.array(_crops_there(store, digit), pa.string())
    rows = read_columns(store, digit, ("sha256", "fault", "crop", "cropped"))
    names, crop = rows["sha256"], rows["crop"]
    lost = pc.and_(pc.is_valid(crop), pc.invert(pc.is_in(crop, value_set=there)))
    unread = pc.fill_null(pc.not_equal(rows["fault"], NO_FACE), fill_value=False)
    other = pc.not_equal(rows["cropped"], pc.is_in(names, value_set=cropped))
    again = names.filter(pc.or_(pc.or_(lost, unread), other)).combine_chunks()
    return names.filter(pc.invert(pc.is_in(names, value_set=again))).combine_chunks()


def _crops_there(store: Store, digit: str) -> list[str]:
    return [name for second in DIGITS for name in store.files(f"crops/{digit}{second}")]


def _crop(store: Store, settings: FaceSettings, blob: Blob) -> list[dict[str, object]]:
    same = {"sha256": blob.sha256, "cropped": blob.cropped}
    path = str(blob)
    if not store.exists(path):
        return [{**same, "fault": f"{path} is not there; crawl again"}]
    here = replace(settings, cropped=settings.cropped or blob.cropped)
    try:
        found = faces_in(store.read_bytes(path), blob.sha256, here, where=path)
    except UnreadablePicture as error:
        return [{**same, "fault": str(error)}]
    for face in found:
        _write(store, face)
    return [{**same, **face.row} for face in found] or [{**same, "fault": NO_FACE}]


def _write(store: Store, face: Face) -> None:
    if face.crop is None:
        return
    written, png = cv2.imencode(".png", cv2.cvtColor(face.crop, cv2.COLOR_RGB2BGR))
    if not written:
        raise StoreError(f"{store.url(face.row['crop'])}: the crop could not be coded as PNG")
    # No fsync: after a power cut a spoilt crop is found by its sha256 and made again.
    store.write_bytes(face.row["crop"], png.tobytes(), durable=False)
