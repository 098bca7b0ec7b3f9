"""Tables that grow: Lance files, of which a build writes the rows that changed and no others.

A table is a folder of fragments and versions. Rows that were changed or deleted stay in the files
of earlier versions until `purge`. Lance is imported when a table is opened: it takes a second.

Source: the Lance table format, https://lance.org/format/table/.
"""

import contextlib
import datetime as dt
import functools
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset.errors import OmokageError, SchemaError, StoreError
from dataset.store import Store

if TYPE_CHECKING:
    import lance

SUFFIX = ".lance"
INTERNAL = "_"  # how the names of columns begin that are not declared
AS_IT_IS = {"lance-encoding:compression": "none"}  # metadata of a field of coded pictures
FORMAT = "2.1"  # of the files: a newer Lance may write others by default
# Fragments of fewer rows are joined, so a merge rewrites at most so many besides its own.
ROWS_A_FRAGMENT = 100_000
LOOSE_FRAGMENTS = 16  # small ones, from which on they are joined
DELETED_AT_ONCE = 1_000  # values of a condition
KEPT = dt.timedelta(days=1)  # earlier versions: a reader that began before a merge goes on


def is_lance(path: str) -> bool:
    """Tells whether the table at `path` is a Lance table."""
    return path.endswith(SUFFIX)


def write(store: Store, path: str, rows: Iterable[pa.RecordBatch], *, schema: pa.Schema) -> None:
    """Writes a whole table anew, in one step: readers see the old rows or the new ones.

    The schema's metadata stays with the table until it is written anew again. What is there and
    cannot be read is removed first.
    """
    lance = _lance()
    if store.exists(path) and not is_whole(store, path):
        store.remove(path)
    (place, options), fragments = _place(store, path), []
    # Not by write_dataset with a reader: that would draw the rows in threads of its own.
    for part in _parts(rows, schema):
        with _explained(store, path):
            fragments += lance.fragment.write_fragments(
                part,
                place,
                schema=schema,
                mode="overwrite",
                data_storage_version=FORMAT,
                storage_options=options,
            )
    whole = lance.LanceOperation.Overwrite(schema, fragments)
    _committing(
        store, path, lambda: lance.LanceDataset.commit(place, whole, storage_options=options)
    )


def exists(store: Store, path: str) -> bool:
    """Tells whether there is a table, or a damaged one.

    What a first write leaves that was interrupted before it had rows is none.
    """
    folders = [f"{path}/{name}" for name in ("_versions", "data")]
    return any(store.exists(folder) and store.names(folder) for folder in folders)


def is_whole(store: Store, path: str) -> bool:
    """Tells whether there is a table that can be opened."""
    try:
        schema_of(store, path)
    except OmokageError:
        return False
    return True


def append(store: Store, path: str, rows: pa.Table) -> None:
    """Adds rows in one step, as a fragment of their own: they are there wholly or not at all."""
    # Copied, which aligns them: those that a worker sends may not be, and Lance panics.
    aligned = rows.take(pa.array(range(rows.num_rows)))
    _committing(
        store,
        path,
        lambda: _lance().write_dataset(aligned, _opened(store, path), mode="append"),
    )


def merge(store: Store, path: str, rows: pa.Table, *, key: Sequence[str]) -> None:
    """Puts rows, each with another key, in the place of those with equal keys, or adds them."""

    def commit() -> None:
        merging = _opened(store, path).merge_insert(list(key))
        merging.when_matched_update_all().when_not_matched_insert_all().execute(rows)

    _committing(store, path, commit)


def delete(store: Store, path: str, condition: str) -> None:
    """Deletes the rows of an SQL condition; `purge` removes them from the files."""
    _committing(store, path, lambda: _opened(store, path).delete(condition))


def forget(
    store: Store, path: str, column: str, values: Sequence[str], *, rows: int = ROWS_A_FRAGMENT
) -> None:
    """Deletes the rows whose column has one of the values, and leaves nothing of them in the files.

    What an earlier call did not finish, since it was killed, is done too, also without values.
    rows: as in `tidy`.
    """
    if values:
        mark(store, path)
        delete_values(store, path, column, values)
    purge_marked(store, path, rows=rows)


