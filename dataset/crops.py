"""The crops: of every kept picture its faces, cut out once, their pixels beside their rows."""

import binascii
import contextlib
import itertools
import operator
import os
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset import tables
from dataset.cropping import Face, FaceSettings, detector_of, faces_in
from dataset.decode import Picture, UnreadablePicture, decode
from dataset.digests import bytes_of, fixed_bytes, pixels_sha256
from dataset.duplicates import THUMB_BYTES, coarse
from dataset.engines import Engine, map_batches
from dataset.errors import EmptyStageError, OmokageError, SchemaError, StoreError, listed
from dataset.progress import progress
from dataset.schemas import (
    FACES,
    FACES_PATH,
    POSTS,
    POSTS_PATH,
    ROWS_WITH_TAGS,
    SCANNED,
    batches,
    posts_path,
)
from dataset.store import BLOBS, Store, blob_path, is_outage

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

    def add(self, posts: pa.RecordBatch, *, solo: npt.NDArray[np.bool_]) -> None:
        self.sha256s += bytes_of(posts["sha256"], _SHA256_BYTES).tobytes()
        self.solo += solo.tobytes()
        said = pc.fill_null(posts["cropped"], fill_value=False)
        self.cropped += said.to_numpy(zero_copy_only=False).tobytes()
        self.post_ids.frombytes(posts["post_id"].to_numpy().tobytes())
        self.boards.add(posts["board"])
        self.exts.add(posts["ext"])

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

    def add(self, texts: pa.Array) -> None:
        found = pc.dictionary_encode(texts)
        codes = [
            self._codes.setdefault(text, len(self._codes)) for text in found.dictionary.to_pylist()
        ]
        self._rows.frombytes(np.array(codes, np.int32)[found.indices.to_numpy()].tobytes())

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
    parts = batches(store, posts_path(store), declared=POSTS, columns=_COLUMNS, rows=ROWS_WITH_TAGS)
    for batch in parts:
        rows += batch.num_rows
        stored = pc.and_(pc.is_null(batch["drop_reason"]), pc.is_valid(batch["sha256"]))
        solo = _has_tag(batch["tags_general"], SOLO)[stored.to_numpy(zero_copy_only=False)]
        usable = batch.drop_columns("tags_general").filter(stored)
        _check_blobs(store, usable)
        columns.add(usable, solo=solo)
    if not columns.solo:
        raise EmptyStageError(
            f"{store.url(POSTS_PATH)}: none of {rows:,} posts has a stored picture "
            "that is not dropped. Crawl first; its drop_reason column says why posts were refused."
        )
    return columns.table()


def _check_blobs(store: Store, usable: pa.RecordBatch) -> None:
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


def _has_tag(tags: pa.ListArray, tag: str) -> npt.NDArray[np.bool_]:
    ends = np.cumsum(pc.list_value_length(tags).to_numpy())  # the column has no empty cell
    at = np.flatnonzero(pc.equal(pc.list_flatten(tags), tag).to_numpy(zero_copy_only=False))
    has = np.zeros(len(tags), bool)
    has[np.searchsorted(ends, at, side="right")] = True
    return has


CROPS_PATH = "crops.lance"
FORMER_SHARDS, FORMER_CROPS = "faces", "crops"  # folders of an older home, until its next build
REMEDY = f"Remove {CROPS_PATH} and build faces again: all faces are cut out anew."
NO_FACE = "no_face"
ROWS_AN_APPEND = 2_048  # 30 kB each, so 60 MB of memory; also the rows of a fragment
APPEND_S = 20.0  # what a kill may cost
BATCH = 16  # pictures a task: small enough for a bar that moves, large enough to travel
KEY = np.dtype("S24")  # a face_id
_SETTINGS = b"settings"  # in the schema's metadata: by what settings all rows were made
_ROWS_AT_ONCE = 256

