"""All that the studio can do, by plain values: what the page, its API and the command line call.

And inversion of an uploaded picture: its face is cut out as training crops are, then looked for.
"""

import dataclasses
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence

from cachetools import LRUCache
from PIL import Image

from dataset.cropping import FaceSettings, detector_of
from dataset.decode import Picture
from dataset.errors import UsageError
from dataset.geometry import Square, centre_square, cut, square_around
from models.labels import names_of, split_names
from models.sampling.draw import png_bytes
from models.sampling.inversion import STEPS, Progress, ignore, invert
from studio import play
from studio.character import Character, check_seed
from studio.draw import (
    Avatar,
    Group,
    LabelChoice,
    UnbatchedGenerator,
    abilities,
    choice_named,
    draw_avatars,
    draw_one,
    label_groups,
)
from studio.edits import Edits, apply_edits, edited_size
from studio.model_source import ModelSource, OpenModel
from studio.play import Advance, DrawOptions, FilmOptions
from studio.png_metadata import open_picture, recipe_facts
from studio.recipe import Recipe
from studio.upscaling import upscale
from studio.validation import MAX_CHARACTERS, MAX_PICTURES, MAX_SEED, SIDE_MAX_PX, check_whole

KEPT_BYTES = 64 * 2**20  # of pictures for the next edit: eighty of 512 px, or one of 4,096 px

LabelRequest = (
    LabelChoice | str | Sequence[str]
)  # a choice, "blonde hair, blue_eyes", or these names in a list
Link = Recipe | str | Mapping[str, str]  # a recipe, or what a link says behind its question mark


class ImageCache:
    """Pictures by what they are made from; the least recently used are evicted first.

    An edit is tried out many times on the same drawn and upscaled picture, which takes a hundred
    times as long to make. Any number of threads may use one.
    """

    def __init__(self, max_bytes: int) -> None:
        """Holds nothing yet; a picture of more than max_bytes is never held."""
        self._lock = threading.Lock()
        self._pictures: LRUCache[Hashable, Picture] = LRUCache(
            max_bytes, getsizeof=lambda picture: picture.nbytes
        )

    @property
    def size_bytes(self) -> int:
        """How much is held."""
        return int(self._pictures.currsize)

    def get(self, key: Hashable) -> Picture | None:
        """Returns a picture, or None if it is not in the cache."""
        with self._lock:
            return self._pictures.get(key)

    def put(self, key: Hashable, picture: Picture) -> None:
        """Stores a picture, which nobody may write to from now on."""
        picture.flags.writeable = False
        if picture.nbytes <= self._pictures.maxsize:
            with self._lock:
                self._pictures[key] = picture


@dataclasses.dataclass(frozen=True, eq=False)
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


