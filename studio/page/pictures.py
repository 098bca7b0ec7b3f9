"""Pictures as PNG files for the page; what is being edited is drawn and made larger only once."""

import io

from PIL import Image

from dataset.decode import Picture, decode
from models.sampling.png import png_bytes
from studio.drawing import Avatar
from studio.edits import apply_edits, edited_size
from studio.kept import KeptPictures
from studio.limits import UPLOAD_MAX_PIXELS
from studio.page.bench import Look
from studio.page.files import Files
from studio.png_settings import made_from_facts, recipe_facts, upscale_text
from studio.recipe import Recipe
from studio.studio import Studio
from studio.upscaling import upscale

KEPT_BYTES = 64 * 2**20  # of uploaded pictures without their edits, for all visitors together


class Pictures:
    """Makes the files of pictures; for any number of threads."""

    def __init__(self, studio: Studio, files: Files) -> None:
        self._studio = studio
        self._files = files
        self._kept = KeptPictures(KEPT_BYTES)

    def avatar(self, avatar: Avatar, name: str) -> str:
        """Returns the path of the PNG of a picture that has just been drawn."""
        return self._files.keep(self._png(avatar.recipe, avatar.picture), name)

    def drawn(self, recipe: Recipe) -> bytes:
        """Returns the PNG of a recipe; where only the edits have changed, nothing is drawn anew."""
        return self._studio.png(recipe)

    def sent(self, path: str, name: str, look: Look) -> bytes:
        """Returns the PNG of an uploaded picture with a look; it says what was done to it.

        Raises UnreadablePicture for what is no picture, UsageError for one that grows too large.
        """
        content, _ = self._files.sent(path)
        key = (path, look.upscale, look.denoise)
        picture = self._kept.get(key)
        if picture is None:
            picture = decode(content, where=name, max_pixels=UPLOAD_MAX_PIXELS)
            if look.upscale > 1:
                picture = upscale(picture, look.upscale, denoise=look.denoise)
            self._kept.put(key, picture)
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


def size_of(content: bytes) -> tuple[int, int]:
    """Returns width and height of a PNG of ours, px."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        return opened.size
