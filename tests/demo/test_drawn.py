"""The drawn collection: same seed, same files; painted once; resumes after a stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from demo import drawn
from demo.collection import REFUSALS, Collection, CollectionError
from demo.drawn import drawn_collection
from demo.media import ANIMATIONS, encode_animation

FEW = 8


class StopError(Exception):
    pass


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Collection]:
    """A few posts, drawn once, and their folder: to be read and copied only."""
    folder = tmp_path_factory.mktemp("few")
    return folder, drawn_collection(folder, FEW, workers=1)


def painted_files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("character-*.*")}


def test_the_same_seed_gives_the_same_collection(
    few: tuple[Path, Collection], tmp_path: Path
) -> None:
    _folder, first = few
    second = drawn_collection(tmp_path / "b", FEW, workers=1)
    other = drawn_collection(tmp_path / "c", FEW, seed=4, workers=1)
    assert first.entries == second.entries
    assert {entry.md5 for entry in first}.isdisjoint(entry.md5 for entry in other)


def test_a_process_pool_paints_what_one_process_paints(
    few: tuple[Path, Collection], tmp_path: Path
) -> None:
    _folder, alone = few
    together = drawn_collection(tmp_path, FEW, workers=2)
    assert alone.entries == together.entries


def test_an_interrupted_drawing_resumes(tmp_path: Path) -> None:
    def stop_at_four(done: int, _: int) -> None:
        if done == 4:
            raise StopError

    with pytest.raises(StopError):
        drawn_collection(tmp_path, FEW, workers=1, on_progress=stop_at_four)
    before = painted_files(tmp_path)
    assert before
    # A run killed in the middle of a write leaves half a row.
    (index,) = tmp_path.rglob(drawn.INDEX)
    with index.open("a") as file:
        file.write('{"key": "charac')
    steps: list[tuple[int, int]] = []
    drawn_collection(tmp_path, FEW, workers=1, on_progress=lambda *step: steps.append(step))
    assert steps[0][0] == 4
    after = painted_files(tmp_path)
    assert {name: after[name] for name in before} == before
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    assert len(rows) == steps[-1][1]


@pytest.mark.parametrize("kind", ANIMATIONS)
def test_an_animation_is_encoded_to_the_same_bytes(kind: str) -> None:
    picture = Image.effect_mandelbrot((300, 400), (-2.0, -1.5, 1.0, 1.5), 80).convert("RGB")
    first = encode_animation(picture, kind)
    assert first[1:] == ((240, 320), 1.0)
    assert encode_animation(picture, kind) == first


def test_a_damaged_file_is_painted_again(few: tuple[Path, Collection], tmp_path: Path) -> None:
    folder, first = few
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    entry = next(entry for entry in first if entry.refusal is None)
    (path,) = tmp_path.rglob(entry.body)
    path.write_bytes(b"short")
    again = drawn_collection(tmp_path, FEW, workers=1)
    assert again.entries == first.entries
    assert len(again.read(entry)) == entry.size_bytes


def test_2200_posts_hold_2000_ordinary_ones_and_every_kind_to_refuse() -> None:
    assigned = drawn._assign(2200, 0)
    assert 2000 <= assigned.count(None) <= 2020
    assert {refusal.name for refusal in assigned if refusal} == {kind.name for kind in REFUSALS}


def test_a_collection_drawn_larger_keeps_its_older_posts(
    few: tuple[Path, Collection], tmp_path: Path
) -> None:
    folder, small = few
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    large = drawn_collection(tmp_path, FEW + 5, workers=1)
    assert len(large.entries) == FEW + 5
    assert large.entries[:FEW] == small.entries


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_to_refuse_is_among_the_first_58_posts(seed: int) -> None:
    first = drawn._assign(58, seed)
    assert sorted(kind.name for kind in first if kind) == sorted(kind.name for kind in REFUSALS)
    assert first == drawn._assign(500, seed)[:58]


def test_a_collection_without_posts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="count is 0"):
        drawn_collection(tmp_path, 0)


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CollectionError, match="not a folder"):
        drawn_collection(tmp_path / "file", 2)
