"""What a home made of pictures that are taken down: found, removed, and listed in receipts.

Knows files, tables and JSON alone. The ledger's part is in `crawlers.ledger`, the registry's in
`models.registry.versions`, the event log's in `pipeline.instance`.
"""

import datetime as dt
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset import tables
from dataset.cropping import FaceSettings
from dataset.crops import CROPS_PATH, FORMER_SHARDS, GROWING
from dataset.duplicates import THUMB_BYTES, thumb_distance
from dataset.errors import StoreError, UsageError, nearest
from dataset.manifest import SPLITS, TOMBSTONE, taken_rows
from dataset.review import CSV_PATH
from dataset.review import FOLDER as REVIEW
from dataset.schemas import (
    FACES_PATH,
    FORMER_FACES_PATH,
    FORMER_POSTS_PATH,
    MACHINE_LABELS_PATH,
    PARQUET,
    POSTS_PATH,
    faces_path,
    posts_path,
)
from dataset.store import Files, Store

RECEIPTS = "takedowns"
CACHES = ("cache/features", "cache/judges", "cache/statistics")  # made of a manifest's pictures
EVALUATION = "evaluation.json"
SHEETS = {"reals_grid": "reals.png", "neighbours_grid": "neighbours.png"}  # that show reals
CURRENT_GENERATOR = "generators/current.json"  # names the newest in the home
TRAINED, CHECKPOINT = "generator/train.json", "state.json"  # both name the training's manifest
_ELSEWHERE = {"dagster", "mlflow", RECEIPTS}  # folders that others look through
_BY_NAME = {"blobs", "crops", "trash"}  # whose files bear the picture's sha256
_UNFINISHED = {"blobs", "crops", "faces", "manifest", "packed", "trash"}  # of a killed process
_ROWS = 8_192  # of a table at once
_PREFIX = 16  # hex digits of the sha256 that a face_id begins with

Key = tuple[str, int]  # board and number of a post


@dataclass(frozen=True)
class Pictures:
    """What is taken down: posts, md5s, and the sha256s of their files with a name to show."""

    posts: frozenset[Key] = frozenset()
    md5s: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(default_factory=dict)  # sha256: such as demo/3

    @property
    def prefixes(self) -> dict[str, str]:
        """The names by what the face_ids on a picture begin with."""
        return {sha256[:_PREFIX]: name for sha256, name in self.files.items()}

    def mask(self, rows: pa.Table) -> pa.Array:
        """Returns which rows [N] are of these pictures, by whichever of its columns say so."""
        found = np.zeros(rows.num_rows, bool)
        for column, wanted in (("sha256", self.files), ("md5", self.md5s)):
            if column in rows.column_names:
                found |= _among(rows[column], wanted)
        if "post_id" in rows.column_names:
            near = np.flatnonzero(_among(rows["post_id"], {number for _, number in self.posts}))
            some = rows.select(["board", "post_id"]).take(pa.array(near)).to_pylist()
            ours = [(row["board"], row["post_id"]) in self.posts for row in some]
            found[near] |= np.array(ours, bool)
        if "sha256" not in rows.column_names and "face_id" in rows.column_names:
            begins = pc.utf8_slice_codeunits(rows["face_id"], 0, _PREFIX)
            found |= _among(begins, self.prefixes)
        return pa.array(found)

    def names_of(self, rows: pa.Table) -> set[str]:
        """Returns the names of the posts that rows of theirs are of."""
        if not rows.num_rows:
            return set()
        if "post_id" in rows.column_names:
            some = rows.select(["board", "post_id"]).to_pylist()
            return {post_name(row["board"], row["post_id"]) for row in some}
        if "sha256" in rows.column_names:
            return {self.files[one] for one in rows["sha256"].to_pylist()}
        return {self.prefixes[one[:_PREFIX]] for one in rows["face_id"].to_pylist()}


