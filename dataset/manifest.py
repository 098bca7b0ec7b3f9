"""Manifests: the training set, named by the digest of its sorted content."""

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from dataset.digests import content_digest
from dataset.errors import ConfigError, EmptyStageError, OmokageError, SchemaError
from dataset.labels import kept_faces, label_matrix, read_labels, tags_of_faces
from dataset.schemas import POSTS, POSTS_PATH, manifest_schema, read_table, write_table
from dataset.store import Store, digest_of

CURRENT_PATH = "manifest/current.json"
SPLITS = ("train", "eval")
_NOT_CONTENT = ["fetched_at"]  # of posts: it changes with every crawl


@dataclass(frozen=True)
class Manifest:
    """A training set: `labels` in the generator's order, row counts, and what it was made from."""

    digest: str
    folder: str
    labels: list[str]
    train_rows: int
    eval_rows: int
    crop_px: int  # side of the largest crop
    eval_frac: float
    counts: dict[str, int]  # rows with each label, both splits together
    made_from: dict[str, str]  # digests of posts, faces and labels

    def rows(self, split: str) -> int:
        """Returns the row count of a split."""
        return {"train": self.train_rows, "eval": self.eval_rows}[_known(split)]


def build_manifest(store: Store, *, eval_frac: float = 0.1) -> Manifest:
    """Joins kept faces with their labels, splits them by picture, and makes that the current one.

    A picture stands in `eval` by its blob's sha256 alone, so it stays there whatever comes or goes.
    The digest is over labels and sorted rows; a manifest of that digest is not written again.
    Raises EmptyStageError if a split stays empty, ConfigError for an `eval_frac` outside 0 to 1.
    """
    if not 0 < eval_frac < 1:
        raise ConfigError(f"eval_frac is {eval_frac:g}; a part between 0 and 1 wanted")
    labels, labels_digest = read_labels(store)
    faces = kept_faces(store).sort_by("face_id")
    rows = _rows(store, faces, labels, eval_frac=eval_frac)
    digest = digest_of({"labels": labels, "rows": content_digest(rows)})
    count = {split: _of_split(rows, split).num_rows for split in SPLITS}
    if not all(count.values()):
        raise EmptyStageError(
            f"A split is empty: {count['train']:,} crops in train and {count['eval']:,} in eval "
            f"(eval_frac {eval_frac:g}). Both are needed; crawl more pictures."
        )
    made = Manifest(
        digest=digest,
        folder=_folder(digest),
        labels=labels,
        train_rows=count["train"],
        eval_rows=count["eval"],
        crop_px=_largest_crop_px(store, faces),
        eval_frac=eval_frac,
        counts={label: int(pc.sum(rows[label]).as_py() or 0) for label in labels},
        made_from={
            "posts": _posts_digest(store),
            "faces": content_digest(faces),
            "labels": labels_digest,
        },
    )
    if not store.exists(f"{made.folder}/manifest.json"):
        _write(store, made, rows)
    store.write_json(CURRENT_PATH, {"digest": digest})
    return made


def load_manifest(store: Store, digest: str | None) -> Manifest:
    """Reads the manifest named by `digest`, or the current one for None.

    Raises OmokageError naming what is missing or is no manifest.
    """
    if digest is None:
        digest = _current(store)
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise OmokageError(f'"{digest}" is no manifest digest; 64 hex digits wanted')
    path = f"{_folder(digest)}/manifest.json"
    if not store.exists(path):
        raise OmokageError(f"{store.url(path)} is not there. Build the manifest first.")
    content = store.read_json(path)
    try:
        manifest = Manifest(**content)
    except TypeError as error:
        raise SchemaError(
            f"{store.url(path)} is no manifest of this version: {error}. Build it again."
        ) from error
    if manifest.digest != digest:
        raise SchemaError(
            f"{store.url(path)} says it is {manifest.digest}; {digest} wanted. Build it again."
        )
    return manifest


def read_split(store: Store, manifest: Manifest, split: str) -> pa.Table:
    """Reads the rows of `train` or `eval`, ordered by face_id.

    Raises SchemaError for other columns or another number of rows than the manifest says.
    """
    path = f"{manifest.folder}/{_known(split)}.parquet"
    table = read_table(store, path, declared=manifest_schema(manifest.labels))
    if table.num_rows != manifest.rows(split):
        raise SchemaError(
            f"{store.url(path)} has {table.num_rows:,} rows, the manifest says "
            f"{manifest.rows(split):,}. Remove {manifest.folder} and build it again."
        )
    return table


def split_of(sha256: str, eval_frac: float) -> str:
    """Returns the split of a blob: the same for all faces on it, and for all time."""
    return "eval" if int(sha256[:8], 16) < eval_frac * 16**8 else "train"


def _rows(store: Store, faces: pa.Table, labels: list[str], *, eval_frac: float) -> pa.Table:
    """The manifest's rows of both splits, in the order of `faces`."""
    splits = [split_of(sha256, eval_frac) for sha256 in faces["sha256"].to_pylist()]
    has = label_matrix(tags_of_faces(store, faces), labels)
    schema = manifest_schema(labels)
    columns = {name: faces[name] for name in schema.names if name in faces.column_names}
    columns["split"] = pa.array(splits, pa.string())
    columns |= {label: pa.array(has[:, place]) for place, label in enumerate(labels)}
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _of_split(rows: pa.Table, split: str) -> pa.Table:
    return rows.filter(pc.equal(rows["split"], split))


def _largest_crop_px(store: Store, faces: pa.Table) -> int:
    """The side of the largest crop: that of the largest square, which was at most reduced."""
    largest = int(np.argmax(faces["side"].to_numpy()))
    with store.open(faces["crop"][largest].as_py()) as file, Image.open(file) as crop:
        return crop.width


def _posts_digest(store: Store) -> str:
    """Digest of what we know of the posts, not of when we learned it."""
    posts = read_table(store, POSTS_PATH, declared=POSTS).drop(_NOT_CONTENT)
    for place, field in enumerate(posts.schema):
        if pa.types.is_list(field.type):
            joined = pc.binary_join(posts[field.name].combine_chunks(), " ")
            posts = posts.set_column(place, field.name, joined)
    return content_digest(posts)


def _write(store: Store, made: Manifest, rows: pa.Table) -> None:
    """Writes the tables, then manifest.json: while that is missing, the folder is not finished."""
    schema = manifest_schema(made.labels)
    for split in SPLITS:
        table = _of_split(rows, split)
        write_table(store, f"{made.folder}/{split}.parquet", table, declared=schema)
    store.write_json(f"{made.folder}/manifest.json", asdict(made))


def _current(store: Store) -> str:
    if not store.exists(CURRENT_PATH):
        raise OmokageError(
            f"{store.url(CURRENT_PATH)} is not there: no manifest was built under this home. "
            "Build one, or point OMOKAGE_HOME to a home that has one."
        )
    content: Any = store.read_json(CURRENT_PATH)
    if not isinstance(content, dict) or not isinstance(content.get("digest"), str):
        raise SchemaError(f'{store.url(CURRENT_PATH)}: {{"digest": …}} wanted. Build it again.')
    return str(content["digest"])


def _folder(digest: str) -> str:
    return f"manifest/{digest}"


def _known(split: str) -> str:
    if split not in SPLITS:
        raise OmokageError(f'"{split}" is no split; {" or ".join(SPLITS)} wanted')
    return split