_OF_POSTS = {"board", "post_id"}
_FORMER = [
    pa.field("fault", pa.string()),  # no_face; in an older home also why it could not be read
    pa.field("sha256", pa.string(), nullable=False),
    *(field.with_nullable(True) for field in FACES if field.name not in _OF_POSTS | {"sha256"}),
    pa.field("cropped", pa.bool_(), nullable=False),  # its post said so when it was cropped
    pa.field("thumb", pa.binary()),
    pa.field("picture_width", pa.int32()),
    pa.field("picture_height", pa.int32()),
    pa.field("picture_phash", pa.string()),
    pa.field("picture_thumb", pa.binary()),
]
# A row a face, or one for a picture without a face. Of a face that was dropped before it was cut
# out, the columns from `crop` on are empty.
CROPS = pa.schema(
    [
        *_FORMER,
        pa.field("coarse", pa.int32()),  # four cells of `thumb`; see duplicates.coarse
        pa.field("picture_coarse", pa.int32()),
        pa.field("png", pa.binary(), metadata=tables.AS_IT_IS),  # the crop
    ],
    metadata={"table": "crops"},
)


GROWING = {  # all tables that grow, with the rows of their fragments
    POSTS_PATH: tables.ROWS_A_FRAGMENT,
    FACES_PATH: tables.ROWS_A_FRAGMENT,
    CROPS_PATH: ROWS_AN_APPEND,
}


@dataclass(frozen=True)
class Cropped:
    """What a build did for the pictures that had no crops by its settings."""

    pictures: int
    unreadable: list[str]  # a line for each of them that could not be read