@dataclass(frozen=True)
class Trace:
    """Something that is still there of the pictures `of`.

    `mend` takes it away; if it cannot, it returns why.
    """

    path: str
    what: str
    of: frozenset[str]
    count: int = 1
    mend: Callable[[], str | None] = field(default=lambda: None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Returns it as a receipt lists it."""
        return {"path": self.path, "what": self.what, "of": sorted(self.of), "count": self.count}


def post_name(board: str, number: int) -> str:
    """Returns how a post is written in the takedown list and in receipts."""
    return f"{board}/{number}"


def widened(store: Store, pictures: Pictures) -> Pictures:
    """Adds what the tables know of the pictures: other posts of the same file, other files.

    A ledger forgets the file of a post that was taken down; old manifests do not.
    """
    while True:
        posts, files = set(pictures.posts), dict(pictures.files)
        for row in _known(store, pictures):
            posts.add((row["board"], row["post_id"]))
            if row["sha256"]:
                files.setdefault(row["sha256"], post_name(row["board"], row["post_id"]))
        found = Pictures(frozenset(posts), pictures.md5s, files)
        if found == pictures:
            return found
        pictures = found


def find(store: Store, pictures: Pictures, *, named: Collection[str]) -> list[Trace]:
    """Returns all that the home holds of the pictures, what others are found by coming last.

    named: paths of the blobs that the ledger names; of the others it is looked whether their md5
    is one of the pictures'. What may hold a trace, and is made again when it is needed (feature
    caches), is not here: see `caches`.
    """
    paths = _walk(store)
    manifests = affected(store, pictures)
    return [
        *_files(store, pictures, paths, named),
        *(trace for root in store.local_roots for trace in _unfinished(root, _walk(root))),
        *_sheets(store, manifests, paths),
        *_packs(store, manifests),
        *_review(store, pictures),
        *_lines(store, pictures),
        *_tables(store, pictures),
    ]


def purge_versions(store: Store) -> None:
    """Leaves nothing in the files of the tables that grow but their present rows.

    Nor in a bucket the parts of objects whose writers were killed.
    """
    store.abort_uploads()
    for path, rows in GROWING.items():
        if tables.exists(store, path) and tables.has_history(store, path):
            tables.purge(store, path, rows=rows)


def caches(store: Store, of: frozenset[str]) -> list[Trace]:
    """Returns the caches made of manifests' pictures: their names do not tell of which."""
    there = [path for path in CACHES if store.scratch.files(path)]
    return [_removal(store.scratch, path, "feature cache", of) for path in there]


def affected(store: Store, pictures: Pictures) -> dict[str, set[str]]:
    """Returns the manifests that hold or held the pictures, by digest, with the posts' names."""
    found: dict[str, set[str]] = {}
    for digest in _manifests(store):
        rows = [row for row in taken_rows(store, digest) if row["sha256"] in pictures.files]
        names = {post_name(row["board"], row["post_id"]) for row in rows}
        for split in SPLITS:
            names |= pictures.names_of(
                _matching(store, f"manifest/{digest}/{split}.parquet", pictures)
            )
        if names:
            found[digest] = names
    return found


def trainings(store: Store) -> dict[str, list[str]]:
    """Returns all trainings under the home by folder, each with the manifests that it learnt from.

    A training that went on from another one learnt from that one's manifests too.
    """
    folders: dict[str, str] = {}  # of each training, a file that names its manifest
    for path in sorted(_walk(store)):
        if path.endswith(f"/{TRAINED}"):
            folders[path.removesuffix(f"/{TRAINED}")] = path
        elif path.endswith(f"/{CHECKPOINT}") and "/checkpoints/" in path:
            folders.setdefault(path.rpartition("/checkpoints/")[0], path)
    return {folder: learnt_from(store, folder, folders) for folder in folders}


def learnt_from(store: Store, folder: str, known: Mapping[str, str] | None = None) -> list[str]:
    """Returns the digests of the manifests that a training learnt from, its own first."""
    known = known or {}
    found: list[str | None] = []
    seen: set[str] = set()
    while folder and folder not in seen:
        seen.add(folder)
        path = known.get(folder, f"{folder}/{TRAINED}")
        facts = store.read_json(path) if store.exists(path) else {}
        origin = facts.get("origin") or {}
        found += [facts.get("manifest_digest"), origin.get("manifest_digest")]
        folder = origin.get("folder", "")
    return list(dict.fromkeys(digest for digest in found if digest))


