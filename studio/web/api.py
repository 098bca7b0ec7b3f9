"""The API: what the page can do, for programs, with plain typed values and by name.

Called with `gradio_client`; what is wrong comes back as a sentence. Pictures and films come as
files, and a picture goes in as one that was uploaded (`handle_file`).
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from gradio import FileData
from gradio.events import api as add_endpoint
from PIL import Image

from dataset.errors import UsageError
from models.sampling.draw import png_bytes
from studio.draw import abilities, label_groups
from studio.edits import Edits
from studio.play import DrawOptions, FilmOptions, Sheet
from studio.png_metadata import recipe_of_png
from studio.recipe import Recipe
from studio.service import recipe_of
from studio.shelf import SHEET_NAME, ZIP_NAME, archive, contact_sheet, recipes_of_file, small
from studio.validation import MAX_PICTURES, check_whole, quoted
from studio.web.files import file_name, stem_of
from studio.web.listener import listener
from studio.web.page_state import DRAWS_AT_ONCE, FILMS_AT_ONCE, FINISHES_AT_ONCE, Finishing

if TYPE_CHECKING:
    from studio.web.app import Parts

Answer = dict[str, Any]


def add_endpoints(parts: "Parts") -> None:
    """Adds the endpoints to the page that is being built."""
    api = Endpoints(parts)
    draws = {"concurrency_limit": DRAWS_AT_ONCE, "concurrency_id": "draw"}
    finishes = {"concurrency_limit": FINISHES_AT_ONCE, "concurrency_id": "finish"}
    films = {"concurrency_limit": FILMS_AT_ONCE, "concurrency_id": "film"}
    endpoints: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (api.model, {"concurrency_limit": None}),
        (api.draw, draws),
        (api.picture, finishes),
        (api.finish, finishes),
        (api.settings, finishes),
        (api.upscale, finishes),
        (api.edit, finishes),
        (api.strip, films),
        (api.morph, films),
        (api.loop, films),
        (api.sweep, films),
        (api.mix, films),
        (api.table, films),
        (api.contact_sheet, finishes),
        (api.archive, finishes),
        (api.kept, finishes),
    ]
    for endpoint, limits in endpoints:
        add_endpoint(listener(endpoint, as_html=False), api_name=endpoint.__name__, **limits)


class Endpoints:
    """The functions behind the names; their texts are what the API's page shows."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts
        self._studio = parts.studio

    def model(self) -> Answer:
        """Says which model draws: name, key, when it was trained, size, labels, what it cannot do.

        "models" are the keys of all that links may name, "labels" has them by group, "cannot" a
        reason for each thing that it cannot do.
        """
        model = self._studio.model()
        return {
            "name": model.name,
            "key": model.key,
            "models": self._studio.models(),
            "digest": model.digest,
            "trained": model.trained,
            "family": model.spec.family,
            "resolution_px": model.spec.resolution_px,
            "labels": {group.name: list(group.labels) for group in label_groups(model.labels)},
            "cannot": {name: reason for name, reason in abilities(model).items() if reason},
            "notice": self._studio.notice(),
        }

    def draw(
        self,
        labels: list[str] = [],  # noqa: B006  never changed; the API's page shows it
        count: int = 1,
        seed: int = 0,
        psi: float = 1.0,
        noise: str = "const",
    ) -> list[Answer]:
        """Draws count characters, 1 to 64, of the seeds seed, seed + 1, and so on.

        labels: names such as "blonde_hair"; groups without a name come as the seed has them. psi: 0
        (the mean face) to 2. noise: const, none or random. Each answer has seed, labels, link (what
        stands behind "/?") and picture, the PNG's file.
        """
        avatars = self._studio.draw(
            _texts(labels, "labels"), count=count, seed=seed, psi=psi, noise=noise
        )
        return [
            self._of(one.recipe, self._parts.pictures.avatar(one, file_name(one.recipe)))
            for one in avatars
        ]

    def picture(self, link: str) -> Answer:
        """Draws the picture of a link: the same link gives the same bytes.

        link: a whole one, or what stands behind its question mark.
        """
        return self._finished(recipe_of(_query(link)))

    def finish(self, link: str, upscale: int = 1, denoise: int = -1, edits: str = "") -> Answer:
        """Draws the picture of a link with other finishing than its own.

        upscale: 1, 2 or 4. denoise: -1 (none), 0 to 3. edits: such as "rotate=90;brightness=1.2";
        there are crop=left,top,right,bottom (fractions), rotate, scale, brightness, contrast,
        saturation, hue.
        """
        plain = recipe_of(_query(link))
        return self._finished(
            dataclasses.replace(
                plain,
                upscale=upscale,
                denoise=denoise,
                edits=Edits.from_text(_text(edits, "edits")),
            )
        )

    def settings(self, picture: FileData) -> Answer:
        """Says what a PNG of this studio was made from: link, model, seed, labels, edits and so on.

        An empty answer for a picture that does not say it.
        """
        content, name = self._parts.files.sent(picture)
        recipe = recipe_of_png(content, where=name)
        return _told(recipe) if recipe else {}

    def upscale(self, picture: FileData, factor: int = 2, denoise: int = -1) -> FileData:
        """Makes an uploaded picture 2x or 4x larger; denoise: -1 (none), 0 to 3."""
        finishing = Finishing(
            upscale=check_whole(factor, "factor", low=1, high=4),
            denoise=check_whole(denoise, "denoise", low=-1, high=3),
        )
        return self._sent(picture, finishing)

    def edit(self, picture: FileData, edits: str) -> FileData:
        """Edits an uploaded picture, as `finish` does."""
        return self._sent(picture, Finishing(edits=Edits.from_text(_text(edits, "edits"))))

    def strip(self, first: str, second: str, steps: int = 8, space: str = "z") -> list[FileData]:
        """Draws the way from one link's avatar to another's in `steps` pictures.

        space: z, or w where the model has it.
        """
        pictures = self._studio.morph_strip(_query(first), _query(second), steps=steps, space=space)
        made = (png_bytes(Image.fromarray(np.ascontiguousarray(one)), {}) for one in pictures)
        return [_file(self._parts.files.keep(content, "morph.png")) for content in made]

    def morph(
        self, first: str, second: str, seconds: float = 3.0, fps: int = 12, space: str = "z"
    ) -> list[FileData]:
        """Draws a film from one link's avatar to another's and back: an MP4 and a GIF."""
        outs = self._parts.files.films("morph")
        film = FilmOptions(outs, seconds, fps, back=True)
        self._studio.write_morph(_query(first), _query(second), film, space=space)
        return [_file(str(out)) for out in outs]

    def loop(
        self, link: str, seconds: float = 4.0, fps: int = 12, space: str = "z"
    ) -> list[FileData]:
        """Draws a film of a link's avatar that wanders and comes back: an MP4 and a GIF."""
        outs = self._parts.files.films("loop")
        self._studio.write_loop([_query(link)], FilmOptions(outs, seconds, fps), space=space)
        return [_file(str(out)) for out in outs]

    def sweep(self, link: str, number: int = 0, space: str = "z") -> FileData:
        """Draws a link's avatar with one number of its latent at 20 values."""
        return self._sheet("sweep", self._studio.sweep(_query(link), number=number, space=space))

    def mix(self, rows: list[str], columns: list[str], crossover: int = 0) -> FileData:
        """Draws the coarse styles of the rows' avatars with the fine styles of the columns'.

        rows, columns: links. crossover: layers that are the row's; 0 for half of them.
        """
        down = [_query(link) for link in _texts(rows, "rows")]
        across = [_query(link) for link in _texts(columns, "columns")]
        return self._sheet("mix", self._studio.mix(down, across, crossover=crossover))

    def table(
        self, rows: list[str], count: int = 6, seed: int = 0, psi: float = 1.0, noise: str = "const"
    ) -> FileData:
        """Draws a table of labels down, such as "blonde hair, blue eyes", and seeds across."""
        named = _texts(rows, "rows")
        made = self._studio.table(named, DrawOptions(psi, noise), count=count, seed=seed)
        return self._sheet("table", made)

    def contact_sheet(self, links: list[str]) -> FileData:
        """Draws the pictures of 1 to 64 links on a page of A4, a PNG that holds all the links."""
        recipes = _recipes(links)
        drawn = [(recipe, small(self._studio.finish(recipe))) for recipe in recipes]
        return _file(self._parts.files.keep(contact_sheet(drawn), SHEET_NAME))

    def archive(self, links: list[str]) -> FileData:
        """Draws the pictures of 1 to 64 links into a zip of PNGs, each with its link."""
        recipes = _recipes(links)
        pngs = ((file_name(recipe), self._parts.pictures.drawn(recipe)) for recipe in recipes)
        return _file(self._parts.files.keep(archive(pngs), ZIP_NAME))

    def kept(self, file: FileData) -> Answer:
        """Says which links a contact sheet, a zip or a PNG holds, and "faults" of damaged ones."""
        content, name = self._parts.files.sent(file)
        recipes, faults = recipes_of_file(content, where=name)
        return {"links": [recipe.to_query() for recipe in recipes], "faults": faults}

    def _finished(self, recipe: Recipe) -> Answer:
        content = self._parts.pictures.drawn(recipe)
        return self._of(recipe, self._parts.files.keep(content, file_name(recipe)))

    def _of(self, recipe: Recipe, path: str) -> Answer:
        return {**_told(recipe), "picture": _file(path)}

    def _sent(self, picture: object, finishing: Finishing) -> FileData:
        content, name = self._parts.files.sent(picture)
        path = self._parts.files.keep(content, name)
        made = self._parts.pictures.sent(path, name, finishing)
        return _file(self._parts.files.keep(made, f"{stem_of(name)}-finished.png"))

    def _sheet(self, name: str, sheet: Sheet) -> FileData:
        return _file(self._parts.files.keep(sheet.png(), f"{name}.png"))


