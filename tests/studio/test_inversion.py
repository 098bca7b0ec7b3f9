"""A picture from outside becomes a recipe: its face is found, drawn nearly alike, and not kept."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.decode import UnreadablePicture
from demo.painter import draw
from models.sampling.inversion import between
from studio.model_source import ModelSource
from studio.service import NO_FACE, Studio, face_square
from tests.models.small_generators import small_generator, write_generator


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    place = tmp_path_factory.mktemp("inversion") / "faces"
    folder = write_generator(place, small_generator("stylegan2"))
    return Studio(ModelSource(folder, tracking_uri="sqlite:///nowhere.db"))


def png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


@pytest.mark.ci
def test_the_recipe_of_a_drawing_draws_its_face_as_near_as_it_says(studio: Studio) -> None:
    drawing = draw(9001)
    steps: list[int] = []
    found = studio.invert(
        png(drawing.image), steps=6, advance=lambda step, _preview: steps.append(step)
    )
    assert found.notice == ""
    assert found.face.shape == (16, 16, 3)
    drawn = studio.redraw(found.recipe.to_query())  # as a link has it
    assert between(drawn[None], found.face[None])[0] == pytest.approx(found.distance, abs=1e-6)
    assert sorted(set(steps)) == list(range(7))
    assert steps == sorted(steps)
    assert steps.count(0) > 1, "it can be stopped before the first step"


def test_the_square_of_a_face_holds_it() -> None:
    drawing = draw(9001)
    face = drawing.faces[0]
    square, notice = face_square(np.asarray(drawing.image.convert("RGB")), 64)
    assert notice == ""
    assert square.x < face.x + face.w / 2 < square.x + square.side
    assert square.y < face.y + face.h / 2 < square.y + square.side
    assert face.w < square.side < 3 * face.w


def test_without_a_face_the_middle_is_taken_and_said() -> None:
    square, notice = face_square(np.full((90, 120, 3), 200, np.uint8), 64)
    assert (square.x, square.y, square.side) == (15, 0, 90)
    assert notice == NO_FACE


def test_nothing_of_an_upload_is_kept(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    kept = studio._kept.size_bytes
    studio.invert(png(Image.new("RGB", (40, 40), "pink")), steps=1)
    assert list(tmp_path.iterdir()) == []
    assert studio._kept.size_bytes == kept


def test_what_is_no_picture_is_refused_by_name(studio: Studio) -> None:
    with pytest.raises(UnreadablePicture, match=r"^me\.txt: "):
        studio.invert(b"hello", "me.txt")
