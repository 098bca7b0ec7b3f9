"""A recipe has one text, which reads back as the same recipe; all faults are reported."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.errors import UsageError
from models.sampling import draw
from models.sampling.characters import read_shift, shift_text
from studio import recipe as recipes
from studio.edits import Edits
from studio.recipe import FACTORS, KEYS, NOISES, Recipe
from studio.upscaling import DENOISE
from studio.validation import MAX_SEED
from tests.studio.test_edits import all_edits, unhurried

GOOD = "model=avatar-generator%2F3&seed=17"
NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=","), min_size=1)
MODELS = st.one_of(
    st.from_regex(r"sha256:[0-9a-f]{16}", fullmatch=True),
    st.builds(
        lambda name, version: f"{name}/{version}",
        st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/:"), min_size=1),
        st.integers(1, 10**9),
    ),
)


LATENTS = st.integers(0, 2**32).map(
    lambda seed: shift_text(np.random.default_rng(seed).normal(size=(seed % 3 + 1, seed % 5 + 1)))
)


def amounts(names: st.SearchStrategy[Any], low: float, high: float) -> st.SearchStrategy[Any]:
    return st.dictionaries(names, st.floats(low, high), max_size=4).map(
        lambda pairs: tuple(pairs.items())
    )


@st.composite
def recipe_values(draw: st.DrawFn) -> Recipe:
    labels = draw(st.lists(NAMES.map(lambda name: name[:20]), max_size=5, unique=True))
    return Recipe(
        draw(MODELS),
        draw(st.integers(0, MAX_SEED)),
        tuple(labels),
        draw(st.floats(0, 2)),
        strengths=draw(amounts(st.sampled_from(labels), 0.0001, 1)) if labels else (),
        variations=draw(amounts(st.integers(0, MAX_SEED), -2, 2)),
        sliders=draw(amounts(NAMES.map(lambda name: name[:20]), -10, 10)),
        latent=draw(st.one_of(st.just(""), LATENTS)),
        noise=draw(st.sampled_from(NOISES)),
        upscale=draw(st.sampled_from(FACTORS)),
        denoise=draw(st.sampled_from(DENOISE)),
        edits=draw(all_edits()),
    )


@unhurried
@given(recipe_values())
def test_queries_read_back_as_the_same_recipe(recipe: Recipe) -> None:
    query = recipe.to_query()
    assert query.isascii()
    assert Recipe.from_query(query) == recipe
    assert Recipe.from_query(f"?{query}").to_query() == query


@pytest.mark.parametrize(
    ("recipe", "query"),
    [
        (Recipe("avatar-generator/3", 17), GOOD),
        (
            Recipe("avatar-generator/3", 17, ("blonde_hair", "blue_eyes"), 0.7),
            f"{GOOD}&labels=blonde_hair%2Cblue_eyes&psi=0.7",
        ),
        (
            Recipe(
                "sha256:0123456789abcdef",
                0,
                ("café & co",),
                0,
                noise="none",
                upscale=4,
                denoise=0,
                edits=Edits(rotate=90, hue=-5),
            ),
            "model=sha256%3A0123456789abcdef&seed=0&labels=caf%C3%A9%20%26%20co&psi=0&noise=none"
            "&upscale=4&denoise=0&edits=rotate%3D90%3Bhue%3D-5",
        ),
        (Recipe("avatar-generator/3", 17, psi=1.00001, denoise=2), GOOD),
        (
            Recipe(
                "avatar-generator/3",
                17,
                (":d", "smile"),
                strengths=(("smile", 1), (":d", 0.5)),
                variations=((12, 0.4), (3, -0.25), (5, 0.00001)),
                sliders=(("smile", 1.5), ("age", -0.5), ("x", 0)),
                latent="AQEAPH-B",
            ),
            f"{GOOD}&labels=%3Ad%2Csmile&strengths=%3Ad%3A0.5&variations=3%3A-0.25%2C12%3A0.4"
            "&sliders=age%3A-0.5%2Csmile%3A1.5&latent=AQEAPH-B",
        ),
    ],
)
def test_each_recipe_has_one_query(recipe: Recipe, query: str) -> None:
    assert recipe.to_query() == query
    assert Recipe.from_query(query) == recipe


def test_decoded_values_are_read_too() -> None:
    values = {"model": "a/1", "seed": "5", "labels": "x,y", "edits": "hue=5"}
    assert Recipe.from_query(values) == Recipe("a/1", 5, ("x", "y"), edits=Edits(hue=5))


def test_a_plus_is_a_space_as_browsers_write_it() -> None:
    assert Recipe.from_query(f"{GOOD}&labels=a+b").labels == ("a b",)


@pytest.mark.parametrize(
    ("query", "reported"),
    [
        ("", "model is missing"),
        ("seed=1", "model is missing"),
        ("model=a%2F1", "seed is missing"),
        (f"{GOOD}&laels=x", 'unknown key "laels"; did you mean "labels"?'),
        (f"{GOOD}&q=x", 'unknown key "q"; there are model, seed, labels, psi, noise, upscale'),
        (f"{GOOD}&psi=1&psi=1", '"psi" stands twice'),
        (f"{GOOD}&psi", '"psi" is no setting; one such as seed=17 is wanted'),
        (f"{GOOD}&psi=2.5", 'psi is "2.5"; a number of 0 (the mean face) to 2 is wanted'),
        (f"{GOOD}&psi=9", 'psi is "9"; a number'),
        (f"{GOOD}&psi=nan", 'psi is "nan"; a number'),
        (f"{GOOD}&psi=", 'psi is ""; a number'),
        (f"{GOOD}&noise=loud", 'noise is "loud"; one of const, none, random is wanted'),
        (f"{GOOD}&upscale=3", 'upscale is "3"; 1, 2 or 4 is wanted'),
        (f"{GOOD}&denoise=4", 'denoise is "4"; -1 (none) or 0 to 3 is wanted'),
        (f"{GOOD}&labels=a,,b", 'labels hold ""; printable names of 1 to 200 characters'),
        (f"{GOOD}&labels=a,b,a", 'labels hold "a" twice'),
        (f"{GOOD}&labels=%00", 'labels hold "?"; printable'),
        (f"{GOOD}&labels={'a' * 201}", "printable names of 1 to 200"),
        (f"{GOOD}&labels=%ff", '"labels=%ff" is not UTF-8'),
        (f"{GOOD}&labels=a&strengths=b:0.5", 'strengths hold "b", which is none of the labels'),
        (f"{GOOD}&labels=a&strengths=a:0", 'strengths hold "a" with "0"; a number above 0'),
        (f"{GOOD}&labels=a&strengths=a", 'strengths hold ""; a label\'s name is wanted, as in smi'),
        (f"{GOOD}&labels=a&strengths=a:.5", 'strengths hold "a" with ".5"; a number above 0'),
        (f"{GOOD}&variations=x:1", 'variations hold "x"; a whole number of 0 to 9007199254740991'),
        (f"{GOOD}&variations=1:2.1", 'variations hold "1" with "2.1"; a number of -2 to 2 is'),
        (f"{GOOD}&variations=1:1,1:2", 'variations hold "1" twice'),
        (f"{GOOD}&variations=" + "1:1," * 16 + "2:1", "variations are 17; at most 16 are wanted"),
        (f"{GOOD}&sliders=smile:11", 'sliders hold "smile" with "11"; a number of -10 to 10 is'),
        (f"{GOOD}&latent=A.", 'latent is "A.", the latent of no picture: it is damaged: no text'),
        (f"{GOOD}&latent=AQ", "it is cut off"),
        (f"{GOOD}&latent=AgEAPH-B", "it is of version 2; 1 is known here"),
        (f"{GOOD}&latent=AQIAPH-B", "6 bytes are no 2 rows"),
        (f"{GOOD}&latent=AQEAfH-B", "it holds what is no number"),
        (f"{GOOD}&latent=AQEAPH-A", "it holds what is no number"),
        (f"{GOOD}&edits=hue%3D999", 'edits: hue is "999"; a number of -180 to 180 is wanted'),
        ("model=a%2F1&seed=-1", 'seed is "-1"; a whole number of 0 to 9007199254740991 is wanted'),
        ("model=a%2F1&seed=1.0", 'seed is "1.0"; a whole'),
        (f"model=a%2F1&seed={MAX_SEED + 1}", f'seed is "{MAX_SEED + 1}"; a whole'),
        (f"model=a%2F1&seed={'9' * 3000}", "a whole number"),
        ("model=champion&seed=1", 'model is "champion"; a registered model\'s name and version'),
        ("model=a%2F0&seed=1", 'model is "a/0"'),
        ("model=%2Fetc%2Fpasswd&seed=1", 'model is "/etc/passwd"'),
        ("model=a%2F1&seed=1&" + "x" * 16_384, "at most 16,384 are read"),
    ],
)
def test_a_faulty_query_is_told_with_its_key_and_what_is_wanted(query: str, reported: str) -> None:
    with pytest.raises(UsageError) as refused:
        Recipe.from_query(query)
    assert reported in str(refused.value)
    assert len(str(refused.value)) < 500


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        Recipe.from_query("model=1&seed=x&psi=9&laels=3&edits=crop%3D1%3Bhue%3Dx&noise=a&upscale=5")
    lines = str(refused.value).splitlines()
    assert lines[0] == "the settings of the picture: 8 faults"
    starts = [line.split()[0] for line in lines[1:]]
    assert starts == ["unknown", "model", "seed", "psi", "noise", "upscale", "edits:", "edits:"]


@unhurried
@given(st.text(max_size=80))
def test_no_query_raises_anything_else(text: str) -> None:
    with pytest.raises(UsageError):
        Recipe.from_query(text)
    for key in KEYS:
        try:
            recipe = Recipe.from_query({"model": "a/1", "seed": "1", key: text})
        except UsageError:
            continue
        assert Recipe.from_query(recipe.to_query()) == recipe


@pytest.mark.parametrize(
    ("values", "reported"),
    [
        ({"seed": True}, 'seed is "True"'),
        ({"seed": "1"}, "seed"),
        ({"psi": float("nan")}, 'psi is "nan"'),
        ({"psi": None}, 'psi is "None"'),
        ({"labels": "blonde_hair"}, 'labels are "blonde_hair"; a tuple of names is wanted'),
        ({"labels": ("a,b",)}, 'labels hold "a,b"'),
        ({"labels": (" a",)}, 'labels hold " a"'),
        ({"labels": ("\ud800",)}, 'labels hold "?"'),
        ({"labels": tuple(f"{n:0100}" for n in range(200))}, "at most 16,384"),
        ({"upscale": 2.0}, 'upscale is "2"'),
        ({"denoise": None}, 'denoise is "None"'),
        ({"edits": "hue=1"}, "edits are"),
        ({"model": 3}, 'model is "3"'),
        ({"sliders": {"smile": 1}}, "sliders are"),
        ({"sliders": (("smile", math.nan),)}, 'sliders hold "smile" with "nan"'),
        ({"variations": ((True, 1.0),)}, 'variations hold "True"'),
        ({"latent": None}, "latent is"),
    ],
)
def test_values_that_are_no_recipe_are_refused(values: dict[str, object], reported: str) -> None:
    with pytest.raises(UsageError) as refused:
        Recipe(**{"model": "a/1", "seed": 1, **values})  # type: ignore[arg-type]
    assert reported in str(refused.value)


@given(
    st.integers(1, 5).flatmap(
        lambda rows: st.lists(
            st.lists(st.floats(-1000, 1000), min_size=3, max_size=3), min_size=rows, max_size=rows
        )
    )
)
def test_a_latent_reads_back_within_its_step(rows: list[list[float]]) -> None:
    shift = np.array(rows)
    text = shift_text(shift)
    read = read_shift(text)
    step = np.abs(shift).max(axis=1, keepdims=True) / 127
    assert (np.abs(read - shift) <= 0.57 * step + 4e-6).all()  # float16 keeps 11 bits of a step
    assert (
        shift_text(read) == text or np.abs(read_shift(shift_text(read)) - read).max() <= step.max()
    )


def test_the_kinds_of_noise_are_those_of_the_sampler() -> None:
    assert recipes.NOISES == draw.NOISES
