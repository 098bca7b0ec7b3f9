"""An evaluation that was killed goes on where it was, and memory does not grow with the fakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dataset.manifest import load_manifest
from dataset.store import Store
from models.evaluation.evaluate import evaluate
from models.evaluation.fakes import work_folder
from models.evaluation.plan import protocol_for
from models.io.entry_point import Stopped
from models.sampling.draw import CHUNK
from tests.models.evaluation import child
from tests.models.evaluation.galleries import Gallery, colours
from tests.models.homes import UNSEEN, heads, write_home

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMOKAGE_PROGRESS": "off"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    write_home(root, train=12, evaluated=12)
    return root


def started(home: Path, out: str, fakes: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.models.evaluation.child", str(home), out, str(fakes)]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def drawn_here(home: Path, out: str, fakes: int, capsys: pytest.CaptureFixture[str]) -> int:
    """The pictures that were drawn by the whole of an evaluation, or by the rest of one."""
    capsys.readouterr()
    child.main(str(home), out, fakes)
    return int(json.loads(capsys.readouterr().out.splitlines()[-1])["drawn"])


def numbers(home: Path, out: str) -> str:
    """All that evaluation.json says, but for the time and the folder."""
    text = (home / out / "evaluation.json").read_text().replace(out, "OUT")
    return "\n".join(line for line in text.splitlines() if '"seconds"' not in line)


@pytest.mark.slow
def test_a_killed_evaluation_resumes_at_its_chunk_and_gives_the_same_bytes(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes = 20 * CHUNK
    whole = drawn_here(home, "whole", fakes, capsys)
    killed = started(home, "killed", fakes)
    end = time.monotonic() + 600
    row = 4 * (48 + 3 + 8)  # bytes: features, tone, logits
    path = None
    while path is None or not path.exists() or path.stat().st_size < 2 * CHUNK * row:
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < end
        path = next(iter(home.glob("evaluating/*/repeat-1.f32")), None)
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = path.stat().st_size // row // CHUNK * CHUNK
    with path.open("ab") as file:
        file.write(b"torn")
    again = drawn_here(home, "killed", fakes, capsys)
    assert numbers(home, "killed") == numbers(home, "whole")
    assert again == whole - fakes - done
    assert not list(home.glob("evaluating/*/*"))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_fakes(home: Path) -> None:
    peaks = []
    for count in (400, 1600):
        process = started(home, f"memory-{count}", count)
        stdout, stderr = process.communicate(timeout=600)
        assert process.returncode == 0, stderr
        peaks.append(json.loads(stdout.splitlines()[-1])["peak_mb"])
    few, many = peaks
    assert many < 1.05 * few  # 1,200 pictures more of 48 px are 8 MB as bytes, 33 MB as numbers


def test_a_signal_ends_it_with_a_word_and_what_is_drawn_stays(home: Path) -> None:
    store, network = Store(home), colours()
    protocol = protocol_for(network, fakes=130, repeats=1, flips=0, psis=())
    subject: dict[str, Any] = {
        "generator": Gallery(*heads(UNSEEN, 20)),
        "identity": {"generator_sha256": "x"},
        "manifest": load_manifest(store, None),
        "network": network,
    }
    generator = subject["generator"]
    with pytest.raises(Stopped, match="the same command goes on"):
        evaluate(store, "stopped", protocol, **subject,
                 stop_signal=lambda: 15 if generator.drawn else 0)  # fmt: skip
    assert generator.drawn == CHUNK
    made = evaluate(store, "stopped", protocol, **subject)
    assert generator.drawn == 130 + CHUNK + 8  # the grid and the neighbours are drawn again
    assert made["reused"] is False
    assert evaluate(store, "stopped", protocol, **subject)["reused"] is True
    assert generator.drawn == 130 + CHUNK + 8


def test_an_evaluation_from_before_spread_and_coverage_is_made_again(home: Path) -> None:
    store, network = Store(home), colours()
    protocol = protocol_for(network, fakes=20, repeats=1, flips=0, psis=())
    subject: dict[str, Any] = {
        "generator": Gallery(*heads(UNSEEN, 20)),
        "identity": {"generator_sha256": "x"},
        "manifest": load_manifest(store, None),
        "network": network,
    }
    made = evaluate(store, "older", protocol, **subject)
    newer = ("spread", "coverage")
    older = {name: value for name, value in made.items() if not any(n in name for n in newer)}
    store.write_json("older/evaluation.json", older)
    again = evaluate(store, "older", protocol, **subject)
    assert (again["reused"], again["spread"]) == (False, made["spread"])


def test_what_another_identity_left_is_begun_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with work_folder(store, "out", {"generator_sha256": "one"}):
        (file,) = (tmp_path / "evaluating").glob("*/state.json")
        (file.parent / "repeat-0.f32").write_bytes(b"rows")
    with work_folder(store, "out", {"generator_sha256": "one"}):
        assert (file.parent / "repeat-0.f32").exists()
    with work_folder(store, "out", {"generator_sha256": "two"}):
        assert not (file.parent / "repeat-0.f32").exists()
