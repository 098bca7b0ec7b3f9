"""The 16 shards of the crop work, by the sha256's first hex digit: planned, cropped, committed.

A shard's file is a pure function of its pictures and of the settings: which post brought a picture,
its tags and its likeness to others are for the merge. So a shard stands until a picture comes or
goes, and then only the new pictures are cropped.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset.blobs import blob_path
from dataset.cropping import Face, FaceSettings, faces_on
from dataset.decode import UnreadablePicture, decode
from dataset.errors import SchemaError, StoreError
from dataset.schemas import FACES, read_table, write_table
from dataset.store import Store, digest_of

DIGITS = "0123456789abcdef"
NO_FACE = "no_face"

_OF_POSTS = {"board", "post_id"}
SHARD = pa.schema(
    [
        pa.field("fault", pa.string()),  # no_face, or why the picture could not be read
        pa.field("sha256", pa.string(), nullable=False),
        *(field.with_nullable(True) for field in FACES if field.name not in _OF_POSTS | {"sha256"}),
        pa.field("cropped", pa.bool_(), nullable=False),  # its post said so when it was cropped
        pa.field("thumb", pa.binary()),
    ],
    metadata={"table": "shard"},
)


@dataclass(frozen=True)
class Blob:
    """A stored original."""

    sha256: str
    ext: str
    cropped: bool = False  # it is a face already: taken whole


@dataclass(frozen=True)
class Plan:
    """What is to be done for one shard: `rows` stand, `todo` is to be cropped."""

    digit: str
    inputs: str
    whole: bool  # nothing has changed: the file stands as it is
    rows: pa.Table
    todo: tuple[Blob, ...]

    @property
    def path(self) -> str:
        """Path of the shard's file."""
        return shard_path(self.digit)


def shard_path(digit: str) -> str:
    """Returns the path of a shard's table under the home."""
    return f"faces/shard-{digit}.parquet"


def plan_shard(store: Store, digit: str, blobs: list[Blob], settings: FaceSettings) -> Plan:
    """Compares a shard's stored file with its pictures, and finds what has to be cropped.

    Pictures that could not be read are tried again each time: the blob may have been mended.
    """
    inputs = digest_of([[blob.sha256, blob.ext, blob.cropped] for blob in blobs])
    stored = _stored_digests(store, digit)
    if stored is None or stored["settings"] != settings.crop_digest:
        # A file of other settings must not outlive its crops, which are about to be overwritten.
        store.remove(shard_path(digit))
        return Plan(digit, inputs, whole=False, rows=SHARD.empty_table(), todo=tuple(blobs))
    table = read_table(store, shard_path(digit), declared=SHARD)
    rows = _as_said(_standing(store, digit, table), blobs)
    done = set(rows["sha256"].to_pylist())
    todo = tuple(blob for blob in blobs if blob.sha256 not in done)
    whole = not todo and stored["inputs"] == inputs
    if not whole:
        wanted = pa.array([blob.sha256 for blob in blobs], pa.string())
        rows = rows.filter(pc.is_in(rows["sha256"], value_set=wanted))
    return Plan(digit, inputs, whole=whole, rows=rows, todo=todo)


def crop_batch(
    store: Store, settings: FaceSettings, blobs: tuple[Blob, ...]
) -> list[dict[str, Any]]:
    """Crops a few pictures and writes the crops; returns their shard rows. Runs in a worker."""
    return [row for blob in blobs for row in _crop(store, settings, blob)]


def commit_shard(
    store: Store, plan: Plan, settings: FaceSettings, fresh: Iterable[dict[str, Any]]
) -> None:
    """Removes the crops that the shard no longer names, then writes its file atomically."""
    made = pa.Table.from_pylist(list(fresh), schema=SHARD)
    table = pa.concat_tables([plan.rows.cast(SHARD), made])
    table = table.sort_by([("sha256", "ascending"), ("face_id", "ascending")])
    named = set(table["crop"].to_pylist())
    for crop in _crops_there(store, plan.digit) - named:
        store.remove(crop)
    digests = {"settings": settings.crop_digest, "inputs": plan.inputs}
    declared = SHARD.with_metadata({**SHARD.metadata, **digests})
    write_table(store, plan.path, table, declared=declared)


def _stored_digests(store: Store, digit: str) -> dict[str, str] | None:
    path = shard_path(digit)
    if not store.exists(path):
        return None
    with store.open(path) as file:
        try:
            metadata = pq.read_schema(file).metadata or {}
        except pa.ArrowInvalid as error:
            raise SchemaError(
                f"{store.url(path)} is not a Parquet file ({error}). "
                "Remove it and build faces again."
            ) from error
    return {name: metadata.get(name.encode(), b"").decode() for name in ("settings", "inputs")}


def _standing(store: Store, digit: str, table: pa.Table) -> pa.Table:
    """The rows of pictures that were read and whose crops are all still there."""
    there = pa.array(sorted(_crops_there(store, digit)), pa.string())
    lost = pc.and_(pc.is_valid(table["crop"]), pc.invert(pc.is_in(table["crop"], value_set=there)))
    unread = pc.fill_null(pc.not_equal(table["fault"], NO_FACE), fill_value=False)
    again = table.filter(pc.or_(lost, unread))["sha256"]
    return table.filter(pc.invert(pc.is_in(table["sha256"], value_set=again.combine_chunks())))


def _as_said(rows: pa.Table, blobs: list[Blob]) -> pa.Table:
    """The rows of pictures whose posts still say the same of their being cropped already."""
    cropped = {blob.sha256 for blob in blobs if blob.cropped}
    said = pa.array([sha256 in cropped for sha256 in rows["sha256"].to_pylist()], pa.bool_())
    return rows.filter(pc.equal(rows["cropped"], said))


def _crops_there(store: Store, digit: str) -> set[str]:
    return {name for second in DIGITS for name in store.files(f"crops/{digit}{second}")}


def _crop(store: Store, settings: FaceSettings, blob: Blob) -> list[dict[str, Any]]:
    same = {"sha256": blob.sha256, "cropped": blob.cropped}
    path = blob_path(blob.sha256, blob.ext)
    if not store.exists(path):
        return [{**same, "fault": f"{path} is not there; crawl again"}]
    try:
        picture = decode(store.read_bytes(path), where=path)
    except UnreadablePicture as error:
        return [{**same, "fault": str(error)}]
    here = replace(settings, cropped=settings.cropped or blob.cropped)
    found = faces_on(picture, blob.sha256, here)
    for face in found:
        _write(store, face)
    return [{**same, **face.row} for face in found] or [{**same, "fault": NO_FACE}]


def _write(store: Store, face: Face) -> None:
    if face.crop is None:
        return
    written, png = cv2.imencode(".png", cv2.cvtColor(face.crop, cv2.COLOR_RGB2BGR))
    if not written:
        raise StoreError(f"{store.url(face.row['crop'])}: the crop could not be coded as PNG")
    # No fsync: after a power cut a spoilt crop is found by its sha256 and made again.
    store.write_bytes(face.row["crop"], png.tobytes(), durable=False)