def purge_marked(store: Store, path: str, *, rows: int = ROWS_A_FRAGMENT) -> None:
    """Purges a table that is marked. rows: as in `tidy`."""
    if store.exists(_mark(path)):
        purge(store, path, rows=rows)


def mark(store: Store, path: str) -> None:
    """Notes that the files of a table have what must not stay: until `purge`."""
    store.write_bytes(_mark(path), b"")


def _mark(path: str) -> str:
    return f"{path}.purge"


def delete_values(store: Store, path: str, column: str, values: Sequence[str]) -> None:
    """Deletes the rows whose column has one of the values, which have no quotes."""
    for start in range(0, len(values), DELETED_AT_ONCE):
        some = "', '".join(values[start : start + DELETED_AT_ONCE])
        delete(store, path, f"{column} IN ('{some}')")


def schema_of(store: Store, path: str) -> pa.Schema:
    """Returns all columns of a table, with its metadata."""
    with _explained(store, path):
        return _opened(store, path).schema


def count(store: Store, path: str, condition: str | None = None) -> int:
    """Counts rows, all or those of an SQL condition."""
    with _explained(store, path):
        return int(_opened(store, path).count_rows(filter=condition))


def scan(
    store: Store, path: str, *, columns: Sequence[str], condition: str | None = None, rows: int
) -> Iterator[pa.RecordBatch]:
    """Yields some columns of all rows, or of those of an SQL condition, in batches of <= `rows`.

    The order is that in which they were written.
    """
    with _explained(store, path):
        opened = _opened(store, path)
    yield from _scanned(store, path, opened, columns=columns, condition=condition, rows=rows)


