"""The faces that a tagger learns from and those that it labels; their crops as arrays."""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataset.decode import Picture, decode
from dataset.digests import content_digest, pixels_sha256
from dataset.errors import OmokageError
from dataset.facetags import kept_faces, posts_of_faces, tagged_posts
from dataset.geometry import resized
from dataset.labels import has_tags, label_matrix, read_labels
from dataset.manifest import split_of
from dataset.store import Store, digest_of
from models.tagger.interface import Images

_COLUMNS = ["face_id", "sha256", "crop", "crop_sha256"]
_AT_ONCE = 256


@dataclass(frozen=True)
class HomeFaces:
    """The kept faces of a home, by whether their posts have tags.

    Attributes:
        labels: names in the order of labels.json.
        tagged: rows (face_id, sha256, crop, crop_sha256) by face_id.
        truths: bool [N,L], the labels of the tagged rows.
        untagged: the same columns; posts without any tag say nothing, not even what is absent.

    """

    labels: tuple[str, ...]
    tagged: pa.Table
    truths: npt.NDArray[np.bool_]
    untagged: pa.Table

    @property
    def tagged_digest(self) -> str:
        """The sha256 over the tagged crops and their labels: what a tagger learns from."""
        columns = {label: pa.array(self.truths[:, n]) for n, label in enumerate(self.labels)}
        table = self.tagged.select(["face_id", "crop_sha256"])
        for label, column in columns.items():
            table = table.append_column(f"label {label}", column)
        return digest_of({"labels": list(self.labels), "rows": content_digest(table)})

    @property
    def untagged_digest(self) -> str:
        """The sha256 over the crops that want labels."""
        return content_digest(self.untagged.select(["face_id", "crop_sha256"]))

    def in_split(self, split: str, eval_frac: float) -> npt.NDArray[np.bool_]:
        """Returns which tagged rows stand in `train` or `eval`, as in the manifest: bool [N]."""
        pictures = self.tagged["sha256"].to_pylist()
        return np.array([split_of(picture, eval_frac) == split for picture in pictures], bool)


def faces_of(store: Store) -> HomeFaces:
    """Reads faces, posts and labels of a home; raises the errors of those tables."""
    labels, _ = read_labels(store)
    posts = posts_of_faces(store)
    has = np.zeros((len(posts.faces), len(labels)), bool)  # [P,L], by post
    tagged = np.zeros(len(posts.faces), bool)
    for numbers, tags in tagged_posts(store, posts):
        has[numbers], tagged[numbers] = label_matrix(tags, labels), has_tags(tags)
    batches = list(kept_faces(store, (*_COLUMNS, "board", "post_id")))
    of_post = np.concatenate([posts.find(batch) for batch in batches])
    faces = pa.Table.from_batches(batches).select(_COLUMNS)
    order = pc.sort_indices(faces["face_id"]).to_numpy()
    learnt, asked = order[tagged[of_post[order]]], order[~tagged[of_post[order]]]
    return HomeFaces(
        tuple(labels),
        tagged=faces.take(pa.array(learnt)),
        truths=has[of_post[learnt]],
        untagged=faces.take(pa.array(asked)),
    )


def part_of(sha256: str, frac: float) -> bool:
    """Tells whether a picture falls into a part of the size `frac`, whatever its split.

    By other digits of the blob's sha256 than the split, so that the two are independent.
    """
    return int(sha256[8:16], 16) < frac * 16**8


def read_crops(
    store: Store, rows: pa.Table, *, side_px: int, advance: Callable[[int], None]
) -> Images:
    """Reads all crops of `rows` at one side, [N,side,side,3]; `advance` takes how many are done.

    Raises OmokageError naming a crop that is missing, damaged, or not the one of the table.
    """
    images = np.empty((rows.num_rows, side_px, side_px, 3), np.uint8)
    place = 0
    for batch in crop_batches(store, rows, side_px=side_px):
        images[place : place + len(batch)] = batch
        place += len(batch)
        advance(len(batch))
    return images


def crop_batches(store: Store, rows: pa.Table, *, side_px: int) -> Iterator[Images]:
    """Yields the crops of `rows` in their order, [n,side,side,3]; raises as `read_crops`."""
    with _threads() as threads:
        for batch in rows.select(["crop", "crop_sha256"]).to_batches(max_chunksize=_AT_ONCE):
            crops = threads.map(
                lambda row: resized(_checked(store, row["crop"], row["crop_sha256"]), side_px),
                batch.to_pylist(),
            )
            yield np.stack(list(crops))


def _checked(store: Store, crop: str, sha256: str) -> Picture:
    pixels = decode(store.read_bytes(crop), where=store.url(crop))
    found = pixels_sha256(pixels)
    if found != sha256:
        raise OmokageError(
            f"{store.url(crop)}: its pixels have the sha256 {found}, faces.parquet says {sha256}. "
            "It was made with other settings since, or is damaged: remove it and build faces again."
        )
    return pixels


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads are enough: decoding and resizing let go of the interpreter's lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        yield threads
