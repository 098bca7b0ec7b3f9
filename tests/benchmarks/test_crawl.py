"""The benchmark of the crawl runs, compares equal work, and ends with one line of JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.crawl import check_same
from benchmarks.process import BenchmarkError, run

pytestmark = pytest.mark.slow

pytest.importorskip("gallery_dl", reason="gallery-dl comes with the dev extra")

REPOSITORY = Path(__file__).parents[2]


def test_a_tiny_run_ends_with_one_line_of_json(tmp_path: Path) -> None:
    few = ["--posts", "12", "--runs", "1", "--size", "64x64", "--answer-ms", "1"]
    options = [*few, "--memory-posts", "5,10"]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.crawl", *options, "--folder", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    made = json.loads(line)
    assert (made["benchmark"], made["unit"], made["posts"]) == ("crawl", "posts/s", 12)
    assert made["ratio"] == pytest.approx(made["value"] / made["gallery_dl"], rel=0.05)
    assert made["bare_ratio"] == pytest.approx(
        made["bare_value"] / made["bare_gallery_dl"], rel=0.05
    )
    assert made["memory_ratio"] > 0
    assert 20 < made["peak_mb_5"] < 500
    assert 20 < made["peak_mb_10"] < 500
    assert "gallery-dl" in ended.stderr
    assert list(tmp_path.iterdir()) == []  # no scratch is left


def test_sides_that_did_not_do_the_same_work_are_refused(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, content in ((ours, b"one"), (theirs, b"other")):
        folder.mkdir()
        (folder / "1.jpg").write_bytes(content)
    (theirs / "1.json").write_text("{}")
    with pytest.raises(BenchmarkError, match=r"the work was not the same: .* 0 files in both"):
        check_same(ours, theirs, posts=1)
    (theirs / "1.jpg").write_bytes(b"one")
    check_same(ours, theirs, posts=1)
    (theirs / "1.json").unlink()
    with pytest.raises(BenchmarkError, match="with 0 records"):
        check_same(ours, theirs, posts=1)


def test_an_error_has_the_output_of_the_failed_program(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="ended with 3:\nno luck"):
        run(
            [sys.executable, "-c", "import sys; print('no luck'); sys.exit(3)"],
            log=tmp_path / "log",
        )
