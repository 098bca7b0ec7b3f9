"""The pictures whose faces are cut out: each once, with the first post that brought it."""

import itertools
from array import array

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset.errors import EmptyStageError, SchemaError, listed
from dataset.schemas import POSTS, POSTS_PATH
from dataset.store import Store
from dataset.streams import batches

SOLO = "solo"
_COLUMNS = ("sha256", "ext", "board", "post_id", "tags_general", "cropped", "drop_reason")
_SHA256_BYTES = 32


class _Gathered:
    """The usable posts in plain arrays, 50 bytes each: many small tables would take much more."""

    def __init__(self) -> None:
        self.sha256s = bytearray()
        self.solo, self.cropped = bytearray(), bytearray()
        self.post_ids = array("q")
        self.boards, self.exts = _Names(), _Names()

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


class _Names:
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

    Pictures are those of posts.parquet with a sha256 and no drop_reason; the post is the first by
    board and number. A picture is cropped (a face already) if any of its posts says so. Raises
    EmptyStageError if there is none, SchemaError for an impossible name.
    """
    gathered = _Gathered()
    rows = 0
    for batch in batches(store, POSTS_PATH, declared=POSTS, columns=_COLUMNS):
        rows += batch.num_rows
        stored = pc.and_(pc.is_null(batch["drop_reason"]), pc.is_valid(batch["sha256"]))
        usable = pa.Table.from_batches([batch.filter(stored)])
        _check_blobs(store, usable)
        gathered.add(usable)
    if not gathered.solo:
        raise EmptyStageError(
            f"{store.url(POSTS_PATH)}: none of {rows:,} posts has a stored picture "
            "that is not dropped. Crawl first; its drop_reason column says why posts were refused."
        )
    return gathered.table()


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
