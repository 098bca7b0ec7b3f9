"""Tables that grow: merged, joined, purged; what is wrong with one is named."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from dataset import tables
from dataset.errors import OmokageError, StoreError
from dataset.store import Store

SCHEMA = pa.schema(
    [pa.field("key", pa.int64(), nullable=False), pa.field("text", pa.string())],
    metadata={"made": "by hand"},
)
PATH = "numbers.lance"


def rows(numbers: range, text: str = "first") -> pa.Table:
    return pa.table({"key": numbers, "text": [f"{text} {n}" for n in numbers]}, schema=SCHEMA)


def written(folder: Path, count: int = 10) -> Store:
    store = Store(folder)
    tables.write(store, PATH, rows(range(count)).to_batches(), schema=SCHEMA)
    return store


def content(store: Store) -> dict[int, str]:
    parts = tables.scan(store, PATH, columns=["key", "text"], rows=4)
    return {row["key"]: row["text"] for part in parts for row in part.to_pylist()}


def test_a_merge_replaces_rows_of_equal_keys_and_adds_the_others(tmp_path: Path) -> None:
    store = written(tmp_path)
    tables.merge(store, PATH, rows(range(8, 12), "second"), key=["key"])
    expected = {n: f"first {n}" for n in range(8)} | {n: f"second {n}" for n in range(8, 12)}
    assert content(store) == expected
    assert tables.count(store, PATH) == 12
    assert tables.count(store, PATH, "key >= 10") == 2
    assert tables.schema_of(store, PATH).metadata == {b"made": b"by hand"}


def test_many_small_fragments_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LOOSE_FRAGMENTS", 4)
    store = written(tmp_path)
    for number in range(10, 14):
        tables.merge(store, PATH, rows(range(number, number + 1)), key=["key"])
        tables.tidy(store, PATH)
    present = content(store)
    tables.purge(store, PATH)  # of the versions before nothing is left: one file
    assert content(store) == present == {n: f"first {n}" for n in range(14)}
    assert len(list(Path(tmp_path, PATH, "data").iterdir())) == 1


def test_a_purge_leaves_the_present_rows_alone_in_the_files(tmp_path: Path) -> None:
    store = written(tmp_path)
    assert not tables.has_history(store, PATH)
    tables.delete(store, PATH, "key = 3")
    tables.merge(store, PATH, rows(range(4, 5), "second"), key=["key"])
    assert tables.has_history(store, PATH)
    before = content(store)
    assert texts_in(tmp_path, "first 3", "first 4") == {"first 3", "first 4"}
    tables.purge(store, PATH)
    assert not tables.has_history(store, PATH)
    assert texts_in(tmp_path, "first 3", "first 4", "second 4") == {"second 4"}
    assert content(store) == before


def texts_in(folder: Path, *texts: str) -> set[str]:
    files = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return {text for text in texts if any(text.encode() in file for file in files)}


def test_a_table_that_is_not_there_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"numbers\.lance is not there"):
        content(Store(tmp_path))
    store = written(tmp_path)
    (file,) = Path(tmp_path, PATH, "data").iterdir()
    file.write_bytes(b"cut")
    with pytest.raises(OmokageError, match=r"numbers\.lance cannot be read: .*Build it again"):
        content(store)
    (manifest,) = Path(tmp_path, PATH, "_versions").glob("*.manifest")
    manifest.write_bytes(b"cut")
    assert not tables.is_whole(store, PATH)
    written(tmp_path)
    assert len(content(store)) == 10


def test_what_the_disk_refuses_is_said_with_its_remedy(tmp_path: Path) -> None:
    store = written(tmp_path)
    with (
        pytest.raises(StoreError, match=r"numbers\.lance: the disk is full"),
        tables._explained(store, PATH),
    ):
        raise OSError(f"LanceError(IO): {os.strerror(28)} (os error 28), writer.rs:190:9")


def test_rows_that_fail_on_the_way_leave_the_table_as_it_was(tmp_path: Path) -> None:
    store = written(tmp_path)

    def broken() -> object:
        yield from rows(range(3), "second").to_batches()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        tables.write(store, PATH, broken(), schema=SCHEMA)  # type: ignore[arg-type]
    assert content(store) == {n: f"first {n}" for n in range(10)}
