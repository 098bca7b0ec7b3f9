"""The declared columns of every table, and the functions that read and write tables.

A table is read whole, or by batches, so that memory does not grow with its length.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset import tables
from dataset.errors import SchemaError, listed
from dataset.store import Store

POSTS_PATH = "posts.lance"  # of each table, under the home
FORMER_POSTS_PATH = "posts.parquet"  # until the next build of posts, of an older home
FACES_PATH = "faces.lance"
FORMER_FACES_PATH = "faces.parquet"  # likewise
MACHINE_LABELS_PATH = "machine_labels.parquet"

# Beside the declared columns of posts and faces: the digest of a row's content.
DIGEST = f"{tables.INTERNAL}digest"
REPEATS = f"{tables.INTERNAL}repeats"  # of faces: the face_id of what a near-duplicate repeats

BOARD, MACHINE = "board", "machine"  # who gave a face its labels

ROWS_A_GROUP = 8_192
# A reader by batches holds a page of each column, and a dictionary: small ones, with 17 columns.
PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "data_page_size": 2**16,
    "dictionary_pagesize_limit": 2**16,
}

ROWS_AT_ONCE = 1024  # a posts row is half a kilobyte, and is held in several forms at once
ROWS_WITH_TAGS = 8_192  # likewise, of few columns: with 30 tags each 8 MB
SCANNED = 16_384  # of a pass over few columns
_BUFFER_BYTES = 2**16  # read ahead by so much, not by whole columns of a row group

_TAGS = pa.list_(pa.field("item", pa.string()))
_TIME = pa.timestamp("us", tz="UTC")


def _required(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"description": meaning})


def _optional(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, nullable=True, metadata={"description": meaning})


POSTS = pa.schema(
    [
        _required(
            "board",
            pa.string(),
            "the board, as the site registry names it, or the name of an import",
        ),
        _required(
            "post_id",
            pa.int64(),
            "the board's number of the post; of a folder's picture, by its sha256",
        ),
        _optional("md5", pa.string(), "the board's md5, verified on arrival; absent if withheld"),
        _optional("sha256", pa.string(), "name of the blob; absent if nothing was stored"),
        _optional("ext", pa.string(), "extension of the blob"),
        _optional("width", pa.int32(), "width of the original, pixels"),
        _optional("height", pa.int32(), "height of the original, pixels"),
        _required("rating", pa.string(), "general, sensitive, questionable or explicit"),
        _required("tags_general", _TAGS, "general tags; all tags on boards without kinds"),
        _required("tags_character", _TAGS, "character tags"),
        _required("tags_copyright", _TAGS, "tags of works"),
        _required("tags_artist", _TAGS, "artist tags"),
        _required("tags_meta", _TAGS, "meta tags"),
        _optional("source", pa.string(), "where the board says it is from; never fetched"),
        _optional("score", pa.int32(), "the board's score"),
        _optional("created_at", _TIME, "when it was posted"),
        _optional("updated_at", _TIME, "when its record last changed"),
        _required("fetched_at", _TIME, "when we last read its record"),
        _optional("cropped", pa.bool_(), "true: its picture is a face already, imported as such"),
        _optional("drop_reason", pa.string(), "why it is not used; absent if it is"),
    ],
    metadata={"table": "posts"},
)

FACES = pa.schema(
    [
        _required("face_id", pa.string(), "first 16 digits of the blob's sha256, dash, number"),
        _required("board", pa.string(), "board of the post that brought the blob first"),
        _required("post_id", pa.int64(), "number of that post"),
        _required("sha256", pa.string(), "the blob"),
        _required("x", pa.int32(), "bounding box, left, pixels of the upright picture"),
        _required("y", pa.int32(), "bounding box, top"),
        _required("w", pa.int32(), "bounding box, width"),
        _required("h", pa.int32(), "bounding box, height"),
        _optional("score", pa.float32(), "how sure the detector is, 0-1; absent if not searched"),
        _required("square_x", pa.int32(), "cropped square, left"),
        _required("square_y", pa.int32(), "cropped square, top"),
        _required("side", pa.int32(), "cropped square, side"),
        _required("pad_frac", pa.float32(), "part of the square outside the picture, 0-1"),
        _required("sharpness", pa.float32(), "variance of the Laplacian of the grey crop"),
        _required("phash", pa.string(), "64-bit perceptual hash, 16 hex digits"),
        _optional("crop", pa.string(), "name of the crop, as a path; absent if dropped"),
        _optional("crop_sha256", pa.string(), "sha256 of the crop's pixels (RGB, row by row)"),
        _optional("drop_reason", pa.string(), "why it is not used; absent if it is"),
    ],
    metadata={"table": "faces"},
)


def manifest_schema(labels: list[str]) -> pa.Schema:
    """Returns the manifest's columns: crop, split, provenance, and a bool for each label."""
    fixed = [
        _required("face_id", pa.string(), "the face"),
        _required("crop", pa.string(), "name of the crop, as a path"),
        _required("crop_sha256", pa.string(), "sha256 of the crop's pixels"),
        _required("split", pa.string(), "train or eval, by the blob's sha256"),
        _required("board", pa.string(), "board of the post"),
        _required("post_id", pa.int64(), "number of the post"),
        _required("sha256", pa.string(), "the blob"),
        _required("labels_by", pa.string(), "board: by its tags; machine: by a tagger"),
    ]
    bools = [_required(label, pa.bool_(), f"has the label {label}") for label in labels]
    return pa.schema(fixed + bools, metadata={"table": "manifest"})


