"""Manifests: the training set, named by the digest of its content."""

import contextlib
import hashlib
import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from dataset.crops import Crops
from dataset.digests import RowsDigest, SumDigest, content_digest, sha256_prefixes
from dataset.errors import ConfigError, EmptyStageError, OmokageError, SchemaError, listed
from dataset.facetags import (
    DEFAULT_THRESHOLD,
    FacePosts,
    MachineLabels,
    kept_faces,
    posts_of_faces,
    tagged_posts,
)
from dataset.labels import has_tags, label_matrix, read_labels
from dataset.schemas import (
    BOARD,
    FACES_PATH,
    MACHINE,
    PARQUET,
    ROWS_A_GROUP,
    batches,
    manifest_schema,
    read_table,
)
from dataset.store import Store, digest_of

CURRENT_PATH = "manifest/current.json"
TOMBSTONE = "takedown.json"  # in a manifest's folder: the rows that a takedown removed
SPLITS = ("train", "eval")
_DIGITS = "0123456789abcdef"
_FACE_COLUMNS = ("face_id", "crop", "crop_sha256", "board", "post_id", "sha256")


@dataclass(frozen=True)
class Manifest:
    """A training set: `labels` in the generator's order, row counts, and what it was made from."""

    digest: str  # of the labels and of both splits' digests
    folder: str
    labels: list[str]
    train_rows: int
    eval_rows: int
    crop_px: int  # side of the largest crop
    eval_frac: float
    counts: dict[str, int]  # rows with each label, both splits together
    made_from: dict[str, str]  # digests of posts, faces and labels, and of a tagger if there is one
    splits: dict[str, str]  # digest of each split's rows
    machine_rows: int = 0  # of the rows, those that a tagger labelled
    machine_threshold: float | None = None
    untagged: int = 0  # kept faces that nobody labelled: they are not in
    files: dict[str, str] = field(default_factory=dict)  # sha256 of each split's table, as written

    def rows(self, split: str) -> int:
        """Returns the row count of a split."""
        return {"train": self.train_rows, "eval": self.eval_rows}[_known(split)]


def build_manifest(
    store: Store,
    *,
    eval_frac: float = 0.1,
    machine_labels: str | None = None,
    machine_threshold: float = DEFAULT_THRESHOLD,
) -> Manifest:
    """Joins kept faces with their labels, splits them by picture, and makes that the current one.

    A picture stands in `eval` by its blob's sha256 alone, so it stays there whatever comes or goes.
    Faces of posts without tags are left out, unless the table `machine_labels` (a path under the
    home) has labels for them. A manifest whose content is there already is not written again; a
    damaged one is. Raises EmptyStageError if a split stays empty, ConfigError for a value out of
    range, SchemaError where the tables do not fit each other.
    """
    if not 0 < eval_frac < 1:
        raise ConfigError(f"eval_frac is {eval_frac:g}; a part between 0 and 1 wanted")
    labels, labels_digest = read_labels(store)
    machine = None
    if machine_labels is not None:
        machine = MachineLabels(machine_labels, labels, machine_threshold)
    posts = posts_of_faces(store)
    posts_digest = SumDigest()
    of_posts = _labels_of_posts(store, posts, labels, digest=posts_digest)
    rows = _Rows(store, posts, of_posts, labels=labels, machine=machine, eval_frac=eval_frac)
    with contextlib.ExitStack() as stack:
        # The folder that they belong into bears the digest of what is in them.
        place = store.scratch.make_folder("")
        tables: dict[str, IO[bytes]] = {
            split: stack.enter_context(tempfile.TemporaryFile(dir=place)) for split in SPLITS
        }
        with store.scratch.explained("manifest"):
            summary = rows.write(tables)
        _check_splits(summary, eval_frac, untagged=posts.kept - sum(summary.rows.values()))
        made_from = {
            "posts": posts_digest.hexdigest(),
            "faces": posts.faces_digest,
            "labels": labels_digest,
        }
        if machine is not None:
            made_from["tagger"] = " ".join(machine.taggers(store))
        digest = manifest_digest(labels, summary.digests)
        made = Manifest(
            digest=digest,
            folder=_folder(digest),
            labels=labels,
            train_rows=summary.rows["train"],
            eval_rows=summary.rows["eval"],
            crop_px=_width_px(store, summary.largest),
            eval_frac=eval_frac,
            counts=summary.counts,
            made_from=made_from,
            splits=summary.digests,
            machine_rows=summary.machine_rows,
            machine_threshold=None if machine is None else machine_threshold,
            untagged=posts.kept - sum(summary.rows.values()),
            files={split: _sha256(table) for split, table in tables.items()},
        )
        _put(store, made, tables)
    store.write_json(CURRENT_PATH, {"digest": digest})
    return made


