"""Pictures as PNG files for the page; what is being edited is drawn and made larger only once."""

import dataclasses
import io
import threading
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image

from dataset.decode import Picture, decode
from models.png import png_bytes
from studio.drawing import Avatar
from studio.edits import Edits, apply_edits, edited_size
from studio.limits import UPLOAD_MAX_PIXELS
from studio.page.bench import Look
from studio.page.files import Files
from studio.png_settings import made_from_facts, recipe_facts, upscale_text
from studio.recipe import Recipe
from studio.studio import Studio
from studio.upscaling import upscale

KEPT_BYTES = 128 * 2**20  # of pictures without their edits, for all visitors together


class Pictures:
    """Makes the files of pictures; for any number of threads."""

    def __init__(self, studio: Studio, files: Files) -> None:
        self._studio = studio
        self._files = files
        self._kept: OrderedDict[object, Picture] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()

    def avatar(self, avatar: Avatar, name: str) -> str:
        """Returns the path of the PNG of a picture that has just been drawn."""
        return self._files.keep(self._png(avatar.recipe, avatar.picture), name)

    def drawn(self, recipe: Recipe) -> bytes:
        """Returns the PNG of a recipe: the very bytes of `Studio.png`.

        Raises UsageError as that does; where only the edits have changed since, it does not draw.
        """
        plain = dataclasses.replace(recipe, edits=Edits())
        picture = self._once(plain, lambda: self._studio.finish(plain))
        return self._png(recipe, apply_edits(picture, recipe.edits))

    def sent(self, path: str, name: str, look: Look) -> bytes:
        """Returns the PNG of an uploaded picture with a look; it says what was done to it.

        Raises UnreadablePicture for what is no picture, UsageError for one that grows too large.
        """
        content, _ = self._files.sent(path)

        def larger() -> Picture:
            picture = decode(content, where=name, max_pixels=UPLOAD_MAX_PIXELS)
            if look.upscale == 1:
                return picture
            return upscale(picture, look.upscale, denoise=look.denoise)

        picture = self._once((path, look.upscale, look.denoise), larger)
        height, width = picture.shape[:2]
        edited_size(width, height, look.edits)
        told = made_from_facts(
            content,
            upscale=upscale_text(look.upscale, look.denoise),
            edits=look.edits.to_text() or "none",
        )
        return png_bytes(Image.fromarray(apply_edits(picture, look.edits)), told)

    def _png(self, recipe: Recipe, picture: Picture) -> bytes:
        model = self._studio.model_of(recipe)
        told = recipe_facts(recipe, model=model.name, digest=model.digest)
        return png_bytes(Image.fromarray(picture), told)

    def _once(self, key: object, make: Callable[[], Picture]) -> Picture:
        with self._guard:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        made.setflags(write=False)
        with self._guard:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += made.nbytes
            while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return made


def size_of(content: bytes) -> tuple[int, int]:
    """Returns width and height of a PNG of ours, px."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        return opened.size
