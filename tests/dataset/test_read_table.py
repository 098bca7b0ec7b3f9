"""A table is read by the thread that asks for it."""

import threading
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from dataset.schemas import read_table, write_table
from dataset.store import Store

NUMBERS = pa.schema([(f"column_{number}", pa.int64()) for number in range(40)])


class WatchedStore(Store):
    """A store that remembers which threads read from its files."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.readers: set[int] = set()

    def open(self, path: str) -> IO[bytes]:
        file: Any = super().open(path)
        read, readers = file.read, self.readers

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def __enter__(self) -> "Watched":
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def read(self, *size: int) -> bytes:
                readers.add(threading.get_ident())
                return bytes(read(*size))

        return Watched()  # type: ignore[return-value]


def test_no_other_thread_holds_the_file_that_a_process_may_end_with(tmp_path: Path) -> None:
    store = WatchedStore(str(tmp_path))
    table = pa.table({name: range(2_000) for name in NUMBERS.names}, schema=NUMBERS)
    write_table(store, "numbers.parquet", table, declared=NUMBERS)
    assert read_table(store, "numbers.parquet", declared=NUMBERS) == table
    assert store.readers == {threading.get_ident()}