def machine_labels_schema(labels: list[str]) -> pa.Schema:
    """Returns the columns of a tagger's output: the face, and a probability for each label."""
    fixed = [
        _required("face_id", pa.string(), "the face"),
        _required("crop_sha256", pa.string(), "sha256 of the pixels that the tagger saw"),
        _required("tagger", pa.string(), "digest of the tagger"),
    ]
    parts = [_required(label, pa.float32(), f"probability of {label}, 0-1") for label in labels]
    return pa.schema(fixed + parts, metadata={"table": "machine_labels"})


def posts_path(store: Store) -> str:
    """Returns where posts are read: of an older home in Parquet, until their next build."""
    is_former = store.exists(FORMER_POSTS_PATH) and not store.exists(POSTS_PATH)
    return FORMER_POSTS_PATH if is_former else POSTS_PATH


def faces_path(store: Store) -> str:
    """Returns where faces are read: of an older home in Parquet, until their next build."""
    is_former = store.exists(FORMER_FACES_PATH) and not store.exists(FACES_PATH)
    return FORMER_FACES_PATH if is_former else FACES_PATH


def faults_of(found: pa.Schema, declared: pa.Schema) -> list[str]:
    """Returns a sentence for every column that is missing, unknown or of another type.

    Those whose names begin with an underscore belong to whoever writes the table.
    """
    faults = []
    for field in declared:
        if field.name not in found.names:
            faults.append(f"{field.name} is missing, {field.type} wanted")
        elif found.field(field.name).type != field.type:
            faults.append(f"{field.name} is {found.field(field.name).type}, {field.type} wanted")
    public = [name for name in found.names if not name.startswith(tables.INTERNAL)]
    faults.extend(f"{name} is unknown" for name in public if name not in declared.names)
    return faults


def check_schema(found: pa.Schema, declared: pa.Schema, *, where: str) -> None:
    """Raises SchemaError, naming file and columns, unless the columns are the declared ones."""
    if faults := faults_of(found, declared):
        raise SchemaError(f"{where} is not a {_name(declared)} table:\n{listed(faults)}")


def check_batch(batch: pa.RecordBatch, declared: pa.Schema, *, first_row: int, where: str) -> None:
    """Raises SchemaError, naming column and row, for an empty cell that must not be empty."""
    faults = []
    for name in batch.schema.names:
        column = batch.column(name)
        if name.startswith(tables.INTERNAL):
            continue
        if column.null_count and not declared.field(name).nullable:
            row = first_row + pc.index(pc.is_null(column), value=True).as_py()
            faults.append(f"{name} is empty in row {row:,}")
    if faults:
        raise SchemaError(f"{where} is not a {_name(declared)} table:\n{listed(faults)}")


def check_table(table: pa.Table, declared: pa.Schema, *, where: str) -> None:
    """Raises SchemaError, naming file and columns, unless `table` is exactly as declared."""
    faults = faults_of(table.schema, declared)
    for field in declared:
        if not faults and not field.nullable and table.column(field.name).null_count:
            faults.append(f"{field.name} has {table.column(field.name).null_count} empty cells")
    if faults:
        raise SchemaError(f"{where} is not a {_name(declared)} table:\n{listed(faults)}")


def write_table(store: Store, path: str, table: pa.Table, *, declared: pa.Schema) -> None:
    """Writes a table atomically, after checking it against its declared schema."""
    check_table(table, declared, where=store.url(path))
    ordered = table.select(declared.names).cast(declared)
    if tables.is_lance(path):
        tables.write(store, path, ordered.to_batches(), schema=declared)
        return
    with store.writing(path) as file:
        pq.write_table(ordered, file, row_group_size=ROWS_A_GROUP, **PARQUET)


