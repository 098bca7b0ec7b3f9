"""The files of one server: pictures it made, pictures it was sent; all in one temporary folder."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UsageError
from studio.limits import UPLOAD_MAX_BYTES

KEPT_S = 2 * 3600  # a picture that a page still shows is younger, or was made anew
LOOK_EVERY_S = 600


@dataclass(frozen=True)
class Files:
    """A folder that files are served from; nothing outside of it is ever read or served."""

    folder: Path

    def keep(self, content: bytes, name: str) -> str:
        """Writes the content once, whatever the number of those who ask; returns its path.

        The file gets a folder of its own, named by the content's sha256, so that `name` is what a
        browser calls the download. Written under another name first: a reader never sees half.
        """
        path = self.folder / hashlib.sha256(content).hexdigest()[:32] / name
        if path.exists():
            os.utime(path)  # wanted again: it stays for another KEPT_S
            return str(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
        return str(path)

    def films(self, name: str) -> tuple[Path, Path]:
        """Returns the paths of an MP4 and a GIF, not there yet, in a new folder."""
        room = Path(tempfile.mkdtemp(dir=self.folder))
        return room / f"{name}.mp4", room / f"{name}.gif"

    def sent(self, sent: object) -> tuple[bytes, str]:
        """Returns the content and the name of an uploaded picture: a path, or what stands for it.

        Only what was uploaded is read: raises UsageError for any path outside of the folder, for
        an address, and for a file above the upload limit.
        """
        path, name = _path_and_name(sent)
        real = Path(path).resolve()
        if not real.is_relative_to(self.folder.resolve()) or not real.is_file():
            raise UsageError(
                "a picture must be uploaded to be read: no other path and no address is opened"
            )
        if real.stat().st_size > UPLOAD_MAX_BYTES:
            raise UsageError(
                f"{name} has {real.stat().st_size:,} bytes; at most {UPLOAD_MAX_BYTES:,} are taken"
            )
        return real.read_bytes(), name


def _path_and_name(sent: object) -> tuple[str, str]:
    if not isinstance(sent, Mapping):
        sent = {"path": sent}
    path, name = sent.get("path"), sent.get("orig_name")
    if not isinstance(path, str) or not path:
        raise UsageError("no picture was uploaded")
    return path, name if isinstance(name, str) and name else Path(path).name


@contextlib.contextmanager
def temporary_files() -> Iterator[Files]:
    """Makes the folder for the time of the block, readable by nobody else, and removes it."""
    folder = Path(tempfile.mkdtemp(prefix="omokage-studio-"))
    try:
        yield Files(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