class Studio:
    """Draws, plays and finishes with the current model of a source, or with that of a link.

    Any number of threads may use one. Every method checks what it is given and raises
    UsageError in plain sentences; RegistryError where there is no model to draw with.
    """

    def __init__(self, source: ModelSource) -> None:
        """Loads nothing yet."""
        self._source = source
        self._kept = ImageCache(KEPT_BYTES)

    def model(self) -> OpenModel:
        """Returns the model that is drawn with now; see `ModelSource.current`."""
        return self._source.current()

    def model_of(self, link: Link) -> OpenModel:
        """Returns the model that a link names; see `ModelSource.of`."""
        return self._source.of(recipe_of(link).model)

    def models(self) -> list[str]:
        """Returns the keys of the models that can be drawn with; see `ModelSource.keys`."""
        return self._source.keys()

    def notice(self) -> str:
        """Returns what keeps the current model from being the latest, or ""."""
        return self._source.notice()

    def groups(self) -> list[Group]:
        """Returns the current model's labels in groups."""
        return label_groups(self.model().labels)

    def abilities(self) -> dict[str, str]:
        """Returns what the current model cannot do, and why; see `abilities.abilities`."""
        return abilities(self.model())

    def draw(
        self,
        labels: LabelRequest = (),
        *,
        count: int = 1,
        seed: int = 0,
        psi: float = 1.0,
        noise: str = "const",
        like: Link | None = None,
    ) -> Iterator[Avatar]:
        """Draws `count` characters, 1 to 64, of the seeds seed, seed + 1, …

        labels: a choice, or labels by name: their groups are chosen, all others come with the seed.
        like: a recipe whose strengths, variations, sliders and latent they all have.
        Everything is checked before this returns; each avatar is then drawn lazily,
        all of them with the model of now, even if the alias moves meanwhile.
        """
        seeds = _seeds(seed, count)
        model = self.model()
        given = None if like is None else Character.of(recipe_of(like))
        choice = choice_of(labels, model)
        return draw_avatars(model, choice, seeds, psi=psi, noise=noise, like=given)

    def invert(
        self,
        content: bytes,
        name: str = "the picture",
        *,
        steps: int = STEPS,
        advance: Progress = ignore,
    ) -> Inverted:
        """Finds the recipe with which the current model draws the face on a picture's file.

        name: what the file is called in errors. advance: called with 0 and the nearest of many
        drawn faces, then with each step's number, 1 to `steps`, and now and then with the picture
        [R,R,3] so far; else None. What it raises ends the work. Nothing of the file is kept.
        Raises UnreadablePicture or UsageError as `invert_picture`.
        """
        model = self.model()
        return invert_picture(model, content, where=name, steps=steps, advance=advance)

    def redraw(self, link: Link) -> Picture:
        """Draws the picture of a link [R,R,3], neither upscaled nor edited, with the link's model.

        Raises UsageError if that model cannot be had, or does not know a label of the link.
        """
        recipe = recipe_of(link)
        return self._drawn(self._source.of(recipe.model), recipe)

    def finish(self, link: Link) -> Picture:
        """Draws the picture of a link, upscales and edits it: uint8 [H,W,3], not to be written to.

        What was drawn and upscaled last is kept, so that the next edit of it is quick.
        """
        recipe = recipe_of(link)
        return self._finished(self._source.of(recipe.model), recipe)

    def png(self, link: Link) -> bytes:
        """Returns the finished picture as a PNG that says how it was made, link included.

        The same link gives the same bytes.
        """
        recipe = recipe_of(link)
        model = self._source.of(recipe.model)
        facts = recipe_facts(recipe, model=model.name, digest=model.digest)
        return png_bytes(Image.fromarray(self._finished(model, recipe)), facts)

    def morph_strip(self, a: Link, b: Link, *, steps: int = 10, space: str = "z") -> list[Picture]:
        """Draws the way from one avatar to another; see `play.morph_strip`.

        psi and noise are those of the first avatar, here and below.
        """
        model, (first, second), options = self._together([a, b], space=space)
        return play.morph_strip(model, first, second, options, steps=steps)

    def write_morph(
        self,
        a: Link,
        b: Link,
        film: FilmOptions,
        *,
        space: str = "z",
        advance: Advance = play.ignore,
    ) -> None:
        """Writes the way from one avatar to another as .mp4 and .gif; see `play.write_morph`."""
        model, (first, second), options = self._together([a, b], space=space, advance=advance)
        play.write_morph(model, first, second, film, options)

    def write_loop(
        self,
        avatars: Sequence[Link],
        film: FilmOptions,
        *,
        space: str = "z",
        advance: Advance = play.ignore,
    ) -> None:
        """Writes a film of avatars that wander and come back; see `play.write_loop`."""
        check_whole(len(avatars), "the number of avatars", low=1, high=MAX_CHARACTERS)
        model, characters, options = self._together(avatars, space=space, advance=advance)
        play.write_loop(model, characters, film, options)

    def sweep(self, avatar: Link, *, number: int = 0, space: str = "z") -> play.Sheet:
        """Draws an avatar with one number of its z or w at 20 values; see `play.sweep`."""
        model, (character,), options = self._together([avatar], space=space)
        return play.sweep(model, character, options, number=number)

    def mix(
        self, rows: Sequence[Link], columns: Sequence[Link], *, crossover: int = 0
    ) -> play.Sheet:
        """Draws coarse styles of the rows' with fine styles of the columns'; see `play.mix`."""
        play.check_sheet(len(rows), len(columns))
        model, characters, options = self._together([*rows, *columns])
        down, across = characters[: len(rows)], characters[len(rows) :]
        return play.mix(model, down, across, options, crossover=crossover)

    def table(
        self,
        rows: Sequence[str | Sequence[str]],
        options: DrawOptions = play.PLAIN,
        *,
        count: int = 6,
        seed: int = 0,
    ) -> play.Sheet:
        """Draws labels down and the seeds seed, seed + 1, … across; see `play.table`.

        rows: labels by name, "blonde hair, blue eyes" or a list; "" is a row as they come.
        """
        named = [split_names(row) if isinstance(row, str) else row for row in rows]
        seeds = _seeds(seed, count)
        return play.table(self.model(), named, seeds, options)

    def _finished(self, model: OpenModel, recipe: Recipe) -> Picture:
        side = model.spec.resolution_px * recipe.upscale
        if side > SIDE_MAX_PX:
            raise UsageError(
                f"{model.spec.resolution_px} px made {recipe.upscale}x larger are {side} px; at "
                f"most {SIDE_MAX_PX} px are made."
            )
        edited_size(side, side, recipe.edits)  # raises before anything is drawn
        return apply_edits(self._upscaled(model, recipe), recipe.edits)

    def _upscaled(self, model: OpenModel, recipe: Recipe) -> Picture:
        if recipe.upscale == 1:
            return self._drawn(model, recipe)
        key = dataclasses.replace(recipe, edits=Edits())
        picture = self._kept.get(key)
        if picture is None:
            drawn = self._drawn(model, recipe)
            picture = upscale(drawn, recipe.upscale, denoise=recipe.denoise)
            self._kept.put(key, picture)
        return picture

    def _drawn(self, model: OpenModel, recipe: Recipe) -> Picture:
        key = dataclasses.replace(recipe, upscale=1, denoise=-1, edits=Edits())
        picture = self._kept.get(key)
        if picture is None:
            picture = draw_one(model, Character.of(key), psi=key.psi, noise=key.noise)
            self._kept.put(key, picture)
        return picture

    def _together(
        self, links: Sequence[Link], *, space: str = "z", advance: Advance = play.ignore
    ) -> tuple[OpenModel, list[Character], DrawOptions]:
        """Returns the one model of links, their characters, and the first one's options."""
        recipes = [recipe_of(link) for link in links]
        keys = sorted({recipe.model for recipe in recipes})
        if len(keys) > 1:
            raise UsageError(
                f"These avatars were drawn by different models ({', '.join(keys)}); only avatars "
                "of one model can be brought together. Draw them anew with one."
            )
        options = DrawOptions(recipes[0].psi, recipes[0].noise, space, advance)
        characters = [Character.of(recipe) for recipe in recipes]
        return self._source.of(keys[0]), characters, options


NO_FACE = "No face was found, so the middle of the picture was taken."
MIN_FACE_PX = 24  # that `FaceSettings` takes


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


def choice_of(labels: LabelRequest, model: OpenModel) -> LabelChoice:
    """Returns the choice for labels by name; raises UsageError for unknown ones."""
    if isinstance(labels, LabelChoice):
        return labels
    return choice_named(split_names(labels) if isinstance(labels, str) else labels, model)


def recipe_of(link: Link) -> Recipe:
    """Returns the recipe of a link; raises UsageError with all of its faults."""
    return link if isinstance(link, Recipe) else Recipe.from_query(link)


def _seeds(seed: int, count: int) -> range:
    count = check_whole(count, "the number of pictures", low=1, high=MAX_PICTURES)
    first = check_seed(seed)
    if first + count - 1 > MAX_SEED:
        raise UsageError(f"{count} seeds from {first} on go beyond {MAX_SEED}, the last one.")
    return range(first, first + count)
