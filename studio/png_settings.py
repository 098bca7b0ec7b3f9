"""A picture's recipe in its own PNG: written as texts for people, read back as settings."""

import hashlib
from collections.abc import Mapping

from dataset.decode import Picture, UnreadablePicture, decode
from dataset.errors import UsageError
from models.io.safe_io import shown
from studio.limits import UPLOAD_MAX_BYTES, UPLOAD_MAX_PIXELS
from studio.png_texts import png_texts
from studio.recipe import Recipe

SOFTWARE = "Omokage"  # what models.sampling.png says too, which needs torch
PREFIX = "omokage "
LINK = f"{PREFIX}link"
NONE = "none"

Facts = Mapping[str, str | None]  # texts by name; None: damaged


def recipe_facts(recipe: Recipe, *, model: str, digest: str) -> dict[str, str]:
    """Returns what the PNG of a recipe says, as texts by name, for `models.sampling.png.png_bytes`.

    model: its name for people, "avatar-generator version 3"; digest: of its weights, 64 hex.
    All but "omokage link" is for people; the link is what is read back.
    """
    facts = {
        "model": model,
        "generator": digest,
        "seed": str(recipe.seed),
        "labels": ", ".join(recipe.labels) or NONE,
        "psi": f"{recipe.psi:g}",
        "noise": recipe.noise,
        "upscale": upscale_text(recipe.upscale, recipe.denoise),
        "edits": recipe.edits.to_text() or NONE,
        "link": recipe.to_query(),
    }
    return {"Software": SOFTWARE, **{f"{PREFIX}{name}": text for name, text in facts.items()}}


def made_from_facts(content: bytes, **done: str) -> dict[str, str]:
    """Returns what a PNG says that was made from another file: its sha256, and what was done.

    content: the other file's bytes; done: `edits="rotate=90"`, `upscale="2x"`. There is no link
    among them, since the settings of a drawing do not make this picture.
    """
    made = {"source": f"sha256:{hashlib.sha256(content).hexdigest()}", **done}
    return {"Software": SOFTWARE, **{f"{PREFIX}{name}": text for name, text in made.items()}}


def upscale_text(factor: int, denoise: int) -> str:
    """Returns an upscaling for people: "none", "2x" or "2x, denoise 1"."""
    if factor == 1:
        return NONE
    return f"{factor}x" if denoise < 0 else f"{factor}x, denoise {denoise}"


def open_picture(
    content: bytes,
    *,
    where: str,
    max_bytes: int = UPLOAD_MAX_BYTES,
    max_pixels: int = UPLOAD_MAX_PIXELS,
) -> tuple[Picture, Facts]:
    """Decodes a file of unknown origin; returns the picture [H,W,3] and our texts in it, by name.

    The texts are {} for another program's file; None stands for one that is damaged or there
    twice. The size of the file, what is packed in it and its pixels are counted before they are
    decoded; then every pixel is. Raises UnreadablePicture, naming `where` and the fault, for
    anything but one whole still picture.
    """
    if len(content) > max_bytes:
        raise UnreadablePicture(
            f"{where}: {len(content):,} bytes; at most {max_bytes:,} are taken for a picture"
        )
    texts = png_texts(content, where=where, prefix=PREFIX)
    picture = decode(content, where=where, max_pixels=max_pixels)
    facts: dict[str, str | None] = {}
    for name, text in texts:
        facts[name] = None if name in facts else text  # twice: nobody can say which is meant
    return picture, facts


def recipe_of_png(content: bytes, *, where: str) -> Recipe | None:
    """Returns the recipe that an uploaded picture carries; None if it is a picture without one.

    where: what the file is called in errors. Raises UnreadablePicture for anything but one whole
    still picture of at most 10 MiB and 4 megapixels, and UsageError for damaged settings.
    """
    _, facts = open_picture(content, where=where)
    return recipe_of_facts(facts, where=where)


def recipe_of_facts(facts: Facts, *, where: str) -> Recipe | None:
    """Returns the recipe among the texts of `open_picture`; None if there is no link among them.

    Raises UsageError if the link is damaged.
    """
    if LINK not in facts:
        return None
    link = facts[LINK]
    if link is None:
        raise UsageError(
            f"{where}: its settings are damaged, so that they cannot be brought back; the picture "
            "itself is whole"
        )
    try:
        return Recipe.from_query(link)
    except UsageError as error:
        raise UsageError(
            f"{where}: its settings are damaged or of another version, so that they cannot be "
            f"brought back: {error} (the link is {shown(link)})"
        ) from error
