"""Kept recipes go into a sheet or a zip and come back; files beyond the bounds are refused."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset.errors import UsageError
from models.sampling.characters import shift_text
from studio import shelf
from studio.png_metadata import LINK, recipe_facts
from studio.recipe import Recipe
from studio.shelf import Lacking, archive, contact_sheet, for_version, recipes_of_file
from studio.validation import MAX_PICTURES, UPLOAD_MAX_BYTES, UPLOAD_MAX_PIXELS
from studio.web.keep_tab import links_to_add, recipes_on
from tests.studio.test_recipe import recipe_values

RECIPE = Recipe("avatar-generator/3", 17, ("pink_hair", "blue_eyes"))
PICTURE = np.full((16, 16, 3), 90, np.uint8)


def png_of(recipe: Recipe, *, links: int = 1) -> bytes:
    from models.sampling.draw import png_bytes

    facts = recipe_facts(recipe, model="m", digest="0" * 64)
    facts |= {f"{LINK} {number}": recipe.to_query() for number in range(1, links)}
    return png_bytes(Image.fromarray(PICTURE), facts)


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return content.getvalue()


@settings(max_examples=5, deadline=None)
@given(st.lists(recipe_values(), min_size=1, max_size=4, unique=True))
def test_what_is_kept_comes_back_from_a_sheet_and_from_a_zip(recipes: list[Recipe]) -> None:
    for made in (
        contact_sheet([(recipe, PICTURE) for recipe in recipes]),
        archive([("picture.png", png_of(recipe)) for recipe in recipes]),
    ):
        assert recipes_of_file(made, where="it") == (recipes, [])
    new, without_room = links_to_add(None, recipes)
    assert (recipes_on(new), without_room) == (recipes, 0)


def test_a_full_sheet_is_one_page_and_within_the_bounds_of_an_upload() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
    recipes = [Recipe("avatar-generator/3", seed) for seed in range(MAX_PICTURES)]
    drawn = [(recipe, np.asarray(noise.rotate(recipe.seed))) for recipe in recipes]
    made = contact_sheet(drawn)
    with Image.open(io.BytesIO(made)) as sheet:
        assert sheet.size == shelf.SHEET_PX
        assert sheet.width * sheet.height < UPLOAD_MAX_PIXELS
        assert round(sheet.info["dpi"][0]) == shelf.DPI
    assert len(made) < UPLOAD_MAX_BYTES
    assert recipes_of_file(made, where="sheet.png") == (recipes, [])
    assert contact_sheet(drawn) == made, "the same pictures give the same bytes"
    for count in (0, MAX_PICTURES + 1):
        with pytest.raises(UsageError, match="1 to 64 go together"):
            contact_sheet([(RECIPE, PICTURE)] * count)


def test_a_damaged_picture_of_a_zip_keeps_no_other_from_coming_back() -> None:
    good = png_of(RECIPE)
    damaged = good.replace(b"seed=17", b"seed=18", 1)  # its checksum is wrong now
    packed = zip_of({"a.png": damaged, "b.PNG": good, "notes.txt": b"no picture", "c.png": b"no"})
    recipes, faults = recipes_of_file(packed, where="kept.zip")
    assert recipes == [RECIPE]
    assert faults == ["a.png: its settings are damaged"]


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (b"GIF89a", "a contact sheet, a zip or a PNG of the studio is wanted"),
        (zip_of({"a.txt": b"a"}), "no picture in it says how it was drawn here"),
        (zip_of({"a.png": png_of(RECIPE)})[:-30], "a damaged zip"),
        (zip_of({"a.png": b"a"}, zipfile.ZIP_LZMA), "an encrypted or unusual zip"),
        (zip_of({f"{number}.png": b"" for number in range(257)}), "257 files in it; at most 256"),
        (
            zip_of({"bomb.png": bytes(shelf.UNPACKED_MAX_BYTES + 1)}),
            "more than 41,943,040 bytes once unpacked",
        ),
        (
            zip_of({f"{number}.png": png_of(RECIPE, links=200) for number in range(6)}),
            "more than 1,024 pictures are named in it",
        ),
        (b"0" * (UPLOAD_MAX_BYTES + 1), "10,485,761 bytes; at most 10,485,760 are taken"),
    ],
    ids=["gif", "nothing", "damaged", "method", "entries", "bomb", "links", "large"],
)
def test_other_files_are_refused_in_a_sentence(content: bytes, reported: str) -> None:
    with pytest.raises(UsageError) as refused:
        recipes_of_file(content, where="kept.zip")
    assert reported in str(refused.value)


def test_what_a_browser_keeps_is_read_with_care_and_bounded() -> None:
    many = [Recipe("avatar-generator/3", seed) for seed in range(shelf.SHELF_MAX + 2)]
    links = [recipe.to_query() for recipe in many]
    assert links_to_add(links[:-2], many) == ([], 2)
    assert links_to_add(["damaged", *links[:-3]], many) == ([links[-3]], 2)
    assert links_to_add(None, [RECIPE, RECIPE]) == ([RECIPE.to_query()], 0)
    assert recipes_on(links) == many[:-2]
    assert recipes_on(["seed=x", 3, None, RECIPE.to_query(), RECIPE.to_query()]) == [RECIPE]
    for nothing in ("text", {"a": 1}, None):
        assert recipes_on(nothing) == []


def test_another_version_is_asked_for_what_it_knows_alone() -> None:
    other, lacking = for_version(
        RECIPE, "avatar-generator/4", labels=("blue_eyes", "ahoge"), directions=()
    )
    assert other == Recipe("avatar-generator/4", 17, ("blue_eyes",))
    assert lacking == Lacking(labels=("pink_hair",))
    explored = Recipe(
        "a/1", 17, ("pink_hair", "ahoge"), strengths=(("pink_hair", 0.5), ("ahoge", 0.2)),
        sliders=(("smile", 1.0), ("warmth", -2.0)), latent=shift_text(np.ones((1, 4), np.float32)),
    )  # fmt: skip
    other, lacking = for_version(explored, "a/2", labels=("ahoge",), directions=("smile",))
    assert other == Recipe(
        "a/2", 17, ("ahoge",), strengths=(("ahoge", 0.2),), sliders=(("smile", 1.0),)
    )
    assert lacking == Lacking(("pink_hair",), ("warmth",), latent=True)
    same, lacking = for_version(
        explored, "a/1", labels=explored.labels, directions=("smile", "warmth")
    )
    assert (same, lacking) == (explored, Lacking())
