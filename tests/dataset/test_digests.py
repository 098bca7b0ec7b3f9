"""A digest is over the content of a table, not over its order or its chunks."""

from random import Random

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dataset.digests import content_digest

ROWS = st.lists(st.tuples(st.text(max_size=4), st.integers(0, 5), st.none() | st.floats(0, 1)))


def table(rows: list[tuple[str, int, float | None]]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    kinds = [pa.string(), pa.int64(), pa.float64()]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
    return pa.table(arrays, names=["name", "count", "part"])


@given(ROWS, st.randoms())
def test_order_and_chunks_do_not_matter(
    rows: list[tuple[str, int, float | None]], random: Random
) -> None:
    shuffled = random.sample(rows, len(rows))
    half = len(rows) // 2
    chunked = pa.concat_tables([table(shuffled[:half]), table(shuffled[half:])])
    assert content_digest(chunked) == content_digest(table(rows))


@given(ROWS, ROWS)
def test_other_rows_give_another_digest(
    one: list[tuple[str, int, float | None]], two: list[tuple[str, int, float | None]]
) -> None:
    def key(row: tuple[str, int, float | None]) -> tuple[str, int, float]:
        return (row[0], row[1], -1.0 if row[2] is None else row[2])

    same = sorted(map(key, one)) == sorted(map(key, two))
    assert (content_digest(table(one)) == content_digest(table(two))) == same


def test_an_empty_cell_is_not_an_empty_text() -> None:
    empty = pa.table({"name": pa.array([None], pa.string())})
    text = pa.table({"name": pa.array([""], pa.string())})
    assert content_digest(empty) != content_digest(text)
    assert content_digest(text) != content_digest(text.rename_columns(["other"]))