def _told(recipe: Recipe) -> Answer:
    return {
        "link": recipe.to_query(),
        "model": recipe.model,
        "seed": recipe.seed,
        "labels": list(recipe.labels),
        "psi": recipe.psi,
        "noise": recipe.noise,
        "upscale": recipe.upscale,
        "denoise": recipe.denoise,
        "edits": recipe.edits.to_text(),
    }


def _file(path: str) -> FileData:
    # As plain values: Gradio adds the address to fetch it from, for these alone.
    return cast(FileData, FileData(path=path).model_dump())


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{what} is {quoted(value)}; a text is wanted")
    return value


def _texts(values: object, what: str) -> list[str]:
    """Returns a list of texts; clients may send anything at all."""
    if not isinstance(values, list):
        raise UsageError(f"{what} are {quoted(values)}; a list of texts is wanted")
    return [_text(value, f"one of {what}") for value in values]


def _recipes(links: object) -> list[Recipe]:
    """Returns the recipes of links, whose number is checked before anything is drawn."""
    texts = _texts(links, "links")
    check_whole(len(texts), "the number of links", low=1, high=MAX_PICTURES)
    return [recipe_of(_query(link)) for link in texts]


def _query(link: object) -> str:
    """Returns what stands behind the question mark of a link, or all of it if there is none."""
    return _text(link, "the link").rpartition("?")[2]
