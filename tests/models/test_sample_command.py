import json
import signal
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from models import sample
from models.io.generators import generator_digest, load_generator
from models.labels import label_rows
from models.sampling.draw import draw, latents
from tests.models.small_generators import NAMES, small_generator, write_checkpoint, write_generator


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_generator(tmp_path_factory.mktemp("plain") / "it", small_generator("dcgan64"))


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_generator(tmp_path_factory.mktemp("styled") / "it", small_generator("stylegan2"))


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return summary


def text_of(path: Path) -> dict[str, str]:
    with Image.open(path) as picture:
        return dict(getattr(picture, "text", {}))


def test_a_grid_says_from_what_it_was_drawn_and_has_the_same_bytes_again(
    plain: str, tmp_path: Path
) -> None:
    words = ["--generator", plain, "--labels", "blonde hair,blue_eyes", "--seeds", "3,7-9"]
    words += ["--psi", "0.7", "--columns", "2"]
    for name in ("one.png", "two.png"):
        assert sample.main([*words, "--out", str(tmp_path / name)]) == 0
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    assert one.read_bytes() == two.read_bytes()
    assert text_of(one) == {
        "Software": "Omokage",
        "omokage generator": generator_digest(load_generator(plain)),
        "omokage family": "dcgan64, 64 px",
        "omokage tool": "grid",
        "omokage seeds": "3,7-9",
        "omokage labels": "blonde hair,blue_eyes",
        "omokage psi": "0.7",
        "omokage noise": "const",
    }
    labels = label_rows([["blonde_hair", "blue_eyes"]] * 4, NAMES)
    wanted = draw(load_generator(plain), labels, [3, 7, 8, 9], psi=0.7)
    with Image.open(one) as sheet:
        assert sheet.size == (128, 128)
        assert np.array_equal(np.asarray(sheet)[64:, :64], wanted[2])


def test_the_global_mean_as_truncation_centre_is_drawn_and_said(tmp_path: Path) -> None:
    network = small_generator("stylegan2")
    network.track(torch.full((12,), 100.0))
    folder = write_generator(tmp_path / "it", network)
    words = ["--generator", folder, "--labels", "blue_hair", "--n", "2", "--psi", "0.5"]
    sheets = []
    for centre in ("labels", "global"):
        out = tmp_path / f"{centre}.png"
        assert sample.main([*words, "--truncation-centre", centre, "--out", str(out)]) == 0
        with Image.open(out) as sheet:
            sheets.append(np.asarray(sheet))
    assert "omokage truncation centre" not in text_of(tmp_path / "labels.png")
    assert text_of(tmp_path / "global.png")["omokage truncation centre"] == "global"
    rows = label_rows([["blue_hair"]] * 2, NAMES)
    assert np.array_equal(sheets[0][:, :16], draw(network, rows, range(2), psi=0.5)[0])
    w = network.map(latents(range(2), 12), torch.from_numpy(rows))
    assert w is not None
    halfway = (w + network.get_buffer("w_avg")) / 2
    off = sheets[1][:, :16].astype(int) - draw(network, rows, range(2), w=halfway)[0]
    assert np.abs(off).max() <= 1
    assert not np.array_equal(sheets[0], sheets[1])


def test_without_wishes_each_seed_has_a_real_row_of_labels(plain: str, tmp_path: Path) -> None:
    out = tmp_path / "free.png"
    assert sample.main(["grid", "--generator", plain, "--n", "4", "--out", str(out)]) == 0
    names = [["blonde_hair", "blue_eyes"], ["blue_hair"], ["blonde_hair"]]
    wanted = draw(load_generator(plain), label_rows([*names, names[0]], NAMES), range(4))
    with Image.open(out) as sheet:
        assert np.array_equal(np.asarray(sheet)[:, 192:], wanted[3])
    assert text_of(out)["omokage labels"] == "as they come"


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["table", "--row", "blonde_hair", "--row", "blue_hair,blue_eyes", "--n", "3"], (3, 2)),
        (["table", "--swap", "blonde_hair,blue_hair", "--seeds", "1,5"], (2, 2)),
        (["sweep", "--numbers", "0-2", "--steps", "4"], (4, 3)),
        (["sweep", "--numbers", "1", "--space", "w", "--noise", "none"], (20, 1)),
        (["mix", "--row-seeds", "0-2", "--column-seeds", "5,6", "--psi", "0.8"], (3, 4)),
        (["morph", "--seed", "3", "--to-seed", "7", "--steps", "5"], (5, 1)),
    ],
)
def test_each_tool_draws_its_sheet(
    styled: str, tmp_path: Path, words: list[str], size: tuple[int, int]
) -> None:
    out = tmp_path / "sheet.png"
    assert sample.main([*words, "--generator", styled, "--out", str(out)]) == 0
    with Image.open(out) as sheet:
        columns, rows = size
        titles = sheet.width - 16 * columns  # to the left of tables and sweeps
        assert sheet.height == 16 * rows
        assert titles > 0 if words[0] in ("table", "sweep") else titles == 0
    assert text_of(out)["omokage tool"] == words[0]


