"""A user's mistake is one plain message and an exit code, and nothing is lost by it."""

import io
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.store import Store
from tests.pipeline.conftest import Demo, clean_environment
from tests.pipeline.fork_server import WarmOmokage
from tests.pipeline.test_chain import digests


def picture(seed: int, side: int = 96) -> bytes:
    """Smooth coloured noise: a readable picture on which there is no face."""
    rough = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    drawn = Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    return buffer.getvalue()


def folder_of(path: Path, table: str, pictures: dict[str, bytes]) -> Path:
    path.mkdir()
    (path / "tags.csv").write_text(table)
    for name, content in pictures.items():
        (path / name).write_bytes(content)
    return path


def failed(omokage: WarmOmokage, home: Path, *options: str, code: int) -> str:
    """Runs the demo with options that cannot work; returns what it said, without a traceback."""
    ended = omokage.run(["demo", "--home", str(home), *options])
    said = ended.stdout + ended.stderr
    assert ended.returncode == code, said
    assert "Traceback" not in said
    return said


def test_a_wrong_path_is_named(warm: WarmOmokage, tmp_path: Path) -> None:
    said = failed(warm, tmp_path / "h", "--pictures", str(tmp_path / "nowhere.zip"), code=2)
    assert "nowhere.zip is not there; a folder or a zip file wanted" in said


def test_a_faulty_set_is_told_by_file_line_and_column(warm: WarmOmokage, tmp_path: Path) -> None:
    """The board's words reach the terminal; tests/demo/test_pictures.py has all faults of a set."""
    folder = folder_of(tmp_path / "set", "file,hair\na.png,red\nb.png,blue\n", {"a.png": b"x"})
    said = failed(warm, tmp_path / "h", "--pictures", str(folder), code=2)
    assert 'line 3: file "b.png" is not in' in said


@pytest.mark.ci
def test_no_face_anywhere_is_told_with_what_to_try(warm: WarmOmokage, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(6)]
    table = "file,tags\n" + "".join(f"{name},blonde hair\n" for name in names)
    pictures = {name: picture(number) for number, name in enumerate(names)}
    folder = folder_of(tmp_path / "set", table, pictures)
    said = failed(warm, tmp_path / "h", "--pictures", str(folder), code=1)
    assert "No face is left of 6 pictures" in said
    assert "set `cropped`" in said


@pytest.mark.ci
def test_another_collection_does_not_mix_into_a_home(
    demo: Demo, warm: WarmOmokage, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "set", "file,hair\na.png,red\n", {"a.png": picture(1)})
    before = digests(demo.home)
    said = failed(warm, demo.home, "--pictures", str(folder), code=2)
    assert "holds the demo of drawn" in said
    assert "--home" in said
    assert digests(demo.home) == before


def test_an_unknown_training_setting_is_named(
    demo: Demo, warm: WarmOmokage, tmp_path: Path
) -> None:
    config = tmp_path / "mine.yaml"
    wrong = "preset: smoke, overrides: {bacth: '8'}"
    config.write_text(demo.config.read_text().replace("preset: smoke", wrong))
    ended = warm.run([*demo.demo_arguments()[:-1], str(config)])
    said = ended.stdout + ended.stderr
    assert ended.returncode == 3
    assert 'did you mean "batch"?' in said
    assert "Traceback" not in said


@pytest.mark.ci
def test_an_unknown_variable_is_named(demo: Demo, tmp_path: Path) -> None:
    ended = subprocess.run(
        demo.command("status", "--home", str(tmp_path)),
        env=clean_environment() | {"OMOKAGE_WORKRES": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 3
    assert 'OMOKAGE_WORKRES is not a setting; did you mean "OMOKAGE_WORKERS"?' in ended.stderr


@pytest.mark.ci
def test_a_home_that_cannot_be_written_is_named(warm: WarmOmokage) -> None:
    said = failed(warm, Path("/sys/omokage"), code=5)  # read-only even for root
    assert "/sys/omokage" in said
    assert "set OMOKAGE_HOME to a folder that can be written" in said


@pytest.mark.slow
def test_a_full_disk_is_reported_with_the_remedy(
    demo: Demo, warm: WarmOmokage, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can make a small disk")
    try:
        home = disk / "home"
        home.mkdir()
        # The pictures lie elsewhere, so that the crawl is what fills the disk.
        shutil.copytree(demo.home / "board", tmp_path / "board")
        (home / "board").symlink_to(tmp_path / "board")
        ended = warm.run(demo.demo_arguments(home))
        said = ended.stdout + ended.stderr
        assert ended.returncode != 0
        assert "the disk is full; free some space and run the same command again" in said
        assert "Traceback" not in said
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.ci
def test_a_taken_port_is_a_clear_message(warm: WarmOmokage, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = warm.run(["up", "--home", str(tmp_path), "--mlflow-port", str(port)])
    assert ended.returncode == 2
    assert f"port {port} on 127.0.0.1 is taken, so the MLflow server cannot start" in ended.stderr
    assert "--mlflow-port" in ended.stderr


@pytest.mark.ci
def test_a_second_demo_in_the_same_home_is_refused(demo: Demo, warm: WarmOmokage) -> None:
    first = warm.start(demo.demo_arguments())
    for line in first.stderr:
        if line.startswith("▶"):
            break
    first.send_signal(signal.SIGSTOP)  # else it might end before the second has begun
    second = warm.run(demo.demo_arguments())
    for number in (signal.SIGINT, signal.SIGCONT):
        first.send_signal(number)
    assert first.completed().returncode == 130
    assert second.returncode == 2
    assert "another demo, run, training or comparison is at work in" in second.stderr


@pytest.mark.slow
def test_ctrl_c_ends_the_run_and_says_that_the_same_command_resumes(
    demo: Demo, warm: WarmOmokage, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(demo.home / "board", home / "board")
    running = warm.start(demo.demo_arguments(home), in_own_session=True)
    for line in running.stderr:
        if line.startswith("▶ faces"):
            time.sleep(0.6)
            os.killpg(running.pid, signal.SIGINT)  # as a terminal does
            break
    ended = running.completed()
    assert ended.returncode == 130, ended.stderr
    assert "stopped. The same command goes on where this ended." in ended.stderr
    assert not Store(home).exists("manifest/current.json")