def manifest_digest(labels: list[str], splits: Mapping[str, str]) -> str:
    """Returns the digest of a manifest by its labels and the digest of each split's rows."""
    return digest_of({"labels": labels, "splits": dict(splits)})


def load_manifest(store: Store, digest: str | None) -> Manifest:
    """Reads the manifest named by `digest`, or the current one for None.

    Raises OmokageError naming what is missing, is no manifest, or was altered.
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
        found = manifest_digest(manifest.labels, manifest.splits)
    except (TypeError, ValueError) as error:
        raise SchemaError(
            f"{store.url(path)} is no manifest of this version: {error}. Build it again."
        ) from error
    if manifest.digest != digest:
        raise SchemaError(
            f"{store.url(path)} says it is {manifest.digest}; {digest} wanted. Build it again."
        )
    if found != digest:
        raise SchemaError(
            f"{store.url(path)} was altered: its labels and splits have the digest {found}, "
            f"{digest} wanted. Build it again."
        )
    return manifest


def read_split(store: Store, manifest: Manifest, split: str) -> pa.Table:
    """Reads the rows of `train` or `eval`, ordered by face_id.

    Raises SchemaError for other columns, another number of rows, or other content than the
    manifest says.
    """
    path = _path_of(manifest, split)
    table = read_table(store, path, declared=manifest_schema(manifest.labels))
    _check_content(store, manifest, split, rows=table.num_rows, digest=content_digest(table))
    return table


def check_split(store: Store, manifest: Manifest, split: str) -> None:
    """Raises what `read_split` does; it reads by batches, so that memory stays small.

    A file that is byte by byte as it was written is not looked into: its rows were digested then.
    """
    if _file_sha256(store, _path_of(manifest, split)) == manifest.files.get(split):
        return
    schema = manifest_schema(manifest.labels)
    digest, rows = RowsDigest(schema.names), 0
    for batch in batches(store, _path_of(manifest, split), declared=schema):
        digest.update(batch)
        rows += batch.num_rows
    _check_content(store, manifest, split, rows=rows, digest=digest.hexdigest())


def _path_of(manifest: Manifest, split: str) -> str:
    return f"{manifest.folder}/{_known(split)}.parquet"


def _check_content(store: Store, manifest: Manifest, split: str, *, rows: int, digest: str) -> None:
    path = _path_of(manifest, split)
    if (taken := taken_rows(store, manifest.digest)) and rows != manifest.rows(split):
        raise SchemaError(
            f"{store.url(path)}: {len(taken):,} rows of this manifest were taken down "
            f"({TOMBSTONE} beside it lists them), so nothing can be trained or measured on it any "
            "more. Build the manifest again, and train on that one."
        )
    if rows != manifest.rows(split):
        raise SchemaError(
            f"{store.url(path)} has {rows:,} rows, the manifest says "
            f"{manifest.rows(split):,}. Build the manifest again."
        )
    if digest != manifest.splits[split]:
        raise SchemaError(
            f"{store.url(path)} was altered: its rows have the digest {digest}, the manifest says "
            f"{manifest.splits[split]}. Build the manifest again."
        )


def taken_rows(store: Store, digest: str) -> list[dict[str, Any]]:
    """Returns the rows that takedowns removed from a manifest: face_id, board, post_id, sha256."""
    path = f"{_folder(digest)}/{TOMBSTONE}"
    return list(store.read_json(path)["removed"]) if store.exists(path) else []


def split_of(sha256: str, eval_frac: float) -> str:
    """Returns the split of a blob: the same for all faces on it, and for all time."""
    return "eval" if int(sha256[:8], 16) < eval_frac * 16**8 else "train"


@dataclass(frozen=True)
class _PostLabels:
    """Labels of the kept faces' posts: bits [P, ceil(L / 8)], and which posts have tags [P]."""

    bits: npt.NDArray[np.uint8]
    tagged: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Summary:
    """What one pass over all rows tells."""

    digests: dict[str, str]
    rows: dict[str, int]
    counts: dict[str, int]
    machine_rows: int
    largest: pa.Table  # the row with the largest square