def test_a_morph_is_written_as_film_and_strip_at_once(
    styled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / f"morph{end}" for end in (".mp4", ".gif", ".png")]
    words = ["morph", "--generator", styled, "--seed", "3", "--labels", "blonde_hair", "--back"]
    words += ["--to-labels", "blue_hair", "--space", "w", "--seconds", "1", "--fps", "8"]
    words += ["--n", "2", "--columns", "2", "--size", "20"]
    for out in outs:
        words += ["--out", str(out)]
    assert sample.main(words) == 0
    summary = printed(capsys)
    assert (summary["frames"], summary["size"]) == (8, [40, 20])
    with av.open(str(outs[0])) as film:
        assert sum(1 for _ in film.decode(video=0)) == 8
        assert "omokage labels: blonde_hair; blue_hair" in film.metadata["comment"]
    with Image.open(outs[1]) as film:
        assert getattr(film, "n_frames", 0) == 8
    with Image.open(outs[2]) as strip:
        assert strip.size == (10 * 40, 20)


def test_a_loop_is_drawn_from_a_checkpoint(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoints/0000000100", small_generator("dcgan64"))
    out = tmp_path / "loop.gif"
    words = ["loop", "--generator", str(Path(folder).parents[1]), "--labels", "blue_hair"]
    words += ["--n", "3", "--columns", "2", "--seconds", "0.5", "--fps", "10", "--out", str(out)]
    assert sample.main(words) == 0
    with Image.open(out) as film:
        assert (film.size, getattr(film, "n_frames", 0)) == ((128, 128), 5)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_film_with_a_line(
    plain: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    signum: signal.Signals,
) -> None:
    def interrupted(*_: object, **_more: object) -> None:
        signal.raise_signal(signum)

    monkeypatch.setattr("models.sampling.clips.draw_latents", interrupted)
    words = ["loop", "--generator", plain, "--out", str(tmp_path / "loop.mp4")]
    assert sample.main(words) == 128 + signum
    assert "stopped; no unfinished file is left" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grid", "--labels", "blond_hair", "--out", "x.png"], 'did you mean "blonde_hair"?'),
        (["morph", "--to-labels", "blue_hiar", "--out", "x.gif"], 'did you mean "blue_hair"?'),
        (["table", "--out", "x.png"], "either --row A,B for each of its rows, or --swap A,B,C"),
        (["table", "--swap", "blu_hair", "--out", "x.png"], 'did you mean "blue_hair"?'),
        (["morph", "--out", "x.mp4"], "a morph goes nowhere: name another --to-seed"),
        (["morph", "--to-seed", "3", "--out", "x.avi"], ".mp4 or .gif wanted"),
        (["morph", "--to-seed", "3", "--space", "w", "--out", "x.gif"], "dcgan64 has no W"),
        (["loop", "--out", "x.png"], "x.png: a loop moves; .mp4 or .gif wanted"),
        (["mix", "--out", "x.png"], "dcgan64 has no W, which style mixing needs"),
        (["grid", "--truncation-centre", "global", "--out", "x.png"], "--truncation-centre global"),
        (["sweep", "--noise", "random", "--out", "x.png"], "dcgan64 has no noise maps"),
        (["grid", "--device", "cuda:99", "--out", "x.png"], '--device "cuda:99"'),
        (["grid", "--device", "gpu", "--out", "x.png"], '--device "gpu"'),
    ],
)
def test_a_fault_is_one_message_and_leaves_no_file(
    plain: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sample.main([*words, "--generator", plain]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grid", "--n", "0"], '"0" is no number from 1 to 10000'),
        (["grid", "--seeds", "9-3"], '"9-3" is no range of at most 10,000 numbers'),
        (["grid", "--seed", "-1"], "--seed"),
        (["grid", "--psi", "2.5"], '"2.5" is no truncation from 0 to 2'),
        (["loop", "--seconds", "601"], '"601" is no length from 0.1 to 600 seconds'),
        (["loop", "--space", "x"], "invalid choice: 'x'"),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_range(
    plain: str, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        sample.main([*words, "--generator", plain, "--out", "x.png"])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "grid", "table", "morph", "loop", "sweep", "mix"])
def test_each_command_explains_itself_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        sample.main([*([command] if command else []), "--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    if command:
        assert f"python -m models.sample {command} --generator var/generators/ID" in help_text
    else:
        assert "sweep" in help_text
