"""`omokage review`: sheets, rejections by id, cell and file, and what it refuses."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dataset.cropping import FaceSettings
from dataset.errors import UsageError
from dataset.faces import crop_faces
from dataset.policy import read_rejects
from dataset.store import Store
from pipeline.cli import cli
from tests.dataset.home import Home, png, portrait


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("OMOKAGE_PROGRESS", "off")
    made = Home(Store(str(tmp_path / "home")))
    for seed in range(6):
        made.add(png(portrait(seed, side=96)))
    made.write()
    with ThreadPoolExecutor(2) as executor:
        crop_faces(made.store, FaceSettings(cropped=True), executor)
    return made


def review(home: Home, *arguments: object) -> Result:
    words = ["review", "--home", home.store.root, *map(str, arguments)]
    return CliRunner().invoke(cli, words)


def test_review_then_reject_then_take_back(home: Home, tmp_path: Path) -> None:
    result = review(home)
    assert result.output == (
        f"{home.store.url('review/review.csv')}: the 6 most suspicious of 6 kept faces, "
        "on 1 sheet beside it\n"
    )
    assert "2 new" in review(home, "--reject", "1:A1", "1:A3").output
    (tmp_path / "more.txt").write_text("# by hand\n1:A4  # a clock\n\n")
    assert "1 new" in review(home, "--reject-file", tmp_path / "more.txt").output
    listed = read_rejects(home.store)
    assert len(listed) == 3
    assert "1 taken off" in review(home, "--unreject", listed[0]).output
    assert read_rejects(home.store) == listed[1:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["1:A1"], "did you mean --reject 1:A1"),
        (["--reject"], "no face is named"),
        (["--reject", "--unreject", "1:A1"], "exclude each other"),
        (["--unreject", "--reject-file", "x", "1:A1"], "exclude each other"),
        (["--reject-file", "not-there.txt"], "--reject-file not-there.txt cannot be read"),
    ],
)
def test_mistakes_are_refused(home: Home, arguments: list[str], said: str) -> None:
    result = review(home, *arguments)
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)
    assert read_rejects(home.store) == []