def _labels_of_posts(
    store: Store, posts: FacePosts, labels: list[str], *, digest: SumDigest
) -> _PostLabels:
    count = len(posts.faces)
    bits = np.zeros((count, -(-len(labels) // 8)), np.uint8)
    tagged = np.zeros(count, bool)
    for numbers, tags in tagged_posts(store, posts, digest=digest):
        bits[numbers] = np.packbits(label_matrix(tags, labels), axis=1)
        tagged[numbers] = has_tags(tags)
    return _PostLabels(bits, tagged)


@dataclass(frozen=True)
class _Rows:
    """The manifest's rows of both splits, sorted by face_id, a sixteenth at a time."""

    store: Store
    posts: FacePosts
    of_posts: _PostLabels
    labels: list[str]
    machine: MachineLabels | None
    eval_frac: float

    def parts(self) -> Iterator[tuple[pa.Table, npt.NDArray[np.int32]]]:
        """Yields rows with their squares' sides, sorted within and between the parts."""
        kept = 0
        for digit in _DIGITS:
            pieces = list(kept_faces(self.store, (*_FACE_COLUMNS, "side"), digit=digit))
            if pieces:
                faces = pa.Table.from_batches(pieces).sort_by("face_id")
                kept += faces.num_rows
                _check_once(self.store, faces)
                yield self._labelled(faces, digit)
        if kept != self.posts.kept:
            raise SchemaError(
                f"{self.store.url(FACES_PATH)} changed while the manifest was built: "
                f"{self.posts.kept:,} kept faces at first, {kept:,} now. Build it again."
            )

    def write(self, tables: Mapping[str, IO[bytes]]) -> _Summary:
        """Writes each split's table into its file, and tells what went by."""
        schema = manifest_schema(self.labels)
        digests = {split: RowsDigest(schema.names) for split in SPLITS}
        count = dict.fromkeys(SPLITS, 0)
        having = dict.fromkeys(self.labels, 0)
        machine_rows, largest, row = 0, -1, schema.empty_table()
        with contextlib.ExitStack() as stack:
            writers = {
                split: stack.enter_context(pq.ParquetWriter(table, schema, **PARQUET))
                for split, table in tables.items()
            }
            for rows, sides in self.parts():
                for split in SPLITS:
                    of_split = rows.filter(pc.equal(rows["split"], split))
                    digests[split].update(of_split)
                    writers[split].write_table(of_split, row_group_size=ROWS_A_GROUP)
                    count[split] += of_split.num_rows
                for label in self.labels:
                    having[label] += pc.sum(rows[label]).as_py() or 0
                machine_rows += pc.sum(pc.equal(rows["labels_by"], MACHINE)).as_py() or 0
                if len(sides) and sides.max() > largest:
                    largest, row = int(sides.max()), rows.slice(int(sides.argmax()), 1)
        return _Summary(
            {split: digest.hexdigest() for split, digest in digests.items()},
            count,
            having,
            machine_rows,
            row,
        )

    def _labelled(self, faces: pa.Table, digit: str) -> tuple[pa.Table, npt.NDArray[np.int32]]:
        numbers = np.concatenate([self.posts.find(batch) for batch in faces.to_batches()])
        bits = self.of_posts.bits[numbers]
        has = np.unpackbits(bits, axis=1, count=len(self.labels)).astype(bool)
        labelled = self.of_posts.tagged[numbers]
        by_machine = np.zeros(len(numbers), bool)
        if self.machine is not None and not labelled.all():
            untagged = np.flatnonzero(~labelled)
            unlabelled = faces.take(pa.array(untagged))
            has[untagged], found = self.machine.of_faces(self.store, unlabelled, digit=digit)
            by_machine[untagged[found]] = True
        taken = np.flatnonzero(labelled | by_machine)
        faces, has, by_machine = faces.take(pa.array(taken)), has[taken], by_machine[taken]
        return self._table(faces, has, by_machine), faces["side"].to_numpy()

    def _table(
        self, faces: pa.Table, has: npt.NDArray[np.bool_], by_machine: npt.NDArray[np.bool_]
    ) -> pa.Table:
        schema = manifest_schema(self.labels)
        columns = {name: faces[name] for name in _FACE_COLUMNS}
        first, _ = sha256_prefixes(faces["sha256"].combine_chunks())
        in_eval = (first >> np.uint64(32)).astype(np.float64) < self.eval_frac * 16**8
        columns["split"] = pc.if_else(pa.array(in_eval), "eval", "train")
        columns["labels_by"] = pc.if_else(pa.array(by_machine), MACHINE, BOARD)
        columns |= {label: pa.array(has[:, place]) for place, label in enumerate(self.labels)}
        return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _check_once(store: Store, faces: pa.Table) -> None:
    """Raises SchemaError naming faces that stand twice in `faces`, which is sorted."""
    ids = faces["face_id"].combine_chunks()
    double = pc.unique(ids[1:].filter(pc.equal(ids[1:], ids[:-1])))
    if len(double):
        raise SchemaError(
            f"{store.url(FACES_PATH)}: faces that stand twice. Build faces again.\n"
            f"{listed(double.to_pylist())}"
        )


def _check_splits(summary: _Summary, eval_frac: float, *, untagged: int) -> None:
    if all(summary.rows.values()):
        return
    without = f"; {untagged:,} more have no tags and no machine-made labels" if untagged else ""
    raise EmptyStageError(
        f"A split is empty: {summary.rows['train']:,} crops in train and "
        f"{summary.rows['eval']:,} in eval (eval_frac {eval_frac:g}){without}. Both are needed; "
        "crawl more pictures."
    )


def _width_px(store: Store, largest: pa.Table) -> int:
    """The side of the crop of the largest square, which was at most reduced."""
    (png,) = Crops(store).read(largest)
    with Image.open(io.BytesIO(png)) as picture:
        return picture.width


def _put(store: Store, made: Manifest, tables: Mapping[str, IO[bytes]]) -> None:
    """Puts the tables and manifest.json in their place, but those that are there already."""
    path = f"{made.folder}/manifest.json"
    for split, table in tables.items():
        try:
            check_split(store, made, split)
            continue  # of this content, perhaps written by another version of pyarrow
        except OmokageError:  # missing or damaged
            store.remove(path)  # while it is missing, the folder is not finished
        table.seek(0)
        with store.writing(_path_of(made, split)) as file:
            shutil.copyfileobj(table, file, 2**20)
    if not store.exists(path) or store.read_bytes(path) != _json_of(made):
        store.write_bytes(path, _json_of(made))


def _file_sha256(store: Store, path: str) -> str:
    with store.open(path) as file:
        return _sha256(file)


def _sha256(file: IO[bytes]) -> str:
    """The sha256 (hex) of a whole file."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # any reader


def _json_of(made: Manifest) -> bytes:
    return f"{json.dumps(asdict(made), indent=2, sort_keys=True, ensure_ascii=False)}\n".encode()


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