def evaluations(store: Store) -> dict[str, str]:
    """Returns the manifests that evaluations under the home were made on, by the file's path."""
    paths = [path for path in _walk(store) if path.endswith(f"/{EVALUATION}")]
    return {path: store.read_json(path).get("manifest_digest", "") for path in paths}


def manifest_rows(store: Store, digest: str) -> Iterator[dict[str, Any]]:
    """Yields the rows that a manifest holds, and those that were `taken`: ids, post, split."""
    for split in SPLITS:
        rows = _read(store, f"manifest/{digest}/{split}.parquet", (*_KEYS, "split"))
        yield from ({**row, "taken": False} for row in ([] if rows is None else rows.to_pylist()))
    yield from ({**row, "taken": True} for row in taken_rows(store, digest))


def artists_of(store: Store, posts: Collection[Key]) -> Counter[str]:
    """Returns how many of these posts each artist has, by the table of posts."""
    rows = _read(store, posts_path(store), ("board", "post_id", "tags_artist"))
    found: Counter[str] = Counter()
    for row in [] if rows is None else rows.to_pylist():
        if (row["board"], row["post_id"]) in posts:
            found.update(row["tags_artist"])
    return found


def alike(store: Store, pictures: Pictures) -> list[str]:
    """Returns other pictures that show nearly the same, as sentences: people decide on those.

    By hash and small copy of the whole picture, and of each face; see dataset.duplicates.
    """
    settings = FaceSettings()
    found: dict[str, str] = {}
    for kind, prefix, distance, rms_max in (
        ("picture", "picture_", settings.picture_distance, settings.picture_rms_max),
        ("face", "", settings.phash_distance, settings.thumb_rms_max),
    ):
        if not pictures.files:
            break
        ours = [one.only(pictures.files) for one in _Copies.parts(store, prefix)]
        for others in _Copies.parts(store, prefix):
            for one in ours:
                for sha256, like in others.like(one, distance, rms_max).items():
                    if sha256 not in pictures.files:
                        found.setdefault(sha256, f"{kind} like {pictures.files[like]}")
    shown = _posts_by_file(store, found)
    return [f"{shown.get(sha256, sha256)}: {text}" for sha256, text in sorted(found.items())]


@dataclass(frozen=True)
class _Copies:
    """Of some pictures or faces [N]: files, hashes [N], small copies [N, THUMB_BYTES]."""

    sha256s: list[str]
    hashes: np.ndarray[Any, Any]
    thumbs: np.ndarray[Any, Any]

    @classmethod
    def parts(cls, store: Store, prefix: str) -> Iterator["_Copies"]:
        """Reads all crops; prefix: picture_ for the pictures, "" for the faces."""
        if not tables.exists(store, CROPS_PATH):
            return
        columns = ["sha256", f"{prefix}phash", f"{prefix}thumb"]
        for batch in tables.scan(store, CROPS_PATH, columns=columns, rows=_ROWS):
            rows = batch.filter(pc.is_valid(batch[f"{prefix}thumb"]))
            hashes = [int(text, 16) for text in rows[f"{prefix}phash"].to_pylist()]
            thumbs = np.frombuffer(b"".join(rows[f"{prefix}thumb"].to_pylist()), np.uint8)
            yield cls(
                rows["sha256"].to_pylist(),
                np.array(hashes, np.uint64),
                thumbs.reshape(len(hashes), THUMB_BYTES),
            )

    def only(self, files: Collection[str]) -> "_Copies":
        """Returns those of some files."""
        rows = [row for row, name in enumerate(self.sha256s) if name in files]
        return _Copies([self.sha256s[row] for row in rows], self.hashes[rows], self.thumbs[rows])

    def like(self, ours: "_Copies", distance: int, rms_max: float) -> dict[str, str]:
        """Returns the files of which something is like something of `ours`, each with its file."""
        found: dict[str, str] = {}
        for name, number, small in zip(ours.sha256s, ours.hashes, ours.thumbs, strict=True):
            near = np.flatnonzero(np.bitwise_count(self.hashes ^ number) <= distance)
            same = np.repeat(small[None], len(near), axis=0)
            alike = near[thumb_distance(same, self.thumbs[near]) <= rms_max]
            for row in alike:
                found.setdefault(self.sha256s[row], name)
        return found


