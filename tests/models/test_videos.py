import builtins
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from dataset.errors import StoreError, UsageError
from models.labels import label_rows
from models.sampling.characters import characters
from models.sampling.clips import Clip, around, loop, make_clip
from models.sampling.video import mp4_writer, shared_palette, write_clip, yuv420p
from tests.models.small_generators import NAMES, small_generator

FACTS = {"omokage family": "stylegan2, 16 px", "omokage seeds": "1,2"}


@pytest.fixture(scope="module")
def clip() -> Clip:
    network = small_generator("stylegan2")
    labels = label_rows([["blonde_hair"], ["blue_hair"]], NAMES)
    way = loop(network, characters(network.spec, [1, 2], labels))
    return make_clip(network, [1, 2], way, around(24), columns=2, cell_px=25)


def brightness(picture: Any) -> Any:
    """The luma [H,W]: colours are kept at half the side by yuv420p."""
    return np.asarray(Image.fromarray(picture).convert("L"), dtype=int)


def test_an_mp4_is_h264_as_browsers_play_it(tmp_path: Path, clip: Clip) -> None:
    film = tmp_path / "film.mp4"
    write_clip(clip, [film], fps=12, facts=FACTS)
    with av.open(str(film)) as opened:
        stream = opened.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.width, context.height) == (50, 26)  # 50 x 25, made even
        assert stream.average_rate == 12
        assert "omokage seeds: 1,2" in opened.metadata["comment"]
        shown = [frame.to_ndarray(format="rgb24") for frame in opened.decode(stream)]
    assert len(shown) == 24
    content = film.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # faststart
    assert b"avc1" in content
    for drawn, seen in zip(clip.frames(), shown, strict=True):
        assert np.abs(brightness(drawn) - brightness(seen[:25])).mean() < 6


def test_colours_survive_the_film(tmp_path: Path) -> None:
    colours = [(240, 30, 30), (30, 200, 60), (40, 60, 230), (250, 220, 190)]
    bars = np.repeat(np.array(colours, dtype=np.uint8), 16, axis=0)[None].repeat(64, axis=0)
    with mp4_writer(tmp_path / "bars.mp4", (64, 64), 10) as write:
        for _ in range(3):
            write(bars)
    with av.open(str(tmp_path / "bars.mp4")) as opened:
        assert opened.streams.video[0].codec_context.colorspace == 1  # BT.709, and said so
        frame = next(opened.decode(video=0))
        seen = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    for number, colour in enumerate(colours):
        assert np.abs(seen[32, 16 * number + 8].astype(int) - colour).max() <= 6


def test_a_gif_plays_for_ever_in_the_given_time(tmp_path: Path, clip: Clip) -> None:
    film = tmp_path / "film.gif"
    write_clip(clip, [film], fps=30, facts=FACTS)
    with Image.open(film) as opened:
        assert opened.size == (50, 25)
        assert opened.info["loop"] == 0
        assert b"omokage family: stylegan2, 16 px" in opened.info["comment"]
        shown, length_ms = [], 0
        for number in range(getattr(opened, "n_frames", 0)):
            opened.seek(number)
            length_ms += opened.info["duration"]
            shown.append(np.asarray(opened.convert("RGB")))
    assert len(shown) == 24
    assert length_ms == 800
    for drawn, seen in zip(clip.frames(), shown, strict=True):
        assert np.abs(drawn.astype(int) - seen).mean() < 10


def test_the_same_clip_gives_the_same_bytes_and_both_files_at_once(
    tmp_path: Path, clip: Clip
) -> None:
    for folder in ("one", "two"):
        outs = [tmp_path / folder / f"film{end}" for end in (".mp4", ".gif")]
        write_clip(clip, outs, fps=10)
    for end in (".mp4", ".gif"):
        first, second = (tmp_path / folder / f"film{end}" for folder in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


def test_colours_become_video_range_bt709() -> None:
    # White, black and pure red, from the standard's own equations.
    for rgb, wanted in (
        ((255, 255, 255), (235, 128, 128)),
        ((0, 0, 0), (16, 128, 128)),
        ((255, 0, 0), (63, 102, 240)),
    ):
        planes = yuv420p(np.full((4, 6, 3), rgb, dtype=np.uint8))
        assert [plane.shape for plane in planes] == [(4, 6), (2, 3), (2, 3)]
        assert tuple(int(plane[0, 0]) for plane in planes) == wanted


def test_a_palette_is_shared_by_all_frames() -> None:
    frames = [np.full((4, 4, 3), value, dtype=np.uint8) for value in (0, 120, 250)]
    palette = shared_palette(frames)
    colours = np.array(palette.getpalette("RGB")).reshape(-1, 3)
    for value in (0, 120, 250):
        assert np.abs(colours - value).max(axis=1).min() <= 2


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [
        ("film.webm", 10, r'film.webm ends in ".webm"; .mp4 or .gif wanted'),
        ("film.gif", 60, "60 frames a second; 1 to 50 wanted"),
        ("film.mp4", 61, "1 to 60 wanted"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_any_drawing(
    tmp_path: Path, clip: Clip, name: str, fps: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write_clip(clip, [tmp_path / name], fps=fps)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_beyond_what_browsers_play_is_refused(tmp_path: Path, clip: Clip) -> None:
    large = make_clip(clip.generator, [1, 2], clip.at, [0.0], columns=2, cell_px=2050)
    with pytest.raises(UsageError, match="4100 x 2050 px, at most 4096 wanted"):
        write_clip(large, [tmp_path / "film.mp4"], fps=10)


def test_without_pyav_the_package_is_named_and_a_gif_still_goes(
    tmp_path: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_av(name: str, *rest: Any, **more: Any) -> Any:
        if name == "av":
            raise ImportError("No module named 'av'")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "av")
    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(UsageError, match=r'film\.mp4 needs the package "av"'):
        write_clip(clip, [tmp_path / "film.mp4"], fps=10)
    write_clip(clip, [tmp_path / "film.gif"], fps=10)
    assert (tmp_path / "film.gif").exists()


@pytest.mark.parametrize("end", [".mp4", ".gif"])
def test_a_film_that_is_broken_off_leaves_nothing(tmp_path: Path, clip: Clip, end: str) -> None:
    def breaks(t: float) -> Any:
        if t > 0.5:
            raise KeyboardInterrupt
        return clip.at(t)

    times = [0.1] * 20 + [0.9]
    broken = make_clip(clip.generator, clip.seeds, breaks, times)
    (tmp_path / f"film{end}").write_bytes(b"the one before")
    with pytest.raises(KeyboardInterrupt):
        write_clip(broken, [tmp_path / f"film{end}"], fps=10)
    assert [path.name for path in tmp_path.iterdir()] == [f"film{end}"]
    assert (tmp_path / f"film{end}").read_bytes() == b"the one before"


def test_a_folder_that_cannot_be_written_is_found_out_first(tmp_path: Path, clip: Clip) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"film\.mp4: a part of the path is a file"):
        write_clip(clip, [tmp_path / "file/film.mp4"], fps=10)
