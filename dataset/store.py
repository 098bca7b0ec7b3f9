"""The store: every file of the chain under three roots, through fsspec, written atomically.

A local root gets temporary name, fsync and rename; an object store shows an object only when it is
whole, so a plain put has the same effect there.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
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
UNFINISHED_MOVE = ".move"  # a file at the target of `omokage move`, which says from where
# What a root is named by. The home stands for each of the three that is not set.
HOME, DATA, STATE, SCRATCH = "OMOKAGE_HOME", "OMOKAGE_DATA", "OMOKAGE_STATE", "OMOKAGE_SCRATCH"
DEFAULT_HOME = "var"
_MD5 = 32  # hex digits: the ETag of an object that came in one part
_CLIENTS = ("aiobotocore", "aiohttp", "botocore")  # of buckets: their errors are no OSError


class Listed(NamedTuple):
    """A file of a listing: path, bytes, time of writing, md5 (hex; "": the storage has none)."""

    path: str
    size: int
    written_ns: int
    md5: str


class FileFacts(NamedTuple):
    """What a listing says of a file; a link, or anything else that is no file, has no size."""

    size_bytes: int
    modified_s: float  # seconds since 1970
    is_file: bool = True


class Files:
    """Files by relative path under `root`: what `Store` and `LocalFolder` have in common.

    Raises StoreError, naming the path and the remedy, when the root cannot be read or written.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root).rstrip("/") or "/"
        # Without the cache of listings: other processes write too.
        options = {"use_listings_cache": False} if "://" in self.root else {}
        try:
            self._fs, self._base = fsspec.core.url_to_fs(self.root, **options)
        except (ValueError, ImportError) as error:  # an unknown protocol, or one not installed
            hint = "; install omokage[s3]" if self.root.startswith("s3://") else ""
            raise StoreError(f"{self.root} is no place of files: {error}{hint}") from error
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.root,))

    def url(self, path: str) -> str:
        """Returns the full address of `path`, as printed for people and put into metadata."""
        return f"{self._base}/{path}" if self._is_local else f"{self.root}/{path}"

    def exists(self, path: str) -> bool:
        """Tells whether a file or folder is there."""
        with self.explained(path):  # a server that does not answer is no missing file
            if not self._is_local:
                return bool(self._fs.exists(self._full(path)))
            # Not by fsspec: it takes whatever is raised, a Ctrl-C too, for "not there".
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                Path(self._full(path)).stat()
                return True
        return False

    def size(self, path: str) -> int | None:
        """Returns how many bytes a file has; None if there is no such file."""
        with self.explained(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if self._is_local:  # not by fsspec: it takes 25 times as long
                status = Path(self._full(path)).stat()
                return status.st_size if stat.S_ISREG(status.st_mode) else None
            found = self._fs.info(self._full(path))
            return int(found["size"]) if found["type"] == "file" else None
        return None

    def open(self, path: str) -> IO[bytes]:
        """Opens a file for reading, seekable; raises StoreError naming a missing one."""
        with self.explained(path):
            opened: IO[bytes] = self._fs.open(self._full(path), "rb")
            return opened

    def read_bytes(self, path: str) -> bytes:
        """Reads a whole file; raises StoreError naming a missing one."""
        if self._is_local:
            with self.open(path) as file:
                return file.read()
        with self.explained(path):
            content: bytes = self._fs.cat_file(self._full(path))  # one request, not three
            return content

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

    def write_json(self, path: str, value: Any) -> None:
        """Writes `value` as JSON with sorted keys, atomically."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        self.write_bytes(path, f"{text}\n".encode())

    @contextlib.contextmanager
    def writing(self, path: str, *, durable: bool = True) -> Iterator[IO[bytes]]:
        """Yields a binary file that becomes `path` only when the block ends without an error."""
        if not self._is_local:
            # Gathered first: an object store shows what was written so far even after an error.
            with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as file:
                yield file
                file.seek(0)
                with self.explained(path):
                    self._put(path, file)
            return
        target = Path(self._full(path))
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

    def _put(self, path: str, file: Any) -> None:
        target = self._fs.open(self._full(path), "wb")
        try:
            shutil.copyfileobj(file, target, 2**20)
        except BaseException:
            target.discard()  # closed, it would become the file
            raise
        target.close()

    def remove(self, path: str) -> None:
        """Removes a file or a whole folder; a missing one is fine."""
        with self.explained(path):
            try:
                if self.exists(path):
                    self._fs.rm(self._full(path), recursive=True)
            except FileNotFoundError:  # somebody else has removed it meanwhile
                if self.exists(path):
                    raise

    def move(self, path: str, target: str) -> None:
        """Moves a file; to another file system, and in an object store, it is copied first."""
        with self.explained(target):
            if self._is_local:
                to = Path(self._full(target))
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(self._full(path), to)
            else:
                self._fs.cp_file(self._full(path), self._full(target))
                self._fs.rm_file(self._full(path))

    def files(self, folder: str) -> list[str]:
        """Lists all files below `folder` but hidden and unfinished ones, by path under the root.

        Sorted; [] if the folder is not there.
        """
        found = self._found(folder, links=True)
        return sorted(name for name in found if not _is_hidden(name))

    def all_files(self, *, but: Collection[str] = ()) -> list[str]:
        """Lists all files, hidden ones too; but: folders that are left out. Follows no links."""
        return self._found("", but=but)

    def _found(self, folder: str, *, but: Collection[str] = (), links: bool = False) -> list[str]:
        with self.explained(folder):
            found = self._found_in(self._full(folder).rstrip("/"), but, links=links)
        start = len(self._base) + 1
        return [name[start:] for name in found]

    def _found_in(self, full: str, but: Collection[str], *, links: bool) -> list[str]:
        if not self._is_local or Path(full).is_file():
            listed: list[str] = self._fs.find(full)
            skipped = tuple(f"{full}/{name}/" for name in but)
            return [name for name in listed if not (but and name.startswith(skipped))]
        # Not by fsspec, which looks at each file's size: 50 µs a file instead of 2.
        found = []
        for path, folders, names in os.walk(full):
            if path == full:
                folders[:] = [name for name in folders if name not in but]
            linked = [name for name in folders if links and Path(path, name).is_symlink()]
            found += [f"{path}/{name}" for name in (*names, *linked)]
        return found

    def objects(self, folder: str, *, deep: bool = True) -> Iterator[Listed]:
        """Yields the files below a folder, hidden ones too, by one listing.

        deep: also those of its folders.
        """
        start, full = len(self._base) + 1, self._full(folder).rstrip("/")
        if self._is_local:
            with self.explained(folder):
                # Links lead to volumes of their own. A folder that cannot be read is an error.
                for path, folders, names in os.walk(full, onerror=_raised, followlinks=True):
                    for name in names:
                        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                            status = Path(path, name).stat()
                            where = f"{path}/{name}"[start:]
                            yield Listed(where, status.st_size, status.st_mtime_ns, "")
                    wanted = [name for name in folders if deep and name != "lost+found"]
                    folders[:] = wanted
            return
        with self.explained(folder):
            found = self._fs.find(full, maxdepth=None if deep else 1, detail=True)
        for name, one in sorted(found.items()):
            written = one.get("LastModified") or one.get("created")
            md5 = one.get("ETag", "").strip('"')
            yield Listed(
                name[start:],
                int(one["size"]),
                int(written.timestamp() * 1e9),
                md5 if len(md5) == _MD5 else "",
            )

    def details(self, folder: str) -> dict[str, FileFacts]:
        """Returns the facts of all that is below `folder` but folders, by path under the root.

        Hidden and unfinished files are there too; {} if the folder is not. Links are not followed.
        """
        if not self._is_local:
            listed = self.objects(folder)
            return {one.path: FileFacts(one.size, one.written_ns / 1e9) for one in listed}
        facts = {}
        for path in self._found(folder, links=True):
            with self.explained(path), contextlib.suppress(FileNotFoundError):  # replaced meanwhile
                one = Path(self._full(path)).lstat()
                is_file = stat.S_ISREG(one.st_mode)
                facts[path] = FileFacts(one.st_size, one.st_mtime, is_file)
        return facts

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
        """Raises StoreError, naming `path` and the remedy, for an OSError of the block.

        For an object store, also for an error of its client.
        """
        try:
            yield
        except FileNotFoundError as error:
            why = f" ({error})" if "bucket does not exist" in str(error) else ""
            raise StoreError(f"{self.url(path)} is not there{why}") from error
        except OSError as error:
            said = error.strerror or str(error)
            remedy = _REMEDY.get(error.errno or 0, said) if self._is_local else said
            raise StoreError(f"{self.url(path)}: {remedy}") from error
        except Exception as error:
            if self._is_local or type(error).__module__.partition(".")[0] not in _CLIENTS:
                raise
            raise StoreError(f"{self.url(path)}: the object store failed: {error}") from error


class LocalFolder(Files):
    """A folder of this machine: what SQLite, locks, memory maps and logs need.

    Raises StoreError for the address of an object store.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(root)
        if not self._is_local:
            raise StoreError(f"{self.root}: a local folder is needed here, not an object store")

    def local(self, path: str) -> Path:
        """Returns `path` as a local file path."""
        return Path(self._full(path))

    def make_folder(self, path: str) -> Path:
        """Makes the folder `path` under the root and returns it."""
        folder = self.local(path)
        with self.explained(path):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def append_bytes(self, path: str, content: bytes) -> None:
        """Adds to the end of a file; a kill may leave the first part of `content`."""
        target = self.local(path)
        with self.explained(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("ab") as file:
                file.write(content)


class Store(Files):
    """The data root of a home (a folder or any fsspec URL such as `s3://bucket/home`).

    Beside it are the home's two local roots, by default that same folder: `state`, with the ledger,
    locks and embedded databases, and `scratch`, with what can be built again.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        state: str | os.PathLike[str] = "",
        scratch: str | os.PathLike[str] = "",
    ) -> None:
        super().__init__(root)
        self._state, self._scratch = os.fspath(state), os.fspath(scratch)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_store, (self.root, self._state, self._scratch))

    @property
    def folder(self) -> LocalFolder | None:
        """The data root as a folder of this machine; None: it is an object store."""
        return LocalFolder(self.root) if self._is_local else None

    @functools.cached_property
    def state(self) -> LocalFolder:
        """The local root of ledger, locks and databases; StoreError if an object store has none."""
        if not self._state and not self._is_local:
            raise StoreError(
                f"{self.root} is an object store: ledger, locks and databases need a local folder; "
                f"set {HOME} or {STATE} to one"
            )
        return LocalFolder(self._state or self.root)

    @functools.cached_property
    def scratch(self) -> LocalFolder:
        """The local root of packed sets and caches; StoreError if an object store has none."""
        return LocalFolder(self._scratch) if self._scratch else self.state

    @property
    def local_roots(self) -> list[LocalFolder]:
        """State and scratch, each if it is another folder than the roots before it."""
        found = {self.url(""): LocalFolder(self.state.root)} if self._is_local else {}
        for one in (self.state, self.scratch):
            found.setdefault(one.url(""), one)
        return [one for url, one in found.items() if url != self.url("")]

    def variables(self) -> dict[str, str]:
        """Returns the variables by which a child process opens this very store."""
        roots = {DATA: self, STATE: self.state, SCRATCH: self.scratch}
        return {name: root.url("").rstrip("/") or "/" for name, root in roots.items()}

    def create(self, path: str, content: bytes) -> bool:
        """Writes a file that must not be there; returns False, changing nothing, if it is.

        In an object store by a conditional PUT, so that of two writers one is refused.
        """
        if self._is_local:
            if self.exists(path):
                return False
            self.write_bytes(path, content)
            return True
        with self.explained(path):
            try:
                self._fs.pipe_file(self._full(path), content, mode="create")
            except FileExistsError:
                return False
        return True

    def keeps_versions(self) -> bool:
        """Tells whether the root's bucket still has versions of what was overwritten or removed."""
        if (ask := self._s3) is None:
            return False
        bucket, prefix = self._bucket
        with self.explained(""):
            if "Status" not in ask("get_bucket_versioning", Bucket=bucket):
                return False
            place: dict[str, str] = {}
            while True:
                page = ask("list_object_versions", Bucket=bucket, Prefix=prefix, **place)
                versions = page.get("Versions", [])
                if page.get("DeleteMarkers") or not all(one["IsLatest"] for one in versions):
                    return True
                if not page.get("IsTruncated"):
                    return False
                place = {name: page[f"Next{name}"] for name in ("KeyMarker", "VersionIdMarker")}

    def abort_uploads(self) -> None:
        """Removes the parts of large objects that killed writers left in the root's bucket.

        Nobody may write meanwhile.
        """
        if (ask := self._s3) is None:
            return
        bucket, prefix = self._bucket
        with self.explained(""):
            while left := ask("list_multipart_uploads", Bucket=bucket, Prefix=prefix).get(
                "Uploads"
            ):
                for one in left:
                    names = {"Key": one["Key"], "UploadId": one["UploadId"]}
                    ask("abort_multipart_upload", Bucket=bucket, **names)

    @property
    def _s3(self) -> Callable[..., Any] | None:
        return getattr(self._fs, "call_s3", None)

    @property
    def _bucket(self) -> tuple[str, str]:
        bucket, slash, prefix = self._base.partition("/")
        return bucket, prefix + slash


def _store(root: str, state: str, scratch: str) -> Store:
    return Store(root, state=state, scratch=scratch)


def open_home(home: str, environment: Mapping[str, str] | None = None) -> Store:
    """Opens a home: a folder, but for those of its roots that variables put elsewhere.

    home: "" for OMOKAGE_HOME, ./var without it. environment: default os.environ.
    """
    given = os.environ if environment is None else environment
    home = home or given.get(HOME, "")
    if not home and "://" not in given.get(DATA, ""):  # two ./var would be two ledgers of one data
        home = DEFAULT_HOME
    data, state, scratch = (given.get(name) or home for name in (DATA, STATE, SCRATCH))
    return Store(data, state=state, scratch=scratch)


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


def _raised(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # removed meanwhile, or never there
        raise error


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
