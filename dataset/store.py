"""The store: every file of the chain under one root, through fsspec, written atomically.

A local root gets temporary name, fsync and rename; an object store shows an object only when it is
whole, so a plain put has the same effect there.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from dataset.errors import StoreError

_REMEDY = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "it is read-only; set OMOKAGE_HOME to a folder that can be written",
    errno.EACCES: "it may not be written; set OMOKAGE_HOME to a folder that can be written",
    errno.EPERM: "it may not be written; set OMOKAGE_HOME to a folder that can be written",
    errno.ENOTDIR: "a part of the path is a file; set OMOKAGE_HOME to a folder",
    errno.EEXIST: "a part of the path is a file or a link that leads nowhere; is a volume missing?",
}

SPOOL_BYTES = 64 * 2**20  # what is gathered in memory for an object store; beyond, on disk
BLOBS = "blobs"  # the folder of the originals


class FileFacts(NamedTuple):
    """What a listing says of a file; a link, or anything else that is no file, has no size."""

    size_bytes: int
    modified_s: float  # seconds since 1970
    is_file: bool = True


class Store:
    """Files by relative path under `root` (a folder or any fsspec URL such as `s3://bucket/home`).

    Raises StoreError, naming the path and the remedy, when the root cannot be read or written.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root).rstrip("/") or "/"
        try:
            self._fs, self._base = fsspec.core.url_to_fs(self.root)
        except (ValueError, ImportError) as error:  # an unknown protocol, or one not installed
            raise StoreError(f"{self.root} is no place of files: {error}") from error
        self.is_local = isinstance(self._fs, LocalFileSystem)

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return (Store, (self.root,))

    def url(self, path: str) -> str:
        """Returns the full address of `path`, as printed for people and put into metadata."""
        return f"{self._base}/{path}" if self.is_local else f"{self.root}/{path}"

    def local(self, path: str) -> Path:
        """Returns `path` as a local file path (SQLite, memory maps) or raises StoreError."""
        if not self.is_local:
            raise StoreError(
                f"{self.url(path)}: a local folder is needed here, not an object store"
            )
        return Path(self._base) / path

    def make_folder(self, path: str) -> Path:
        """Makes the local folder `path` under the root and returns it."""
        folder = self.local(path)
        with self.explained(path):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def exists(self, path: str) -> bool:
        """Tells whether a file or folder is there."""
        return bool(self._fs.exists(self._full(path)))

    def open(self, path: str) -> IO[bytes]:
        """Opens a file for reading, seekable; raises StoreError naming a missing one."""
        with self.explained(path):
            opened: IO[bytes] = self._fs.open(self._full(path), "rb")
            return opened

    def read_bytes(self, path: str) -> bytes:
        """Reads a whole file; raises StoreError naming a missing one."""
        with self.open(path) as file:
            return file.read()

    def read_json(self, path: str) -> Any:
        """Reads a JSON file; raises StoreError naming the line that does not parse."""
        try:
            return json.loads(self.read_bytes(path))
        except ValueError as error:
            raise StoreError(f"{self.url(path)} is not JSON: {error}") from error

    def write_bytes(self, path: str, content: bytes, *, durable: bool = True) -> None:
        """Writes a file atomically; `durable=False` leaves out the fsync (a rebuildable file)."""
        with self.writing(path, durable=durable) as file:
            file.write(content)

    def append_bytes(self, path: str, content: bytes) -> None:
        """Adds to the end of a file of a local root; a kill may leave the first part of `content`.

        Raises StoreError for an object store, which cannot append.
        """
        target = self.local(path)
        with self.explained(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("ab") as file:
                file.write(content)

    def write_json(self, path: str, value: Any) -> None:
        """Writes `value` as JSON with sorted keys, atomically."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        self.write_bytes(path, f"{text}\n".encode())

    @contextlib.contextmanager
    def writing(self, path: str, *, durable: bool = True) -> Iterator[IO[bytes]]:
        """Yields a binary file that becomes `path` only when the block ends without an error."""
        if not self.is_local:
            # Gathered first: an object store shows what was written so far even after an error.
            with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as file:
                yield file
                file.seek(0)
                with self.explained(path), self._fs.open(self._full(path), "wb") as target_file:
                    shutil.copyfileobj(file, target_file)
            return
        target = self.local(path)
        with self.explained(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=target.parent)
        try:
            with self.explained(path), os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            with self.explained(path):
                Path(temporary).chmod(0o644)
                Path(temporary).replace(target)
                if durable:
                    sync_folder(target.parent)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def remove(self, path: str) -> None:
        """Removes a file or a whole folder; a missing one is fine."""
        with self.explained(path):
            if self.exists(path):
                self._fs.rm(self._full(path), recursive=True)

    def move(self, path: str, target: str) -> None:
        """Moves a file of a local root; to another file system it is copied, then removed."""
        to = self.local(target)
        with self.explained(target):
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self.local(path), to)

    def files(self, folder: str) -> list[str]:
        """Lists all files below `folder` but hidden and unfinished ones, by path under the root.

        Sorted; [] if the folder is not there.
        """
        with self.explained(folder):
            found = self._found(folder) if self.exists(folder) else []
        start = len(self._base) + 1
        return sorted(name[start:] for name in found if not _is_hidden(name))

    def _found(self, folder: str) -> list[str]:
        full = self._full(folder)
        if not self.is_local or Path(full).is_file():
            listed: list[str] = self._fs.find(full)
            return listed
        # Not by fsspec, which looks at each file's size: 50 µs a file instead of 2.
        found = []
        for path, folders, names in os.walk(Path(full)):
            links = [name for name in folders if Path(path, name).is_symlink()]
            found += [f"{path}/{name}" for name in (*names, *links)]
        return found

    def details(self, folder: str) -> dict[str, FileFacts]:
        """Returns the facts of all that is below `folder` but folders, by path under the root.

        Hidden and unfinished files are there too; {} if the folder is not.
        """
        start = len(self._base) + 1
        with self.explained(folder):
            if not self.exists(folder):
                return {}
            if self.is_local:
                facts = {}
                for path in self._found(folder):
                    with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
                        one = os.lstat(path)
                        is_file = stat.S_ISREG(one.st_mode)
                        facts[path[start:]] = FileFacts(one.st_size, one.st_mtime, is_file)
                return facts
            listed: dict[str, dict[str, Any]] = self._fs.find(self._full(folder), detail=True)
            return {
                path[start:]: FileFacts(int(one["size"]), self._fs.modified(path).timestamp())
                for path, one in listed.items()
            }

    def names(self, folder: str) -> list[str]:
        """Lists what lies directly in `folder`, by name, sorted; [] if it is not there."""
        with self.explained(folder):
            full = self._full(folder)
            found = self._fs.ls(full, detail=False) if self._fs.isdir(full) else []
        return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)

    def check_writable(self) -> None:
        """Writes and removes a small file; raises StoreError if the root cannot be written."""
        self.write_bytes(".write-check", b"")
        self.remove(".write-check")

    def _full(self, path: str) -> str:
        return f"{self._base}/{path}"

    @contextlib.contextmanager
    def explained(self, path: str) -> Iterator[None]:
        """Raises StoreError, naming `path` and the remedy, for an OSError of the block."""
        try:
            yield
        except FileNotFoundError as error:
            raise StoreError(f"{self.url(path)} is not there") from error
        except OSError as error:
            remedy = _REMEDY.get(error.errno or 0, error.strerror or str(error))
            raise StoreError(f"{self.url(path)}: {remedy}") from error


@contextlib.contextmanager
def file_lock(
    path: Path, *, timeout_s: float = -1, busy: Exception | None = None
) -> Iterator[None]:
    """Holds a lock file while the block works; the system frees it however the process ends.

    Waits for another process that holds it, for ever by default. After `timeout_s` it raises
    `busy`, or TimeoutError without one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not local to the thread: a generator may be closed by another one.
    lock = FileLock(path, timeout=timeout_s, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        if busy is None:
            raise
        raise busy from error
    try:
        yield
    finally:
        lock.release()


def _is_hidden(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")


def sync_folder(folder: Path) -> None:
    """Makes the renames in a local folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_of(value: Any) -> str:
    """Returns the sha256 (hex) of a JSON value written with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def blob_path(sha256: str, ext: str) -> str:
    """Returns the path under the home of an original, such as `blobs/ab/cd/<its sha256>.png`."""
    return f"{BLOBS}/{sha256[:2]}/{sha256[2:4]}/{sha256}.{ext}"


def tolerated(count: int) -> int:
    """Returns how many of `count` files may be missing, or belong to nothing, one by one.

    More at once are taken for a volume that is not mounted or a half-finished copy: an error.
    """
    return max(20, count // 100)


def is_outage(missing: int, count: int) -> bool:
    """Tells whether so many of `count` files are missing as no single accidents explain: or all."""
    return missing > tolerated(count) or 0 < missing == count
