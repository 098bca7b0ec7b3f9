"""Morphs, loops, sweeps, mixes and tables: what they show, their limits, and how they stop."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UsageError
from studio.character import Character
from studio.draw import choice_named, draw_one, resolve
from studio.play import (
    DrawOptions,
    FilmOptions,
    mix,
    morph_strip,
    sweep,
    table,
    write_loop,
    write_morph,
)
from tests.studio.small_models import small_model

DCGAN = small_model("dcgan64")
STYLE = small_model("stylegan2")
A = Character(3, ("long_hair", "blonde_hair"))
B = Character(8, ("red_hair", "halo"))


class Stopped(Exception):
    """What a page raises when nobody waits for the film any more."""


def picture_of(model, character: Character, **look) -> np.ndarray:  # type: ignore[no-untyped-def]
    return draw_one(model, character, **look)


@pytest.mark.parametrize(("model", "space"), [(DCGAN, "z"), (STYLE, "z"), (STYLE, "w")])
def test_a_morph_begins_and_ends_with_its_avatars(model, space: str) -> None:  # type: ignore[no-untyped-def]
    strip = morph_strip(model, A, B, DrawOptions(psi=0.8, space=space), steps=4)
    assert np.array_equal(strip[0], picture_of(model, A, psi=0.8))
    assert np.array_equal(strip[-1], picture_of(model, B, psi=0.8))
    assert not any(np.array_equal(one, two) for one, two in itertools.pairwise(strip))


def test_a_film_is_told_frame_by_frame_and_twice_the_same(tmp_path: Path) -> None:
    reported: list[int] = []
    files = []
    for name in ("one", "two"):
        outs = [tmp_path / f"{name}.gif", tmp_path / f"{name}.mp4"]
        options = DrawOptions(advance=reported.append)
        write_morph(DCGAN, A, B, FilmOptions(outs, 0.5, 12, back=True), options)
        files.append([out.read_bytes() for out in outs])
    assert files[0] == files[1]
    assert sum(reported) == 2 * 6
    with Image.open(tmp_path / "one.gif") as film:
        assert (film.size, getattr(film, "n_frames", 0)) == ((64, 64), 6)
        comment = film.info["comment"].decode()
    assert "omokage seeds: 3,8" in comment
    assert "omokage labels: long_hair, blonde_hair; red_hair, halo" in comment
    assert f"omokage generator: {DCGAN.digest}" in comment


@pytest.mark.parametrize("after", [0, 7, 15])
def test_a_film_that_is_stopped_leaves_no_file(tmp_path: Path, after: int) -> None:
    left = [after]

    def advance(_frames: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stopped

    outs = [tmp_path / "film.gif", tmp_path / "film.mp4"]
    with pytest.raises(Stopped):
        write_morph(DCGAN, A, B, FilmOptions(outs, 0.5), DrawOptions(advance=advance))
    assert list(tmp_path.iterdir()) == []


def test_a_loop_shows_its_characters_side_by_side(tmp_path: Path) -> None:
    out = tmp_path / "loop.gif"
    characters = [A, B, Character(5, ())]
    write_loop(STYLE, characters, FilmOptions([out], 0.4, 10), DrawOptions(space="w"))
    with Image.open(out) as film:
        assert (film.size, getattr(film, "n_frames", 0)) == ((32, 32), 4)


@pytest.mark.parametrize(("model", "space"), [(DCGAN, "z"), (STYLE, "w")])
def test_a_sweep_shows_twenty_values_of_one_number(model, space: str) -> None:  # type: ignore[no-untyped-def]
    reported: list[int] = []
    sheet = sweep(model, A, DrawOptions(space=space, advance=reported.append), number=2)
    side = model.spec.resolution_px
    width, height = sheet.picture.size
    assert (width > 20 * side, height) == (True, side)
    assert len(reported) == 20
    assert sheet.facts["omokage number"] == "2"
    cells = np.asarray(sheet.picture)[:, width - 20 * side :].reshape(side, 20, side, 3)
    assert not np.array_equal(cells[:, 0], cells[:, 19])


def test_a_mix_shows_whom_it_mixes_and_tells_of_each_picture() -> None:
    reported: list[int] = []
    sheet = mix(STYLE, [A], [B, Character(5, ())], DrawOptions(advance=reported.append))
    assert (sheet.picture.size, len(reported)) == ((3 * 16, 2 * 16), 5)
    corner = np.asarray(sheet.picture)[:16, 16:32]
    assert np.array_equal(corner, picture_of(STYLE, B))
    assert sheet.facts["omokage crossover"] == "3"
    first, last = (
        np.asarray(mix(STYLE, [A], [B], crossover=layer).picture)[16:, 16:] for layer in (1, 5)
    )
    assert not np.array_equal(first, last)


def test_a_table_keeps_the_character_of_each_column() -> None:
    sheet = table(DCGAN, [["red_hair"], []], [0, 1, 2])
    cells = np.asarray(sheet.picture)[:, -3 * 64 :].reshape(2, 64, 3, 64, 3).swapaxes(1, 2)
    for seed in range(3):
        for row, names in enumerate((["red_hair"], [])):
            labels = resolve(DCGAN, choice_named(names, DCGAN), seed)
            assert np.array_equal(cells[row, seed], draw_one(DCGAN, Character(seed, labels)))
    assert sheet.facts["omokage labels"] == "red hair; any"
    assert sheet.facts["omokage seeds"] == "0-2"


@pytest.mark.parametrize(
    ("requested", "reported"),
    [
        (
            lambda: morph_strip(DCGAN, A, B, DrawOptions(space="w")),
            "dcgan64 has no W, so it cannot morph in W",
        ),
        (lambda: morph_strip(DCGAN, A, B, DrawOptions(space="x")), 'the space is "x"; one of z, w'),
        (lambda: morph_strip(DCGAN, A, B, steps=21), "a whole number from 2 to 20"),
        (lambda: morph_strip(DCGAN, A, A), "Both ends of the morph are the same avatar"),
        (lambda: morph_strip(DCGAN, A, B, DrawOptions(psi=3)), 'psi is "3"'),
        (lambda: morph_strip(DCGAN, A, B, DrawOptions(noise="none")), "dcgan64 has no noise"),
        (lambda: morph_strip(DCGAN, A, Character(-1, ())), 'the seed is "-1"'),
        (lambda: morph_strip(DCGAN, A, Character(1, ("bald",))), 'unknown label "bald"'),
        (lambda: sweep(DCGAN, A, number=100), 'the number of z is "100"; .* from 0 to 99'),
        (lambda: sweep(STYLE, A, DrawOptions(space="w"), number=12), "number of w .* from 0 to 11"),
        (lambda: sweep(DCGAN, A, DrawOptions(space="w")), "no number of W can be swept"),
        (lambda: mix(DCGAN, [A], [B]), "its styles cannot be mixed"),
        (lambda: mix(STYLE, [A], [B], crossover=6), r"where the styles cross .* from 0 to 5"),
        (lambda: mix(STYLE, [], [B]), "0 rows and 1 columns"),
        (lambda: table(DCGAN, [["halo"]] * 5, range(13)), "5 rows and 13 columns .* most 64"),
        (lambda: table(DCGAN, [["halo"], ["hallo"]], [1]), 'did you mean "halo"'),
        (lambda: table(small_model("dcgan64", labels=()), [[]], [1]), "knows no labels"),
        (lambda: FilmOptions([], 31, 10).frames(), "the length in seconds .* from 0.1 to 30"),
        (
            lambda: FilmOptions([], 30).frames(),
            "30 seconds with 24 .* has 720 .* most 300",
        ),
        (lambda: FilmOptions([], 3, 0).frames(), "the frames a second .* from 1 to 60"),
        (lambda: FilmOptions([Path("a.mp4"), Path("b.gif")], 1, 60).frames(), "from 1 to 50"),
    ],
)
def test_what_cannot_be_played_is_refused(requested: Callable[[], object], reported: str) -> None:
    with pytest.raises(UsageError, match=reported) as raised:
        requested()
    assert "--" not in str(raised.value)  # a page has no options


def test_a_film_with_too_many_characters_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the number of avatars .* from 1 to 9"):
        write_loop(DCGAN, [A] * 10, FilmOptions([tmp_path / "a.gif"], 4))
    with pytest.raises(UsageError, match=r"\.mp4 or \.gif wanted"):
        write_loop(DCGAN, [A], FilmOptions([tmp_path / "a.avi"], 4))
    assert list(tmp_path.iterdir()) == []
