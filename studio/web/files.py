"""The files of one server, in one temporary folder, and the pictures that are made into them."""

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from dataset.decode import Picture, decode
from dataset.errors import UsageError
from models.sampling.draw import png_bytes
from studio.draw import Avatar
from studio.edits import apply_edits, edited_size
from studio.png_metadata import made_from_facts, recipe_facts, upscale_text
from studio.recipe import Recipe
from studio.service import ImageCache, Studio
from studio.upscaling import upscale
from studio.validation import UPLOAD_MAX_BYTES, UPLOAD_MAX_PIXELS
from studio.web.page_state import Drawn, Finishing

LONGEST = 60  # characters, of up to four bytes: file systems take 255


def file_name(recipe: Recipe) -> str:
    """Returns what a drawn picture's download is called: by its model and seed."""
    return f"{plain(recipe.model)}-seed-{recipe.seed}.png"


def stem_of(name: str) -> str:
    """Returns what an uploaded file is called, without folders and ending."""
    return plain(PurePath(name.replace("\\", "/")).stem) or "picture"


def plain(text: str) -> str:
    """Returns a text of letters of any script, digits, dots, dashes and underscores alone."""
    kept = (one if one.isalnum() or one in "._" else "-" for one in text)
    return "".join(kept).strip(".-")[:LONGEST]


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
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # `sweep` has just removed the folder
                handle, temporary = tempfile.mkstemp(dir=path.parent)
                break
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(path)
        return str(path)

    def films(self, name: str) -> tuple[Path, Path]:
        """Returns the paths of an MP4 and a GIF, not there yet, in a new folder."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return folder / f"{name}.mp4", folder / f"{name}.gif"

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

    def forget(self, sent: object) -> None:
        """Removes an uploaded picture that was read."""
        path, _ = _path_and_name(sent)
        real = Path(path).resolve()
        assert real.is_relative_to(self.folder.resolve()), "no uploaded picture"
        real.unlink(missing_ok=True)

    def sweep(self, *, older_than_s: float = KEPT_S) -> None:
        """Removes files that nobody wanted for so long, and folders that were empty as long."""
        before = time.time() - older_than_s
        for folder, _, names in os.walk(self.folder, topdown=False):
            for path in [Path(folder, name) for name in names]:
                with contextlib.suppress(FileNotFoundError):
                    if path.lstat().st_mtime < before:
                        path.unlink()
            with contextlib.suppress(OSError):  # not empty, or gone
                if Path(folder) != self.folder and Path(folder).stat().st_mtime < before:
                    Path(folder).rmdir()


def _path_and_name(sent: object) -> tuple[str, str]:
    if not isinstance(sent, Mapping):
        sent = {"path": sent}
    path, name = sent.get("path"), sent.get("orig_name")
    if not isinstance(path, str) or not path:
        raise UsageError("no picture was uploaded")
    return path, name if isinstance(name, str) and name else Path(path).name


@contextlib.contextmanager
def temporary_files() -> Iterator[Files]:
    """Makes the folder for the time of the block, readable by nobody else, and removes it.

    Meanwhile it is swept. Gradio's own sweep knows only files that went through a component.
    """
    files = Files(Path(tempfile.mkdtemp(prefix="omokage-studio-")))
    over = threading.Event()

    def sweep() -> None:
        while not over.wait(LOOK_EVERY_S):
            files.sweep()

    threading.Thread(target=sweep, name="sweep", daemon=True).start()
    try:
        yield files
    finally:
        over.set()
        shutil.rmtree(files.folder, ignore_errors=True)


KEPT_BYTES = 64 * 2**20  # of uploaded pictures without their edits, for all visitors together


class Pictures:
    """Makes the files of pictures; for any number of threads."""

    def __init__(self, studio: Studio, files: Files) -> None:
        self._studio = studio
        self._files = files
        self._kept = ImageCache(KEPT_BYTES)

    def avatar(self, avatar: Avatar, name: str) -> str:
        """Returns the path of the PNG of a picture that has just been drawn."""
        return self._files.keep(self._png(avatar.recipe, avatar.picture), name)

    def drawn(self, recipe: Recipe) -> bytes:
        """Returns the PNG of a recipe; where only the edits have changed, nothing is drawn anew."""
        return self._studio.png(recipe)

    def on_page(self, recipe: Recipe) -> Drawn:
        """Draws a recipe into a file for the page."""
        path = self._files.keep(self.drawn(recipe), file_name(recipe))
        return Drawn(recipe, path, self._studio.model_of(recipe).spec.resolution_px)

    def sent(self, path: str, name: str, finishing: Finishing) -> bytes:
        """Returns the PNG of an uploaded picture with a finishing; it says what was done to it.

        Raises UnreadablePicture for what is no picture, UsageError for one that grows too large.
        """
        content, _ = self._files.sent(path)
        key = (path, finishing.upscale, finishing.denoise)
        picture = self._kept.get(key)
        if picture is None:
            picture = decode(content, where=name, max_pixels=UPLOAD_MAX_PIXELS)
            if finishing.upscale > 1:
                picture = upscale(picture, finishing.upscale, denoise=finishing.denoise)
            self._kept.put(key, picture)
        height, width = picture.shape[:2]
        edited_size(width, height, finishing.edits)
        facts = made_from_facts(
            content,
            upscale=upscale_text(finishing.upscale, finishing.denoise),
            edits=finishing.edits.to_text() or "none",
        )
        return png_bytes(Image.fromarray(apply_edits(picture, finishing.edits)), facts)

    def _png(self, recipe: Recipe, picture: Picture) -> bytes:
        model = self._studio.model_of(recipe)
        facts = recipe_facts(recipe, model=model.name, digest=model.digest)
        return png_bytes(Image.fromarray(picture), facts)


def size_of(content: bytes) -> tuple[int, int]:
    """Returns width and height of a PNG of ours, px."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        return opened.size
