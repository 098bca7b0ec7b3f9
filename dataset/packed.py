"""Packed crops: one memory-mapped array a split and resolution, ready to be trained on."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset.cropping import pixels_sha256
from dataset.decode import Picture, decode
from dataset.errors import OmokageError
from dataset.geometry import resized
from dataset.manifest import Manifest, read_split
from dataset.progress import progress
from dataset.store import Store

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Packed:
    """One split: images uint8 [N, 3, R, R], memory-mapped, and labels uint8 [N, L] of 0 and 1."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    face_ids: list[str]
    path: Path


def pack(
    store: Store,
    manifest: Manifest,
    split: str,
    *,
    resolution_px: int,
    into: Store | None = None,
) -> Packed:
    """Returns all crops of a split at one resolution, packing them on the first call.

    The pack lies at `packed/<digest>/<split>-<R>.npy` in `into`, a store in a local folder (by
    default `store` itself). Every crop is checked against its sha256; OmokageError names one that
    is missing or has changed.
    """
    rows = read_split(store, manifest, split)
    path = f"packed/{manifest.digest}/{split}-{resolution_px}.npy"
    local = (into or store).local(path)
    if not local.exists():
        _write(store, rows, into or store, path, resolution_px=resolution_px)
    images = np.load(local, mmap_mode="r")
    shape = (rows.num_rows, 3, resolution_px, resolution_px)
    if images.shape != shape or images.dtype != np.uint8:
        raise OmokageError(
            f"{local} is {images.dtype} {list(images.shape)}; uint8 {list(shape)} wanted. "
            "Remove it; it is packed again."
        )
    return Packed(images, _label_rows(rows, manifest.labels), rows["face_id"].to_pylist(), local)


def _write(store: Store, rows: pa.Table, into: Store, path: str, *, resolution_px: int) -> None:
    shape = (rows.num_rows, 3, resolution_px, resolution_px)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with (
        progress("pack", rows.num_rows, unit="crops") as advance,
        _threads() as threads,
        into.writing(path) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for batch in rows.select(["crop", "crop_sha256"]).to_batches(max_chunksize=_ROWS_AT_ONCE):
            crops = threads.map(
                lambda row: _planes(store, row["crop"], row["crop_sha256"], resolution_px),
                batch.to_pylist(),
            )
            for planes in crops:
                file.write(planes)
            advance(batch.num_rows)


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads are enough: decoding and resizing let go of the interpreter's lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        yield threads


def _planes(store: Store, crop: str, sha256: str, resolution_px: int) -> bytes:
    """One crop, checked and resized, as the bytes of [3, R, R]."""
    pixels = _checked(store, crop, sha256)
    return resized(pixels, resolution_px).transpose(2, 0, 1).tobytes()


def _checked(store: Store, crop: str, sha256: str) -> Picture:
    pixels = decode(store.read_bytes(crop), where=store.url(crop))
    found = pixels_sha256(pixels)
    if found != sha256:
        raise OmokageError(
            f"{store.url(crop)}: its pixels have the sha256 {found}, the manifest says {sha256}. "
            "It was made with other settings since, or is damaged: remove it, then build faces and "
            "manifest again."
        )
    return pixels


def _label_rows(rows: pa.Table, labels: list[str]) -> npt.NDArray[np.uint8]:
    columns = [rows[label].to_numpy(zero_copy_only=False) for label in labels]
    return np.ascontiguousarray(np.stack(columns, axis=1).astype(np.uint8))
