import itertools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dataset.errors import UsageError
from models.families.base import GeneratorNet
from models.labels import label_rows
from models.sampling.characters import Characters, Points, characters
from models.sampling.clips import (
    around,
    loop,
    make_clip,
    morph,
    one_way,
    there_and_back,
)
from models.sampling.draw import draw
from models.sampling.video import write_clip
from tests.models.small_generators import NAMES, small_generator

Rows = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def styled() -> GeneratorNet:
    return small_generator("stylegan2")


def rows(*names: str) -> Rows:
    return label_rows([[name] for name in names], NAMES)


Ends = tuple[int, str, int, str]  # seed and label of both


def who(network: GeneratorNet, seed: int, label: str = "blonde_hair") -> Characters:
    return characters(network.spec, [seed], rows(label))


def way_between(
    network: GeneratorNet, both: Ends = (1, "blonde_hair", 2, "blonde_hair"), **how: Any
) -> Any:
    return morph(network, who(network, *both[:2]), who(network, *both[2:]), **how)


def apart(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize(("space", "path"), [("z", ""), ("z", "lerp"), ("w", ""), ("w", "slerp")])
@pytest.mark.parametrize(
    "both", [(1, "blonde_hair", 2, "blonde_hair"), (1, "blonde_hair", 1, "blue_hair")]
)
def test_a_morph_goes_from_one_picture_to_the_other(
    styled: GeneratorNet, space: str, path: str, both: Ends
) -> None:
    way = way_between(styled, both, space=space, path=path, psi=0.8)
    frames = list(make_clip(styled, [1], way, one_way(9), psi=0.8).frames())
    start, end = (
        draw(styled, rows(label), [seed], psi=0.8)[0] for seed, label in (both[:2], both[2:])
    )
    assert np.abs(frames[0].astype(int) - start).max() <= 1
    assert np.abs(frames[-1].astype(int) - end).max() <= 1
    whole = apart(start, end)
    assert all(0 < apart(a, b) < 0.7 * whole for a, b in itertools.pairwise(frames))


def test_labels_on_the_way_lie_between_those_of_the_ends(styled: GeneratorNet) -> None:
    way = way_between(styled, (1, "blonde_hair", 1, "blue_hair"))
    assert np.allclose(way(0.25).labels, [[0.75, 0.25, 0]])
    assert torch.equal(way(0.25).z, way(0).z)


def test_a_family_without_w_morphs_in_z() -> None:
    plain = small_generator("dcgan64")
    clip = make_clip(plain, [1], way_between(plain), one_way(3))
    first = draw(plain, rows("blonde_hair"), [1])[0]
    assert np.abs(next(clip.frames()).astype(int) - first).max() <= 1


@pytest.mark.parametrize("space", ["z", "w"])
def test_a_loop_closes_and_begins_with_the_avatars_of_its_seeds(
    styled: GeneratorNet, space: str
) -> None:
    labels = rows("blonde_hair", "blue_hair", "blue_eyes")
    way = loop(styled, characters(styled.spec, [5, 6, 7], labels), space=space)
    clip = make_clip(styled, [5, 6, 7], way, around(24), columns=2)
    frames = list(clip.frames())
    assert frames[0].shape == (32, 32, 3)
    assert (frames[0][16:, 16:] == 255).all()
    first, beyond = clip.frames_at([0.0, 1.0])
    assert np.array_equal(first, beyond)
    avatars = draw(styled, labels, [5, 6, 7])
    assert np.abs(frames[0][:16, 16:].astype(int) - avatars[1]).max() <= 1
    steps = [apart(a, b) for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    assert 0 < max(steps) < 6 * np.mean(steps)
    assert apart(frames[0], frames[12]) > 2 * np.mean(steps)


def test_a_cell_walks_by_its_seed_alone(styled: GeneratorNet) -> None:
    both = loop(styled, characters(styled.spec, [5, 6], rows("blonde_hair", "blonde_hair")))
    alone = loop(styled, who(styled, 6))
    assert torch.equal(both(0.3).z[1], alone(0.3).z[0])


def test_times_close_a_loop_or_reach_the_end() -> None:
    assert one_way(3) == [0, 0.5, 1]
    assert around(4) == [0, 0.25, 0.5, 0.75]
    back = there_and_back(4)
    assert back == pytest.approx([0, 0.5, 1, 0.5])


def test_cells_are_resized_and_keep_their_noise(styled: GeneratorNet) -> None:
    still = Points(torch.ones(1, 12), rows("blonde_hair"))
    clip = make_clip(styled, [3], lambda _t: still, one_way(2), cell_px=25, noise="random")
    first, second = clip.frames()
    assert first.shape == (25, 25, 3)
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda G: way_between(G, space="w"), "dcgan64 has no W, which --space w needs"),
        (lambda G: loop(G, who(G, 1), space="w"), "dcgan64 has no W"),
        (lambda G: way_between(G, space="x"), 'space is "x"; z or w wanted'),
        (lambda G: way_between(G, path="arc"), "one of lerp, slerp wanted"),
        (lambda G: make_clip(G, [1], way_between(G), [0.0], psi=3), "psi is 3; 0"),
        (lambda G: make_clip(G, [1], way_between(G), [0.0], noise="none"), "no noise maps"),
    ],
)
def test_what_cannot_be_done_is_said_by_name(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(small_generator("dcgan64"))


def test_uniform_latents_go_straight_and_refuse_an_arc() -> None:
    uniform = small_generator("dcgan64", z_dist="uniform")
    way = way_between(uniform)
    assert torch.allclose(way(0.5).z, (way(0).z + way(1).z) / 2)
    with pytest.raises(UsageError, match="an arc would leave that range: use --path lerp"):
        way_between(uniform, path="slerp")


class Watched(np.ndarray[Any, np.dtype[np.uint8]]):
    """An array that can be watched until it is gone."""


@pytest.mark.parametrize("end", [".mp4", ".gif"])
def test_frames_are_not_kept_however_long_the_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, styled: GeneratorNet, end: str
) -> None:
    clip = make_clip(styled, [1], way_between(styled), one_way(120))
    live = most = 0
    drawn = type(clip).frames_at

    def gone() -> None:
        nonlocal live
        live -= 1

    def watched(self: Any, times: Any) -> Any:
        nonlocal live, most
        for frame in drawn(self, times):
            seen = frame.copy().view(Watched)
            weakref.finalize(seen, gone)
            live += 1
            most = max(most, live)
            yield seen

    monkeypatch.setattr(type(clip), "frames_at", watched)
    write_clip(clip, [tmp_path / f"film{end}"], fps=30)
    assert most <= 14  # the palette's twelve, or the one that is drawn and the one that is written
    assert live == 0