class Snapshot:
    """A table as it is now: what others write meanwhile is not in it.

    Reading fails once a purge has removed its version.
    """

    def __init__(self, store: Store, path: str) -> None:
        self._store, self._path = store, path
        with _explained(store, path):
            self._opened = _opened(store, path)

    def scan(self, *, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yields some columns of all rows, as `scan` does."""
        return _scanned(self._store, self._path, self._opened, columns=columns, rows=rows)

    def take(self, places: Sequence[int], *, columns: Sequence[str]) -> pa.Table:
        """Returns some rows by their places in the order of `scan`, in the order given."""
        with _explained(self._store, self._path):
            return self._opened.take(places, columns=list(columns))


def tidy(store: Store, path: str, *, rows: int = ROWS_A_FRAGMENT) -> None:
    """Joins small fragments where there are many, and removes versions older than a day.

    rows: of a fragment; fewer suit a table whose rows are large.
    """
    with _explained(store, path):
        opened = _opened(store, path)
        small = [one for one in opened.get_fragments() if one.count_rows() < rows]
        if len(small) >= LOOSE_FRAGMENTS:
            opened.optimize.compact_files(target_rows_per_fragment=rows)
        _opened(store, path).cleanup_old_versions(older_than=KEPT)


def has_history(store: Store, path: str) -> bool:
    """Tells whether the files hold anything but the present rows."""
    with _explained(store, path):
        versions = len(_opened(store, path).versions())
    return versions > 1 or has_deletions(store, path)


def has_deletions(store: Store, path: str) -> bool:
    """Tells whether rows that were deleted are still in the files of the present version."""
    with _explained(store, path):
        return any(one.num_deletions for one in _opened(store, path).get_fragments())


def purge(store: Store, path: str, *, rows: int = ROWS_A_FRAGMENT) -> None:
    """Leaves nothing in the files but the present rows. Nobody else may write meanwhile.

    A reader that began before may fail. rows: as in `tidy`.
    """
    with _explained(store, path):
        # Threshold 0: by default a fragment of which less than a tenth was deleted stays.
        _opened(store, path).optimize.compact_files(
            target_rows_per_fragment=rows, materialize_deletions_threshold=0.0
        )
        # A version of its own: that of a deletion names what was deleted.
        opened, lance = _opened(store, path), _lance()
        place, options = _place(store, path)
        lance.LanceDataset.commit(
            place,
            lance.LanceOperation.Append([]),
            read_version=opened.version,
            storage_options=options,
        )
        _opened(store, path).cleanup_old_versions(
            older_than=dt.timedelta(0), delete_unverified=True
        )
    store.remove(_mark(path))


def _scanned(
    store: Store,
    path: str,
    opened: "lance.LanceDataset",
    *,
    columns: Sequence[str],
    condition: str | None = None,
    rows: int,
) -> Iterator[pa.RecordBatch]:
    with _explained(store, path):
        found = opened.to_batches(
            columns=list(columns), filter=condition, batch_size=rows, scan_in_order=True
        )
    while True:
        with _explained(store, path):
            batch = next(found, None)
        if batch is None:
            return
        yield batch


def old_versions(store: Store, path: str) -> int:
    """Returns how many versions `tidy` removes: those older than a day, but the newest."""
    with _explained(store, path):
        versions: list[Any] = _opened(store, path).versions()[:-1]
    oldest = dt.datetime.now(dt.UTC) - KEPT
    # Lance gives local times without a zone.
    return sum(one["timestamp"].astimezone() < oldest for one in versions)


def _parts(rows: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in rows:
        held.append(batch)
        if sum(one.num_rows for one in held) >= ROWS_A_FRAGMENT:
            yield pa.Table.from_batches(held, schema=schema)
            held = []
    if held:
        yield pa.Table.from_batches(held, schema=schema)


def _place(store: Store, path: str) -> tuple[str, dict[str, str] | None]:
    """Returns where a table lies, and how Lance reaches it.

    Lance reads the AWS_ variables itself, but plain http wants a word of its own.
    """
    if store.folder is not None:
        return str(store.folder.local(path)), None
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    options = {"aws_endpoint": endpoint} if endpoint else {}
    if endpoint.startswith("http://"):
        options["allow_http"] = "true"
    return store.url(path), options


@functools.cache  # once a process and root
def _check_commits(store_root: str) -> None:
    """Raises StoreError if an object store lets two writers write one object: commits need it.

    Lance commits a version by a PUT that must not overwrite.
    """
    store, path = Store(store_root), f".conditional-put-{uuid.uuid4().hex}"
    try:
        is_refused = store.create(path, b"") and not store.create(path, b"")
    finally:
        store.remove(path)
    if not is_refused:
        raise StoreError(
            f"{store_root}: the object store overwrites an object in spite of If-None-Match, so "
            "two writers could lose each other's rows; use one with conditional PUT"
        )


def _committing(store: Store, path: str, commit: Callable[[], Any]) -> None:
    """Commits to a table; once more if another writer came first."""
    if store.folder is None:
        _check_commits(store.root)
    with _explained(store, path):
        try:
            commit()
        except (OSError, RuntimeError) as error:
            if not re.search(r"[Cc]ommit conflict|concurrent", str(error)):
                raise
            commit()


def _lance() -> Any:
    # It writes to stderr by itself, such as that a new table is new.
    os.environ.setdefault("LANCE_LOG", "error")
    try:
        import lance
        import lance.fragment
    except ImportError as error:
        raise StoreError(f"tables need the package pylance: {error}") from error
    return lance


def _opened(store: Store, path: str) -> "lance.LanceDataset":
    if not store.exists(path):
        raise StoreError(f"{store.url(path)} is not there")
    place, options = _place(store, path)
    opened: lance.LanceDataset = _lance().dataset(place, storage_options=options)
    return opened


@contextlib.contextmanager
def _explained(store: Store, path: str) -> Iterator[None]:
    """Raises StoreError for what the disk refused, SchemaError for a table that is damaged."""
    try:
        yield
    except BaseException as error:
        known = isinstance(error, OSError | ValueError | RuntimeError | pa.ArrowException)
        # Of damaged bytes Lance may panic, which is no Exception.
        if not known and type(error).__name__ != "PanicException":
            raise
        text = str(error)
        if number := re.search(r"os error (\d+)", text):  # Lance gives no errno
            with store.explained(path):
                raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        first = text.partition(", /")[0]  # then the place in its source
        if store.folder is None and "Generic S3 error" in text:  # it did not answer, or refused
            raise StoreError(f"{store.url(path)}: the object store failed: {first}") from error
        raise SchemaError(f"{store.url(path)} cannot be read: {first}. Build it again.") from error
