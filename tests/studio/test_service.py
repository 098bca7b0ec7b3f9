"""The one door of page, API and commands: links draw the same again, faults are sentences."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import OmokageError, RegistryError, UsageError
from models.io.generators import generator_digest
from models.sampling.characters import shift_text
from studio.draw import LabelChoice
from studio.edits import Edits
from studio.model_source import ModelSource
from studio.play import FilmOptions
from studio.png_metadata import recipe_of_png
from studio.recipe import Recipe
from studio.service import Studio
from tests.models.small_generators import small_generator, write_generator
from tests.studio.champions import Champions, generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_generator(
        tmp_path_factory.mktemp("studio") / "faces", small_generator("stylegan2")
    )


def studio_of(folder: str) -> Studio:
    return Studio(ModelSource(folder, tracking_uri="sqlite:///nowhere.db"))


@pytest.fixture(scope="module")
def studio(folder: str) -> Studio:
    return studio_of(folder)


@pytest.mark.parametrize(
    "labels", ["blonde hair, blue_eyes", ["blonde_hair", "blue_eyes"],
               LabelChoice({"hair_colour": ("blonde_hair",), "eye_colour": ("blue_eyes",)})],
    ids=["text", "names", "choice"],
)  # fmt: skip
def test_a_draw_is_redrawn_by_its_recipe_and_by_its_link(  # type: ignore[no-untyped-def]
    studio: Studio, folder: str, labels
) -> None:
    avatars = list(studio.draw(labels, count=3, seed=5, psi=0.70004))
    assert [avatar.recipe for avatar in avatars] == [
        Recipe(studio.model().key, seed, ("blonde_hair", "blue_eyes"), psi=0.7)
        for seed in (5, 6, 7)
    ]
    for avatar in avatars:
        assert np.array_equal(studio.redraw(avatar.recipe), avatar.picture)
        elsewhere = studio_of(folder)  # which has kept nothing
        assert np.array_equal(elsewhere.redraw(avatar.recipe.to_query()), avatar.picture)


def test_a_png_is_finished_and_says_the_same_again(studio: Studio, folder: str) -> None:
    edits = Edits(crop=(0, 0, 1, 0.5), rotate=90, brightness=1.2)
    recipe = Recipe(studio.model().key, 3, ("blue_hair",), psi=0.8, upscale=2, edits=edits)
    content = studio.png(recipe.to_query())
    assert content == studio.png(recipe) == studio_of(folder).png(recipe)
    assert recipe_of_png(content, where="a.png") == recipe
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (16, 32)
        assert np.array_equal(np.asarray(image), studio.finish(recipe))
        assert image.info["omokage model"] == "faces"


def test_the_next_edit_of_a_picture_draws_nothing_anew(folder: str) -> None:
    studio = studio_of(folder)
    avatar = next(studio.draw(seed=3))
    calls: list[int] = []
    handle = studio.model().generator.register_forward_hook(lambda *_: calls.append(1))
    turned = [
        studio.finish(dataclasses.replace(avatar.recipe, upscale=2, edits=Edits(rotate=degrees)))
        for degrees in (0.0, 90.0, 180.0)
    ]
    handle.remove()
    assert calls == [1], "drawn for the first of them, and kept"
    assert np.array_equal(turned[1], np.rot90(turned[0]))
    assert np.array_equal(turned[2], np.rot90(turned[0], 2))


def test_a_result_that_is_too_large_is_refused_before_it_is_drawn(studio: Studio) -> None:
    recipe = Recipe(studio.model().key, 3, edits=Edits(crop=(0, 0, 0.2, 1)))
    with pytest.raises(UsageError, match="crop would leave 3x16 px"):
        studio.finish(recipe)


def test_avatars_of_links_play_together(studio: Studio, tmp_path: Path) -> None:
    a, b, c = (avatar.recipe.to_query() for avatar in studio.draw(count=3, psi=0.5))
    strip = studio.morph_strip(a, b, steps=3, space="w")
    assert np.array_equal(strip[0], studio.redraw(a))
    studio.write_morph(a, b, FilmOptions([tmp_path / "morph.gif"], 0.3, 10))
    studio.write_loop([a, b, c], FilmOptions([tmp_path / "loop.gif"], 0.3, 10))
    assert {path.name for path in tmp_path.iterdir()} == {"morph.gif", "loop.gif"}
    assert studio.mix([a], [b, c]).picture.size == (3 * 16, 2 * 16)
    reported = Image.open(io.BytesIO(studio.sweep(a, number=1).png())).info
    assert (reported["omokage tool"], reported["omokage psi"]) == ("sweep", "0.5")
    table = studio.table(["blonde hair", ["blue_hair"], ""], count=2)
    assert table.picture.height == 3 * 16
    assert table.facts["omokage labels"] == "blonde hair; blue hair; any"


def _ask(recipe: str) -> Callable[[Studio], object]:
    return lambda studio: studio.png(recipe)


@pytest.mark.parametrize(
    ("ask", "reported"),
    [
        (lambda s: s.draw(count=1000), 'number of pictures is "1000"; .* from 1 to 64'),
        (lambda s: s.draw(count=0), "number of pictures"),
        (lambda s: s.draw("blond_hair"), 'did you mean "blonde_hair"'),
        (lambda s: s.draw(psi=2.5), "psi"),
        (lambda s: s.draw(seed=2**53 - 1, count=2), "2 seeds from 9007199254740991 on go beyond"),
        (lambda s: s.draw(noise="loud"), 'the noise is "loud"'),
        (lambda s: s.draw(LabelChoice({"mouth": ()})), '"mouth" is no group'),
        (_ask("model=avatar-generator%2F7&seed=1"), "version 7 of avatar-generator"),
        (_ask("seed=x"), "2 faults"),
        (lambda s: s.table(["halo"]), 'unknown label "halo"'),
        (lambda s: s.write_loop([], FilmOptions([], 1)), "number of avatars"),
        (lambda s: s.mix([], []), "0 rows"),
    ],
)
def test_what_is_asked_wrongly_is_a_sentence(
    studio: Studio, ask: Callable[[Studio], object], reported: str
) -> None:
    with pytest.raises(UsageError, match=reported):
        ask(studio)
    assert next(studio.draw()).picture.shape == (16, 16, 3)  # and the studio goes on


def test_a_label_of_a_link_that_the_model_does_not_know_is_refused(studio: Studio) -> None:
    with pytest.raises(UsageError, match='unknown label "halo"'):
        studio.redraw(Recipe(studio.model().key, 1, ("halo",)))


def test_without_a_champion_every_method_says_so(tmp_path: Path) -> None:
    empty = Studio(ModelSource(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))
    asks: list[Callable[[], object]] = [empty.groups, empty.draw, lambda: empty.table(["a"])]
    for ask in asks:
        with pytest.raises(RegistryError, match="There is no champion yet"):
            ask()


def test_avatars_of_two_models_are_not_brought_together(
    tmp_path: Path, empty_registry: Path
) -> None:
    champions = Champions(tmp_path, empty_registry)
    networks = [generator(number) for number in (1, 2)]
    versions = [champions.register(network) for network in networks]
    champions.crown(versions[0])
    studio = Studio(ModelSource(tracking_uri=champions.uri, look_every_s=0.0))
    drawing = studio.draw(count=2)
    first = next(drawing)
    champions.crown(versions[1])
    moved = next(studio.draw())
    assert [one.recipe.model for one in (first, next(drawing), moved)] == [
        "avatar-generator/1", "avatar-generator/1", "avatar-generator/2",
    ]  # fmt: skip
    assert studio.model().digest == generator_digest(networks[1])
    with pytest.raises(UsageError, match=r"different models .avatar-generator/1, avatar-gen"):
        studio.morph_strip(first.recipe, moved.recipe)
    assert np.array_equal(studio.redraw(first.recipe), first.picture)
    with pytest.raises(OmokageError, match="version 9 of avatar-generator"):
        studio.redraw(Recipe("avatar-generator/9", 1))


def test_a_character_of_more_than_seed_and_labels_comes_back_with_its_png(
    studio: Studio,
) -> None:
    made_from = Recipe(
        studio.model().key,
        3,
        ("blue_hair", "blue_eyes"),
        strengths=(("blue_hair", 0.4),),
        variations=((1, 0.3),),
        latent=shift_text(np.full((6, 12), 0.5)),
    )
    content = studio.png(made_from)
    assert recipe_of_png(content, where="a.png") == made_from
    with Image.open(io.BytesIO(content)) as image:
        assert image.info["omokage strengths"] == "blue_hair:0.4"
        assert image.info["omokage variations"] == "1:0.3"
    (like,) = studio.draw("blonde_hair", seed=8, like=made_from)
    assert (like.recipe.strengths, like.recipe.latent) == ((), made_from.latent)