def in_digits(sha256s: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Returns sha256s of 32 bytes as texts of 64 hex digits."""
    whole = sha256s.combine_chunks() if isinstance(sha256s, pa.ChunkedArray) else sha256s
    digits = binascii.hexlify(fixed_bytes(whole, _SHA256_BYTES).tobytes())
    ends = np.arange(len(sha256s) + 1, dtype=np.int32) * 2 * _SHA256_BYTES
    return pa.StringArray.from_buffers(len(sha256s), pa.py_buffer(ends), pa.py_buffer(digits))


def bring_up_to(
    store: Store, pictures: pa.Table, settings: FaceSettings, engine: Engine
) -> Cropped:
    """Crops the pictures that are new, and removes the crops of others.

    pictures: sha256 (32 bytes), ext, cropped, a row each, by sha256. By other settings than before
    all are cropped anew. Ones that cannot be read get no row, so they are tried again each time:
    the blob may have been mended. What is done is kept every few seconds, also if the rest fails.
    Raises ComputeError, and StoreError, before anything is removed, if more blobs are missing than
    single accidents explain.
    """
    stands, former = _is_made_by(store, settings), _former_shards(store, settings)
    gone, todo = _sorted_out(store, pictures) if stands else ([], pictures)
    if not former:
        _check_originals(store, todo, count=pictures.num_rows)
    if not stands:
        declared = CROPS.with_metadata({**CROPS.metadata, _SETTINGS: settings.crop_digest})
        if tables.exists(store, CROPS_PATH):
            tables.mark(store, CROPS_PATH)  # those by other settings
        tables.write(store, CROPS_PATH, (), schema=declared)
    tables.forget(store, CROPS_PATH, "sha256", gone, rows=ROWS_AN_APPEND)
    new: int = todo.num_rows
    if former:
        cropped = in_digits(todo.filter(todo["cropped"])["sha256"])
        taken = _take_over(store, former, in_digits(todo["sha256"]), cropped)
        todo = todo.filter(pc.invert(pc.is_in(in_digits(todo["sha256"]), value_set=taken)))
        new -= len(taken)
        _check_originals(store, todo, count=pictures.num_rows)
    unreadable = _crop(store, todo, settings, engine)
    if new:
        tables.tidy(store, CROPS_PATH, rows=ROWS_AN_APPEND)
    return Cropped(new, unreadable)


def _is_made_by(store: Store, settings: FaceSettings) -> bool:
    """Tells whether there is a table of crops by these settings."""
    if not tables.exists(store, CROPS_PATH):
        return False
    made_by = (tables.schema_of(store, CROPS_PATH).metadata or {}).get(_SETTINGS)
    return bool(made_by == settings.crop_digest.encode())


def _sorted_out(store: Store, pictures: pa.Table) -> tuple[list[str], pa.Table]:
    """Returns the sha256s whose rows are to go, and the pictures that have none that stand.

    Those go that are not wanted, or that are faces already but were not taken so, or the other way
    round.
    """
    names = fixed_bytes(pictures["sha256"].combine_chunks(), _SHA256_BYTES)
    cropped = pictures["cropped"].to_numpy()
    standing = np.zeros(len(names), bool)
    gone: list[str] = []
    columns = ("sha256", "cropped")
    for held in batches(store, CROPS_PATH, declared=CROPS, columns=columns, rows=SCANNED):
        places = key_places(names, bytes_of(held["sha256"], _SHA256_BYTES))
        taken_so = held["cropped"].to_numpy(zero_copy_only=False)
        stands = (places >= 0) & (cropped[places] == taken_so)
        standing[places[stands]] = True
        gone += held["sha256"].filter(pa.array(~stands)).to_pylist()
    return list(dict.fromkeys(gone)), pictures.filter(pa.array(~standing))


def _check_originals(store: Store, todo: pa.Table, *, count: int) -> None:
    """Raises StoreError if more of the pictures to crop are missing than single accidents explain.

    The crops that they had took hours to make.
    """
    missing = sum(
        not store.exists(path) for part in keys_of(todo) for path in part["path"].to_pylist()
    )
    if is_outage(missing, count):
        raise StoreError(
            f"{store.url(BLOBS)}: {missing:,} of {count:,} pictures of posts.lance are missing. "
            "No crop was removed. Is a volume not mounted? Mount it and build faces again; if they "
            "are lost, build posts first"
        )


def keys_of(pictures: pa.Table) -> Iterator[pa.Table]:
    """Yields path, sha256 and cropped of the pictures in tables of BATCH: the keys of Cropper."""
    for start in range(0, pictures.num_rows, BATCH):
        part = pictures.slice(start, BATCH)
        sha256s = in_digits(part["sha256"])
        named = zip(sha256s.to_pylist(), part["ext"].to_pylist(), strict=True)
        paths = [blob_path(sha256, ext) for sha256, ext in named]
        yield pa.table({"path": paths, "sha256": sha256s, "cropped": part["cropped"]})


def _crop(store: Store, todo: pa.Table, settings: FaceSettings, engine: Engine) -> list[str]:
    """Appends the rows of these pictures; returns a line for each that cannot be read."""
    unreadable: list[str] = []
    work = map_batches(engine, Cropper, (store, settings), keys_of(todo))
    with progress("faces", todo.num_rows, unit="pictures") as advance, _appending(store) as add:
        for rows in work:
            is_read = pc.fill_null(pc.equal(rows["fault"], NO_FACE), fill_value=True)
            unreadable += rows["fault"].filter(pc.invert(is_read)).to_pylist()
            add(rows.filter(is_read))
            advance(pc.count_distinct(rows["sha256"]).as_py())
    return unreadable


@contextlib.contextmanager
def _appending(store: Store) -> Iterator[Callable[[pa.Table], None]]:
    """Yields what adds rows to the table: after many rows or some seconds, and when it ends.

    Whichever way it ends, since what was cropped took long.
    """
    held: list[pa.Table] = []
    since = time.monotonic()

    def write() -> None:
        nonlocal since
        if held:
            tables.append(store, CROPS_PATH, pa.concat_tables(held))
            held.clear()
        since = time.monotonic()

    def add(rows: pa.Table) -> None:
        if rows.num_rows:
            held.append(rows)
        count = sum(one.num_rows for one in held)
        if count >= ROWS_AN_APPEND or time.monotonic() - since > APPEND_S:
            write()

    try:
        yield add
    finally:
        write()


class Cropper:
    """Crops pictures of a store, in a worker; finds their hashes too."""

    def __init__(self, settings: tuple[Store, FaceSettings]) -> None:
        self._store, self._settings = settings
        if not self._settings.cropped:
            detector_of(self._settings)  # loaded once, before the first picture

    def __call__(self, keys: pa.Table) -> pa.Table:
        """Returns the rows of the table of crops for keys with path, sha256 and cropped."""
        rows = [row for key in keys.to_pylist() for row in self._cropped(**key)]
        return pa.Table.from_pylist(rows, schema=CROPS)

    def _cropped(self, path: str, sha256: str, *, cropped: bool) -> list[dict[str, object]]:
        same = {"sha256": sha256, "cropped": cropped}
        if not self._store.exists(path):
            return [{**same, "fault": f"{path} is not there; crawl again"}]
        here = replace(self._settings, cropped=self._settings.cropped or cropped)
        try:
            found = faces_in(self._store.read_bytes(path), sha256, here, where=path)
        except UnreadablePicture as error:
            return [{**same, "fault": str(error)}]
        return [{**same, **_row(face)} for face in found] or [{**same, "fault": NO_FACE}]


def _row(face: Face) -> dict[str, object]:
    if face.crop is None:
        return face.row
    written, png = cv2.imencode(".png", cv2.cvtColor(face.crop, cv2.COLOR_RGB2BGR))
    if not written:
        raise StoreError(f"{face.row['face_id']}: the crop could not be coded as PNG")
    return _with_png(face.row, png.tobytes())


def _with_png(row: dict[str, Any], png: bytes) -> dict[str, Any]:
    small = (row[name] for name in ("thumb", "picture_thumb"))
    of_crop, of_picture = (_coarse(thumb) for thumb in small)
    return {**row, "coarse": of_crop, "picture_coarse": of_picture, "png": png}


def _coarse(small: bytes) -> int:
    cells = coarse(np.frombuffer(small, np.uint8).reshape(1, THUMB_BYTES))
    return int(cells.view(np.int32)[0, 0])


# Of an older home: 16 tables faces/shard-<hex>.parquet, and a file under crops/ for each crop.


def _former_shards(store: Store, settings: FaceSettings) -> list[str]:
    """Returns the tables that hold crops by these settings."""
    found = []
    for path in store.files(FORMER_SHARDS):
        with store.open(path) as file:
            try:
                metadata = pq.read_schema(file).metadata or {}
            except pa.ArrowInvalid as error:
                raise SchemaError(
                    f"{store.url(path)} is not a Parquet file ({error}). "
                    "Remove it and build faces again."
                ) from error
        if metadata.get(_SETTINGS) == settings.crop_digest.encode():
            found.append(path)
    return found


def _take_over(store: Store, shards: list[str], wanted: pa.Array, cropped: pa.Array) -> pa.Array:
    """Puts the rows of wanted pictures, whose crops are as they were made, into the table.

    Returns their sha256s. A shard is in whole when the next one begins.
    """
    declared = pa.schema(_FORMER, metadata=CROPS.metadata)
    taken: list[str] = []
    with progress("crops of an older home", len(shards), unit="shards") as advance:
        for path in shards:
            whole = pa.Table.from_batches(batches(store, path, declared=declared), schema=declared)
            names = whole["sha256"]
            fits = pc.equal(whole["cropped"], pc.is_in(names, value_set=cropped))
            read = pc.fill_null(pc.equal(whole["fault"], NO_FACE), fill_value=True)
            held = whole.filter(pc.and_(pc.and_(fits, read), pc.is_in(names, value_set=wanted)))
            with _appending(store) as add:
                for start in range(0, len(pictures := _by_picture(held)), _ROWS_AT_ONCE):
                    some = pictures[start : start + _ROWS_AT_ONCE]
                    rows = [row for one in some for row in _with_crops(store, one)]
                    add(pa.Table.from_pylist(rows, schema=CROPS))
                    taken += dict.fromkeys(row["sha256"] for row in rows)
            advance(1)
    return pa.array(taken, pa.string())


def _by_picture(rows: pa.Table) -> list[list[dict[str, Any]]]:
    groups = itertools.groupby(rows.to_pylist(), key=operator.itemgetter("sha256"))
    return [list(group) for _, group in groups]


def _with_crops(store: Store, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a picture with what they lack; [] if a crop is missing or not as it was made."""
    made = []
    for row in rows:
        if row["crop"] is None:
            made.append(row)
            continue
        if not store.exists(row["crop"]):
            return []
        png = store.read_bytes(row["crop"])
        try:
            pixels = decode(png, where=row["crop"])
        except UnreadablePicture:
            return []
        if pixels_sha256(pixels) != row["crop_sha256"]:
            return []
        made.append(_with_png(row, png))
    return made


class Crops:
    """The coded crops of a home by face_id."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open()

    def _open(self) -> None:
        """Reads which crops there are: 24 bytes of each in memory, and their places."""
        self._table = None
        ids = [np.empty(0, KEY)]
        if tables.exists(self._store, CROPS_PATH):
            self._table = tables.Snapshot(self._store, CROPS_PATH)
            parts = self._table.scan(columns=["face_id"], rows=SCANNED)
            ids += [face_keys(part["face_id"]) for part in parts]
        unsorted = np.concatenate(ids)
        self._order = np.argsort(unsorted, kind="stable")
        self._ids = unsorted[self._order]

    def read(self, rows: pa.Table | pa.RecordBatch) -> list[bytes]:
        """Returns the crops of rows with face_id and crop as PNG, in their order.

        Of an older home they are files. Raises StoreError for one that is not there.
        """
        try:
            return self._read(rows)
        except OmokageError:
            self._open()  # a build has removed others since, and our version with them
            return self._read(rows)

    def pixels(self, rows: pa.Table | pa.RecordBatch) -> list[Picture]:
        """Returns the crops of rows with face_id, crop and crop_sha256, pictures [S, S, 3].

        Raises what `read` does, and OmokageError for one that is not as its row says.
        """
        said = (rows["crop"].to_pylist(), rows["crop_sha256"].to_pylist())
        # Threads are enough: decoding lets go of the interpreter's lock.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            return list(threads.map(self._checked, self.read(rows), *said))

    def _checked(self, png: bytes, name: str, sha256: str) -> Picture:
        where = f"{self._store.url(CROPS_PATH)}: {name}"
        pixels = decode(png, where=where)
        found = pixels_sha256(pixels)
        if found != sha256:
            raise OmokageError(
                f"{where}: its pixels have the sha256 {found}, {sha256} wanted. It was made with "
                "other settings since, or is damaged: build faces and manifest again, in the "
                f"second case without {CROPS_PATH}."
            )
        return pixels

    def _read(self, rows: pa.Table | pa.RecordBatch) -> list[bytes]:
        names, keys = rows["crop"].to_pylist(), face_keys(rows["face_id"])
        places = key_places(self._ids, keys)
        known = places >= 0
        held: dict[int, bytes] = {}
        if self._table is not None and known.any():
            at = self._order[places[known]].tolist()
            pngs = self._table.take(at, columns=["png"])["png"].to_pylist()
            held = dict(zip(np.flatnonzero(known).tolist(), pngs, strict=True))
        return [held.get(row) or self._of_former(name) for row, name in enumerate(names)]

    def _of_former(self, name: str) -> bytes:
        if self._store.exists(name):
            return self._store.read_bytes(name)
        raise StoreError(
            f"{self._store.url(CROPS_PATH)} has no {name}: was its picture taken down or dropped "
            "since? Build faces and manifest again."
        )


def face_keys(face_ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """Returns face_ids as fixed bytes [N], which sort and compare fast; None is empty."""
    padded = pc.utf8_rpad(pc.fill_null(face_ids, ""), KEY.itemsize, "\0")
    whole = padded.combine_chunks() if isinstance(padded, pa.ChunkedArray) else padded
    return fixed_bytes(whole, KEY.itemsize)


def key_places(held: npt.NDArray[np.bytes_], keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
    """Returns the place of each key [M] among sorted ones, -1 for one that is not there: [M]."""
    places = np.searchsorted(held, keys)
    found = np.full(len(keys), -1, np.int64)
    inside = np.flatnonzero(places < len(held))
    same = inside[held[places[inside]] == keys[inside]]
    found[same] = places[same]
    return found
