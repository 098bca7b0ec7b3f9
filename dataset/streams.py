"""Reads tables by batches, so that memory does not grow with their length."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset import tables
from dataset.digests import fixed_bytes
from dataset.errors import SchemaError
from dataset.schemas import check_batch, check_schema
from dataset.store import Store

ROWS_AT_ONCE = 1024  # a posts row is half a kilobyte, and is held in several forms at once
ROWS_WITH_TAGS = 8_192  # likewise, of few columns: with 30 tags each 8 MB
SCANNED = 16_384  # of a pass over few columns
_BUFFER_BYTES = 2**16  # read ahead by so much, not by whole columns of a row group
_DIGITS = 64  # of a sha256
_NO_NIBBLE = 255
_NIBBLE = np.full(256, _NO_NIBBLE, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


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


def sha256_prefixes(sha256s: pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Returns the first 64 bits of each sha256 (64 hex digits), and where the text is one: [N]."""
    whole = pc.fill_null(pc.equal(pc.binary_length(sha256s), _DIGITS), fill_value=False)
    texts = pc.if_else(whole, sha256s, "0" * _DIGITS)
    nibbles = _NIBBLE[fixed_bytes(texts, _DIGITS).view(np.uint8).reshape(-1, _DIGITS)[:, :16]]
    right = whole.to_numpy(zero_copy_only=False) & (nibbles != _NO_NIBBLE).all(axis=1)
    pairs = (nibbles[:, ::2] << 4) | (nibbles[:, 1::2] & 15)
    return pairs.view(">u8")[:, 0].astype(np.uint64), right


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
