"""Inversion of an uploaded picture: its face is cut out as training crops are, then looked for."""

from dataclasses import dataclass

from dataset.cropping import FaceSettings, detector_of
from dataset.decode import Picture
from dataset.geometry import Square, centre_square, cut, square_around
from models.labels import names_of
from models.sampling.inversion import STEPS, Progress, ignore, invert
from studio.draw import UnbatchedGenerator
from studio.model_source import OpenModel
from studio.png_metadata import open_picture
from studio.recipe import Recipe

NO_FACE = "No face was found, so the middle of the picture was taken."
MIN_FACE_PX = 24  # that `FaceSettings` takes


@dataclass(frozen=True, eq=False)
class Inverted:
    """What was found for a picture.

    Attributes:
        recipe: what draws it: seed, labels and latent.
        face: what was looked for [R,R,3]: the picture's face, or its middle.
        distance: `models.sampling.inversion.PictureDistance` from the face to what the recipe
            draws; two real faces are about 1.4 apart.
        notice: a sentence on what was taken of the picture if not its only face, "" if it was.

    """

    recipe: Recipe
    face: Picture
    distance: float
    notice: str


def invert_picture(
    model: OpenModel,
    content: bytes,
    *,
    where: str,
    steps: int = STEPS,
    advance: Progress = ignore,
) -> Inverted:
    """Finds the recipe of a model that draws nearest to the face on a picture's bytes.

    Nothing of the picture is kept. Raises UnreadablePicture, naming `where`, for anything but one
    whole still picture of at most 10 MiB and 4 megapixels; UsageError as `inversion.invert`.
    """
    picture, _ = open_picture(content, where=where)
    side = model.spec.resolution_px
    square, notice = face_square(picture, side)
    face = cut(picture, square, side_px=side)
    generator = UnbatchedGenerator(model.generator)  # others get their turn to draw in between
    found = invert(generator, face, model.typical, steps=steps, advance=advance)
    labels = tuple(names_of(found.labels[0], model.labels))
    recipe = Recipe(model.key, found.seed, labels, latent=found.latent)
    return Inverted(recipe, face, found.distance, notice)


def face_square(picture: Picture, side_px: int) -> tuple[Square, str]:
    """Returns the square of the largest face on a picture, and the notice of `Inverted`.

    Faces are looked for that fill half of a crop of side_px, or more.
    """
    settings = FaceSettings(min_side_px=max(MIN_FACE_PX, side_px // 2))
    height, width = picture.shape[:2]
    found = detector_of(settings).find(picture)
    if not found:
        return centre_square(width=width, height=height), NO_FACE
    box = found[0].box  # the largest
    notice = f"{len(found)} faces were found; the largest was taken." if len(found) > 1 else ""
    return square_around(box, expand=settings.expand, width=width, height=height), notice