def write_receipt(store: Store, receipt: Mapping[str, Any]) -> None:
    """Stores a receipt under its id."""
    store.write_json(f"{RECEIPTS}/{receipt['id']}.json", dict(receipt))


def new_receipt() -> dict[str, Any]:
    """Returns a receipt of a takedown that begins now."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
    return {
        "id": now.partition("+")[0].replace(":", "").replace(".", "-") + "Z",
        "begun_at": now,
        "done_at": None,
        "entries": {},
        "pictures": [],
        "removed": [],
        "not_removed": [],
        "models": [],
        "alike": [],
    }


def read_receipts(store: Store) -> list[dict[str, Any]]:
    """Returns all receipts, the oldest first."""
    names = [name for name in store.names(RECEIPTS) if name.endswith(".json")]
    return [store.read_json(f"{RECEIPTS}/{name}") for name in names]


def receipt_named(store: Store, name: str) -> dict[str, Any]:
    """Returns a receipt by its id; raises UsageError naming the nearest for an unknown one."""
    found = {receipt["id"]: receipt for receipt in read_receipts(store)}
    if name not in found:
        raise UsageError(f'{store.url(RECEIPTS)} has no receipt "{name}"{nearest(name, found)}')
    return found[name]


def receipt_in_words(receipt: Mapping[str, Any]) -> list[str]:
    """Returns a receipt as lines for people."""
    end = receipt["done_at"] or "not finished: run `omokage takedown apply` again"
    lines = [f"takedown {receipt['id']}", f"  begun  {receipt['begun_at']}", f"  done   {end}"]
    lines += [
        f"  entry  {line}: {', '.join(of) or 'nothing'}"
        for line, of in sorted(receipt["entries"].items())
    ]
    for title, key in (
        ("removed", "removed"),
        ("not removed", "not_removed"),
        ("learnt from these pictures (the weights stay, the versions are marked)", "models"),
        ("alike, not removed: look at them", "alike"),
    ):
        lines.append(f"{title}: {len(receipt[key])}")
        lines += [f"  {_line(one)}" for one in receipt[key]]
    return lines


def _line(one: Any) -> str:
    if not isinstance(one, Mapping):
        return str(one)
    count = f" x{one['count']}" if one.get("count", 1) > 1 else ""
    of = f"  ({', '.join(one['of'])})" if one.get("of") else ""
    return f"{one['what']}{count}  {one['path']}{of}" + (f": {one['why']}" if "why" in one else "")


def _among(column: pa.Array | pa.ChunkedArray, wanted: Iterable[Any]) -> np.ndarray[Any, Any]:
    values = pa.array(sorted(wanted), column.type)
    return np.asarray(pc.is_in(column, value_set=values).to_numpy(zero_copy_only=False), bool)


def _walk(store: Files) -> list[str]:
    """All files of a root by path, unfinished ones too, but for those of Dagster and MLflow."""
    return store.all_files(but=_ELSEWHERE)


def _manifests(store: Store) -> list[str]:
    return [name for name in store.names("manifest") if re.fullmatch(r"[0-9a-f]{64}", name)]


def _read(store: Store, path: str, columns: Collection[str]) -> pa.Table | None:
    """Those of the columns that a table has; None if there is no table."""
    is_table = tables.is_lance(path)
    if not (tables.exists(store, path) if is_table else store.exists(path)):
        return None
    if is_table:
        there = [name for name in columns if name in tables.schema_of(store, path).names]
        return pa.Table.from_batches(list(tables.scan(store, path, columns=there, rows=_ROWS)))
    with store.open(path) as file:
        try:
            held = pq.ParquetFile(file, pre_buffer=False)
            there = [name for name in columns if name in held.schema_arrow.names]
            return held.read(columns=there, use_threads=False)
        except pa.ArrowInvalid as error:
            raise StoreError(
                f"{store.url(path)} cannot be read: {error}. Build it again."
            ) from error


_KEYS = ("board", "post_id", "md5", "sha256", "face_id")


def _matching(store: Store, path: str, pictures: Pictures) -> pa.Table:
    rows = _read(store, path, _KEYS)
    return pa.table({}) if rows is None else rows.filter(pictures.mask(rows))


def _known(store: Store, pictures: Pictures) -> Iterator[dict[str, Any]]:
    """The rows of the tables, and of what was taken from manifests, that are of the pictures."""
    manifests = _manifests(store)
    paths = [f"manifest/{digest}/{split}.parquet" for digest in manifests for split in SPLITS]
    for path in (POSTS_PATH, FORMER_POSTS_PATH, FACES_PATH, FORMER_FACES_PATH, *paths):
        yield from _matching(store, path, pictures).to_pylist()
    for digest in manifests:
        for row in taken_rows(store, digest):
            if (row["board"], row["post_id"]) in pictures.posts or row["sha256"] in pictures.files:
                yield row


def _posts_by_file(store: Store, files: Iterable[str]) -> dict[str, str]:
    rows = _read(store, faces_path(store), _KEYS)
    if rows is None:
        return {}
    found = rows.filter(pa.array(_among(rows["sha256"], files))).to_pylist()
    return {row["sha256"]: post_name(row["board"], row["post_id"]) for row in found}


def _removal(root: Files, path: str, what: str, of: Iterable[str]) -> Trace:
    return Trace(path, what, frozenset(of), mend=lambda: root.remove(path))


def _files(
    store: Store, pictures: Pictures, paths: list[str], named: Collection[str]
) -> Iterator[Trace]:
    """Blobs and crops, also in the trash, and what killed processes left unfinished."""
    prefixes = pictures.prefixes
    yield from _unfinished(store, paths)
    for path in paths:
        top, name = path.partition("/")[0], path.rpartition("/")[2]
        if top not in _BY_NAME or name.startswith(".tmp-"):
            continue
        if (stem := name.partition(".")[0]) in pictures.files:
            yield _removal(store, path, "blob", {pictures.files[stem]})
        elif stem[:_PREFIX] in prefixes and stem[_PREFIX : _PREFIX + 1] == "-":
            yield _removal(store, path, "crop", {prefixes[stem[:_PREFIX]]})
        elif "crops/" not in path and path not in named and pictures.md5s:
            md5 = hashlib.md5(store.read_bytes(path), usedforsecurity=False).hexdigest()
            if md5 in pictures.md5s:
                yield _removal(store, path, "blob", {f"md5 {md5}"})


def _unfinished(root: Files, paths: Iterable[str]) -> Iterator[Trace]:
    for path in paths:
        top, name = path.partition("/")[0], path.rpartition("/")[2]
        if name.startswith(".tmp-") and (top in _UNFINISHED or top == name):
            yield _removal(root, path, "unfinished file", ())


def _sheets(store: Store, manifests: Mapping[str, set[str]], paths: list[str]) -> Iterator[Trace]:
    """Grids of real faces, of evaluations on a manifest that held the pictures."""
    for path in (one for one in paths if one.endswith(f"/{EVALUATION}")):
        folder, made = path.rpartition("/")[0], store.read_json(path)
        names = manifests.get(made.get("manifest_digest", ""), set())
        there = [f"{folder}/{name}" for name in SHEETS.values()]
        there = [sheet for sheet in there if store.exists(sheet)]
        if names and (there or made.keys() & SHEETS.keys()):

            def mend(
                path: str = path, made: dict[str, Any] = made, there: list[str] = there
            ) -> None:
                for sheet in there:
                    store.remove(sheet)
                kept = {name: value for name, value in made.items() if name not in SHEETS}
                store.write_json(path, kept)

            yield Trace(folder, "grids of real faces", frozenset(names), len(SHEETS), mend)


def _packs(store: Store, manifests: Mapping[str, set[str]]) -> Iterator[Trace]:
    for digest in store.scratch.names("packed"):
        if digest in manifests:
            yield _removal(store.scratch, f"packed/{digest}", "packed crops", manifests[digest])


def _review(store: Store, pictures: Pictures) -> Iterator[Trace]:
    if store.files(REVIEW):
        text = store.read_bytes(CSV_PATH).decode() if store.exists(CSV_PATH) else ""
        names = {name for prefix, name in pictures.prefixes.items() if f"{prefix}-" in text}
        if names or (pictures.files and not text):  # killed before it was written
            yield _removal(store, REVIEW, "review sheets", names)


def _lines(store: Store, pictures: Pictures) -> Iterator[Trace]:
    """Raw records of the posts in the quarantine, and faults of imports that name their md5."""
    paths = [(store.state, one) for one in store.state.names("") if one.startswith("quarantine")]
    for root, path in [*paths, *((store, one) for one in store.files("imports"))]:
        if not path.endswith(".jsonl"):
            continue
        lines = root.read_bytes(path).splitlines(keepends=True)
        hit = [_named_in(line.decode(errors="replace"), pictures) for line in lines]
        if any(hit):
            left = b"".join(line for line, of in zip(lines, hit, strict=True) if not of)

            def mend(root: Files = root, path: str = path, left: bytes = left) -> None:
                root.write_bytes(path, left)

            yield Trace(
                path, "raw records", frozenset(filter(None, hit)), sum(map(bool, hit)), mend
            )


def _named_in(text: str, pictures: Pictures) -> str:
    try:
        line = json.loads(text)
        key = (line.get("board"), line.get("post_id"))
    except (ValueError, AttributeError):  # cut by a kill
        key = (None, None)
    if key in pictures.posts:
        return post_name(*key)
    return next((f"md5 {md5}" for md5 in pictures.md5s if md5 in text), "")


def _tables(store: Store, pictures: Pictures) -> Iterator[Trace]:
    paths = [*store.files(FORMER_SHARDS), CROPS_PATH, MACHINE_LABELS_PATH]
    for digest in _manifests(store):
        paths += [f"manifest/{digest}/{split}.parquet" for split in SPLITS]
    known = (FACES_PATH, FORMER_FACES_PATH, FORMER_POSTS_PATH, POSTS_PATH)
    for path in [*paths, *known]:  # the last know a post's file
        rows = _matching(store, path, pictures)
        if rows.num_rows:

            def mend(path: str = path, rows: pa.Table = rows) -> None:
                _take_rows(store, path, rows, pictures)

            of = frozenset(pictures.names_of(rows))
            yield Trace(path, "rows", of, rows.num_rows, mend)


def _take_rows(store: Store, path: str, rows: pa.Table, pictures: Pictures) -> None:
    """Writes a table again without these rows, group by group; a manifest gets a note first."""
    if tables.is_lance(path):  # `purge_versions` takes them out of its files
        if path == CROPS_PATH:
            tables.delete_values(store, path, "sha256", sorted(set(rows["sha256"].to_pylist())))
            return
        for row in rows.select(["board", "post_id"]).to_pylist():
            tables.delete(store, path, f"board = '{row['board']}' AND post_id = {row['post_id']}")
        return
    folder = path.rpartition("/")[0]
    if folder.startswith("manifest/"):
        before = taken_rows(store, folder.removeprefix("manifest/"))
        split = Path(path).stem
        more = [
            {
                **{name: row[name] for name in ("face_id", "board", "post_id", "sha256")},
                "split": split,
            }
            for row in rows.to_pylist()
        ]
        both = {row["face_id"]: row for row in [*before, *more]}
        removed = [both[face_id] for face_id in sorted(both)]
        note = {"digest": folder.removeprefix("manifest/"), "removed": removed}
        store.write_json(f"{folder}/{TOMBSTONE}", note)
    with store.open(path) as source, store.writing(path) as file:
        held = pq.ParquetFile(source, pre_buffer=False)
        with pq.ParquetWriter(file, held.schema_arrow, **PARQUET) as writer:
            for group in range(held.num_row_groups):
                part = held.read_row_group(group, use_threads=False)
                left = part.filter(pc.invert(pictures.mask(part)))
                if left.num_rows:
                    writer.write_table(left)