def read_table(store: Store, path: str, *, declared: pa.Schema) -> pa.Table:
    """Reads a table; raises SchemaError if it is not one or has other columns.

    Rows of a Lance table come in the order of their first two columns, its key.
    """
    if tables.is_lance(path):
        check_schema(tables.schema_of(store, path), declared, where=store.url(path))
        parts = tables.scan(store, path, columns=declared.names, rows=ROWS_A_GROUP)
        table = pa.Table.from_batches(parts, schema=declared.with_metadata(None))
        check_table(table, declared, where=store.url(path))
        return table.sort_by([(name, "ascending") for name in declared.names[:2]])
    with store.open(path) as file:
        try:
            # On this thread alone: Arrow's own would still give Python objects back while the
            # process ends, which aborted 23 of 300 that ended right after reading a table.
            table = pq.ParquetFile(file, pre_buffer=False).read(use_threads=False)
        except pa.ArrowInvalid as error:
            raise SchemaError(f"{store.url(path)} is not a Parquet file: {error}") from error
    check_table(table, declared, where=store.url(path))
    return table.select(declared.names)


def batches(
    store: Store,
    path: str,
    *,
    declared: pa.Schema,
    columns: Sequence[str] | None = None,
    digit: str | None = None,
    rows: int = ROWS_AT_ONCE,
) -> Iterator[pa.RecordBatch]:
    """Yields a table's rows by batches: all columns or some; of face_ids that begin with `digit`.

    At most `rows` come at once: fewer suit a table whose rows are large. Row groups without such
    ids are not read, so a table that is sorted by face_id is read once for all digits together.
    Raises SchemaError, naming file, column and row, for what is not declared.
    """
    names = list(declared.names if columns is None else columns)
    if tables.is_lance(path):
        starting = None if digit is None else f"starts_with(face_id, '{digit}')"
        yield from _of_lance(
            store, path, declared=declared, columns=names, condition=starting, rows=rows
        )
        return
    first = 0
    with store.open(path) as file:
        parquet = _opened(file, where=store.url(path))
        check_schema(parquet.schema_arrow, declared, where=store.url(path))
        groups = _groups(parquet, digit)
        try:
            for batch in parquet.iter_batches(
                rows, row_groups=groups, columns=names, use_threads=False
            ):
                check_batch(batch, declared, first_row=first, where=store.url(path))
                first += batch.num_rows
                yield batch.select(names) if digit is None else _starting(batch, digit)
        except (pa.ArrowInvalid, OSError) as error:
            raise SchemaError(
                f"{store.url(path)} is damaged after row {first:,}: {error}. Build it again."
            ) from error


def _of_lance(
    store: Store,
    path: str,
    *,
    declared: pa.Schema,
    columns: list[str],
    condition: str | None,
    rows: int,
) -> Iterator[pa.RecordBatch]:
    check_schema(tables.schema_of(store, path), declared, where=store.url(path))
    first = 0
    for batch in tables.scan(store, path, columns=columns, condition=condition, rows=rows):
        check_batch(batch, declared, first_row=first, where=store.url(path))
        first += batch.num_rows
        yield batch


def _opened(file: object, *, where: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"{where} is not a Parquet file: {error}") from error


def _groups(parquet: pq.ParquetFile, digit: str | None) -> list[int]:
    """The row groups that may hold face_ids beginning with `digit`, by their least and greatest."""
    every = range(parquet.metadata.num_row_groups)
    if digit is None:
        return list(every)
    column = parquet.schema_arrow.names.index("face_id")  # no list stands before it
    found = []
    for group in every:
        of_group = parquet.metadata.row_group(group).column(column).statistics
        bounded = of_group is not None and of_group.has_min_max
        if not bounded or of_group.min[:1] <= digit <= of_group.max[:1]:
            found.append(group)
    return found


def _starting(batch: pa.RecordBatch, digit: str) -> pa.RecordBatch:
    return batch.filter(pc.starts_with(batch.column("face_id"), digit))


def row_count(store: Store, path: str) -> int:
    """Returns how many rows a table has, without reading them."""
    if tables.is_lance(path):
        return tables.count(store, path)
    with store.open(path) as file:
        return int(pq.read_metadata(file).num_rows)


def _name(schema: pa.Schema) -> str:
    return str((schema.metadata or {}).get(b"table", b"declared").decode())
