"""The files of a user's set (a folder or a zip, never changed), and the lines of large files."""

import bz2
import contextlib
import gzip
import lzma
import os
import posixpath
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from dataset.errors import UsageError
from dataset.importers.records import Fault, Place, parse_json

# What reading a damaged or unreadable member or file raises.
UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)
_LITTER = {"__MACOSX", "Thumbs.db"}

# Formats that can be blobs, and others that are named as refused rather than passed over.
_PICTURES = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "avif"})
_OTHERS = frozenset({"bmp", "tif", "tiff", "heic", "heif", "jxl", "jp2", "psd", "mp4", "webm"})
# In which zips have names without saying so: those are read as cp437.
_ZIP_ENCODINGS = ("utf-8", "cp932", "gbk")


class Files(Protocol):
    """Files by relative path with `/` between its parts."""

    @property
    def name(self) -> str:
        """Name of the folder or zip, as it is shown."""
        ...

    def names(self, *, hidden: bool = False) -> Iterator[str]:
        """Yields the names of all files, sorted within each folder; hidden ones if requested."""
        ...

    def faults(self) -> list[Fault]:
        """Returns what cannot be used of the set itself, such as a member that points outside."""
        ...

    def size(self, name: str) -> int | None:
        """Returns a file's size in bytes as it is declared; None if it is not there."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading; raises one of UNREADABLE."""
        ...


def open_files(path: Path, *, option: str) -> "FolderFiles | ZipFiles":
    """Returns the files of a folder or zip; raises UsageError naming `option` for anything else."""
    if path.is_dir():
        return FolderFiles(path)
    if not path.exists():
        raise UsageError(f"{option}: {path} is not there; a folder or a zip wanted")
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{option}: {path} is neither a folder nor a zip")
    return ZipFiles(path)


def read(files: Files, name: str, *, greatest: int) -> bytes:
    """Reads a whole file of at most `greatest` bytes; raises one of UNREADABLE.

    One byte more is read of a longer file, so that its length tells.
    """
    with files.open(name) as file:
        return file.read(greatest + 1)


def is_picture(name: str) -> bool:
    """Tells whether a name is that of a picture or a video."""
    return name.rpartition(".")[2].lower() in _PICTURES | _OTHERS


def spellings(name: str) -> set[str]:
    """Returns a name in Unicode's form C, and as it is if it came from a zip that was misread."""
    found = {unicodedata.normalize("NFC", name)}
    for encoding in () if name.isascii() else _ZIP_ENCODINGS:
        with contextlib.suppress(UnicodeError):
            found.add(unicodedata.normalize("NFC", name.encode("cp437").decode(encoding)))
    return found


class FolderFiles:
    """The files below a folder; hidden folders, and folders that are links, are left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.resolve().name

    def names(self, *, hidden: bool = False) -> Iterator[str]:
        """Yields names folder by folder."""
        start = len(str(self._path)) + 1
        for folder, folders, files in os.walk(self._path):
            folders[:] = sorted(name for name in folders if not _is_litter(name))
            for name in sorted(files):
                if not _is_litter(name, hidden=hidden):
                    yield f"{folder}/{name}"[start:]

    def faults(self) -> list[Fault]:
        """A folder has none."""
        return []

    def size(self, name: str) -> int | None:
        """Returns the size of a plain file."""
        full = f"{self._path}/{name}"
        return os.path.getsize(full) if os.path.isfile(full) else None  # noqa: PTH113, PTH202

    def open(self, name: str) -> IO[bytes]:
        """Opens a file."""
        return (self._path / name).open("rb")


class ZipFiles:
    """The members of a zip, read without unpacking it to disk."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._faults: list[Fault] = []
        self._members: dict[str, zipfile.ZipInfo] = {}
        try:
            self._archive = zipfile.ZipFile(path)
        except UNREADABLE as error:
            raise UsageError(f"{path} cannot be read as a zip: {error}") from error
        for info in self._archive.infolist():
            *folders, name = info.filename.split("/")
            if info.is_dir() or any(map(_is_litter, folders)) or _is_litter(name, hidden=True):
                continue
            if (fault := _member_fault(info)) is None:
                self._members[info.filename] = info
            else:
                self._faults.append(Fault(Place(path.name), f'"{info.orig_filename}"', fault))

    def names(self, *, hidden: bool = False) -> Iterator[str]:
        """Yields all names, sorted."""
        for name in sorted(self._members):
            if not _is_litter(posixpath.basename(name), hidden=hidden):
                yield name

    def faults(self) -> list[Fault]:
        """Returns a fault for each member that is never read."""
        return self._faults

    def size(self, name: str) -> int | None:
        """Returns the unpacked size that the zip declares; no more is ever unpacked."""
        info = self._members.get(name)
        return info.file_size if info else None

    def open(self, name: str) -> IO[bytes]:
        """Opens a member."""
        if name not in self._members:
            raise FileNotFoundError(name)
        return self._archive.open(self._members[name])


def _is_litter(name: str, *, hidden: bool = False) -> bool:
    is_hidden = name.startswith(".") and name not in (".", "..")
    return (is_hidden and not hidden) or name in _LITTER


def _member_fault(info: zipfile.ZipInfo) -> str | None:
    name = info.orig_filename.replace("\\", "/")
    if name.startswith("/") or name[1:2] == ":":
        return "has an absolute path; only files inside the zip are read"
    if ".." in name.split("/") or posixpath.normpath(name) != name:
        return "points outside the zip, or is written in a roundabout way"
    if info.flag_bits & 0x1:
        return "is encrypted; zip it without a password"
    return None


MAX_LINE_BYTES = 16 * 2**20

# What reading a damaged compressed file raises.
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


def open_text(path: Path) -> IO[bytes]:
    """Opens a file for reading, unpacked as it is read if its name ends in .gz, .xz or .bz2."""
    opener = _OPENERS.get(path.suffix.lower())
    opened: IO[bytes] = opener(path, "rb") if opener else path.open("rb")
    return opened


def numbered_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Yields number and bytes of every line; None in place of one above MAX_LINE_BYTES."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield number, line
            continue
        while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield number, None


def json_lines(file: IO[bytes], name: str) -> Iterator[tuple[Place, Any]]:
    """Yields place and JSON value of each line but empty ones; a Fault where there is none."""
    for number, line in numbered_lines(file):
        place = Place(name, f"line {number}")
        if line is None:
            yield place, Fault(place, "", "is longer than any record")
        elif line.strip():
            yield place, parse_json(line, place)
