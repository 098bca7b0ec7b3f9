"""Fetches one pinned file: from allowed hosts, of a known size and sha256, whole or not at all."""

import contextlib
import dataclasses
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import urlsplit

from dataset.errors import TrainingError
from dataset.progress import progress

TIMEOUT_S = 30.0  # without a byte
PIECE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class PinnedFile:
    """A file that never changes.

    Attributes:
        url: where it is published.
        sha256, size_bytes: of its content.
        hosts: all that it may come from, those of redirects too.
        schemes: of the addresses.

    """

    url: str
    sha256: str
    size_bytes: int
    hosts: frozenset[str]
    schemes: frozenset[str] = frozenset({"https"})

    @property
    def name(self) -> str:
        """The last part of its address."""
        return urlsplit(self.url).path.rpartition("/")[2]


def require_pinned(path: Path, file: PinnedFile) -> None:
    """Raises TrainingError with both sizes or digests unless `path` holds the pinned file."""
    try:
        size = path.stat().st_size
        if size != file.size_bytes:
            raise TrainingError(
                f"{path} has {size:,} bytes, {file.name} {file.size_bytes:,}: it is another file "
                f"or not whole. Its sha256 is {_sha256(path)}, {file.sha256} is wanted."
            )
        found = _sha256(path)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from error
    if found != file.sha256:
        raise TrainingError(
            f"{path} has the sha256 {found}, {file.name} has {file.sha256}: it is another file"
        )


def fetched(file: PinnedFile, folder: Path) -> Path:
    """Returns the path of the file in `folder`, fetched there if it is not there yet.

    It comes under a temporary name and takes its own only once its sha256 is right. Raises
    TrainingError if the network, the server or a digest fails; it says where to put the file by
    hand.
    """
    path = folder / file.name
    if path.exists():
        require_pinned(path, file)
        return path
    by_hand = (
        f"Without network, bring the file ({file.size_bytes:,} bytes, sha256 {file.sha256}) from "
        f"elsewhere and put it at {path}."
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder, path) as partial:
            _copy(file, partial)
    except TrainingError as error:
        raise TrainingError(f"{error}. {by_hand}") from error
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise TrainingError(f"{file.url} cannot be fetched: {cause}. {by_hand}") from error
    return path


@contextlib.contextmanager
def _temporary(folder: Path, path: Path) -> Iterator[BinaryIO]:
    """Yields a new file that becomes `path` at the end, or nothing after an exception."""
    partial = folder / f".{path.name}.{uuid.uuid4().hex}.part"
    try:
        with partial.open("xb") as content:
            yield content
            content.flush()
            os.fsync(content.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _copy(file: PinnedFile, into: BinaryIO) -> None:
    """Writes the file's content; raises TrainingError if it is another than the pinned one."""
    _require_allowed(file.url, file)
    opener = urllib.request.build_opener(_CheckedRedirects(file))
    request = urllib.request.Request(file.url, headers={"User-Agent": "omokage"})
    digest, size = hashlib.sha256(), 0
    with (
        opener.open(request, timeout=TIMEOUT_S) as answer,
        progress(f"fetch {file.name}", file.size_bytes, unit="bytes") as advance,
    ):
        while piece := answer.read(PIECE_BYTES):
            size += len(piece)
            if size > file.size_bytes:
                break
            digest.update(piece)
            into.write(piece)
            advance(len(piece))
    if size != file.size_bytes:
        found = "goes on after them" if size > file.size_bytes else f"ended after {size:,}"
        raise TrainingError(f"{file.url} should have {file.size_bytes:,} bytes; it {found}")
    if digest.hexdigest() != file.sha256:
        raise TrainingError(
            f"{file.url} sent a file with the sha256 {digest.hexdigest()}, {file.sha256} is wanted"
        )


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to allowed places alone."""

    def __init__(self, file: PinnedFile) -> None:
        self._file = file

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _require_allowed(newurl, self._file)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_allowed(url: str, file: PinnedFile) -> None:
    parts = urlsplit(url)
    if parts.scheme not in file.schemes:
        raise TrainingError(
            f"{file.name} leads to {parts.scheme}://{parts.hostname}, "
            f"{' or '.join(sorted(file.schemes))} wanted; refused"
        )
    if parts.hostname not in file.hosts:
        raise TrainingError(
            f"{file.name} leads to the host {parts.hostname}, which is none of "
            f"{', '.join(sorted(file.hosts))}; refused"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
