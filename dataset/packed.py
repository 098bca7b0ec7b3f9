"""Packed crops: one memory-mapped array a split and resolution, ready to be trained on."""

import contextlib
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset.crops import Crops
from dataset.decode import Picture
from dataset.errors import StoreError
from dataset.geometry import resized
from dataset.manifest import Manifest, read_split
from dataset.progress import progress
from dataset.store import LocalFolder, Store, file_lock, sync_folder

_ROWS_AT_ONCE = 256
_READ_BYTES = 2**22
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packed:
    """One split: images uint8 [N, 3, R, R], memory-mapped, and labels uint8 [N, L] of 0 and 1."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    face_ids: list[str]
    path: Path


@dataclass(frozen=True)
class _Seal:
    """What is known of a file of pictures: it is whole as long as size and time stand."""

    rows: int
    sha256: str  # of the whole file
    size_bytes: int
    mtime_ns: int


def pack(
    store: Store,
    manifest: Manifest,
    split: str,
    *,
    resolution_px: int,
) -> Packed:
    """Returns all crops of a split at one resolution, packing them on the first call.

    The pack lies at `packed/<digest>/<split>-<R>.npy` of the scratch root. A process
    that finds another one packing waits for it; an interrupted pack resumes where it stopped; a
    damaged one is packed again. Every crop is checked against its sha256; OmokageError names one
    that is missing or has changed.
    """
    rows = read_split(store, manifest, split)
    path = f"packed/{manifest.digest}/{split}-{resolution_px}.npy"
    place = store.scratch
    local = place.local(path)
    header = _header(rows.num_rows, resolution_px)
    if not _is_whole(place, path, header):
        place.make_folder(f"packed/{manifest.digest}")
        with _alone(place, f"{path}.lock"):
            _repack(store, place, path, rows=rows, resolution_px=resolution_px)
    images = np.load(local, mmap_mode="r")
    return Packed(images, _label_rows(rows, manifest.labels), rows["face_id"].to_pylist(), local)


def _repack(
    store: Store, place: LocalFolder, path: str, *, rows: pa.Table, resolution_px: int
) -> None:
    """Packs unless another process has just done it; takes a damaged pack away."""
    header = _header(rows.num_rows, resolution_px)
    if _is_whole(place, path, header):
        return
    if place.exists(path):
        _log.warning("%s is damaged; it is packed again", place.url(path))
        place.remove(path)
    _Packing(store, place, path, resolution_px, header).run(rows)


@contextlib.contextmanager
def _alone(place: LocalFolder, path: str) -> Iterator[None]:
    """Holds the lock of a pack."""
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(file_lock(place.local(path)))
        except OSError as error:
            raise StoreError(f"{place.url(path)}: {error.strerror or error}") from error
        yield


def _header(rows: int, resolution_px: int) -> bytes:
    shape = (rows, 3, resolution_px, resolution_px)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


def _is_whole(place: LocalFolder, path: str, header: bytes) -> bool:
    """Whether a pack is as it was sealed. Its bytes are read only if its time has changed."""
    local = place.local(path)
    seal = _read_seal(place, path)
    if seal is None or not local.exists() or local.stat().st_size != seal.size_bytes:
        return False
    with local.open("rb") as file:
        if file.read(len(header)) != header:
            return False
    if local.stat().st_mtime_ns == seal.mtime_ns:
        return True
    if _sha256(local, seal.size_bytes).hexdigest() != seal.sha256:
        return False
    _write_seal(place, path, _Seal(**{**asdict(seal), "mtime_ns": local.stat().st_mtime_ns}))
    return True


@dataclass(frozen=True)
class _Packing:
    """Packs into `<path>.part`, whose seal says how many rows are safely in it."""

    store: Store
    place: LocalFolder
    path: str
    resolution_px: int
    header: bytes

    def run(self, rows: pa.Table) -> None:
        """Writes all rows that are not yet there, then gives the file its name."""
        part = f"{self.path}.part"
        local = self.place.local(part)
        done, content = self._resumed(part)
        with (
            progress("pack", rows.num_rows, unit="crops") as advance,
            _threads() as threads,
            local.open("r+b" if done is not None else "wb") as file,
        ):
            if done is None:
                done = 0
                file.write(self.header)
                content.update(self.header)
            else:
                file.seek(0, os.SEEK_END)
            advance(done)
            crops = Crops(self.store)
            left = rows.select(["face_id", "crop", "crop_sha256"]).slice(done)
            for batch in left.to_batches(max_chunksize=_ROWS_AT_ONCE):
                for planes in threads.map(self._planes, crops.pixels(batch)):
                    file.write(planes)
                    content.update(planes)
                done += batch.num_rows
                _sync(file)
                _write_seal(self.place, part, _seal_of(local, done, content.hexdigest()))
                advance(batch.num_rows)
        self._finish(part, done, content.hexdigest())

    def _finish(self, part: str, rows: int, sha256: str) -> None:
        """The seal goes first: a pack without one would be taken for damaged."""
        local = self.place.local(part)
        _write_seal(self.place, self.path, _seal_of(local, rows, sha256))
        local.replace(self.place.local(self.path))
        sync_folder(local.parent)
        self.place.remove(_seal_path(part))

    def _resumed(self, part: str) -> tuple[int | None, Any]:
        """The rows that an interrupted pack left, if they are as they were, and their sha256."""
        local = self.place.local(part)
        seal = _read_seal(self.place, part)
        if seal is None or not local.exists() or local.stat().st_size < seal.size_bytes:
            return None, hashlib.sha256()
        with local.open("rb") as file:
            of_this_set = file.read(len(self.header)) == self.header
        content = _sha256(local, seal.size_bytes)
        if not of_this_set or content.hexdigest() != seal.sha256:
            return None, hashlib.sha256()
        os.truncate(local, seal.size_bytes)  # what came after the last seal is not known
        return seal.rows, content

    def _planes(self, pixels: Picture) -> bytes:
        """One crop, resized, as the bytes of [3, R, R]."""
        return resized(pixels, self.resolution_px).transpose(2, 0, 1).tobytes()


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads are enough: resizing lets go of the interpreter's lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        yield threads


def _seal_path(path: str) -> str:
    return f"{path}.json"


def _seal_of(local: Path, rows: int, sha256: str) -> _Seal:
    stat = local.stat()
    return _Seal(rows, sha256, stat.st_size, stat.st_mtime_ns)


def _write_seal(place: LocalFolder, path: str, seal: _Seal) -> None:
    place.write_json(_seal_path(path), asdict(seal))


def _read_seal(place: LocalFolder, path: str) -> _Seal | None:
    """The seal of a file; None if there is none or it is damaged itself."""
    if not place.exists(_seal_path(path)):
        return None
    try:
        return _Seal(**json.loads(place.read_bytes(_seal_path(path))))
    except (TypeError, ValueError):  # no seal of ours: the file counts as damaged
        return None


def _sha256(local: Path, size_bytes: int) -> Any:
    """The running sha256 of a file's first bytes."""
    content = hashlib.sha256()
    with local.open("rb") as file:
        left = size_bytes
        while left and (read := file.read(min(left, _READ_BYTES))):
            content.update(read)
            left -= len(read)
    return content


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _label_rows(rows: pa.Table, labels: list[str]) -> npt.NDArray[np.uint8]:
    columns = [rows[label].to_numpy(zero_copy_only=False) for label in labels]
    return np.ascontiguousarray(np.stack(columns, axis=1).astype(np.uint8))
