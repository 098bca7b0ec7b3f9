"""`omokage import` says what it took in, and ends with a code when it took nothing."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crawlers.export import export_posts
from dataset.store import Store
from pipeline.commands.importing import name_of
from tests.pipeline.conftest import run


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A zip of three pictures with a table, in which one row has a fault."""
    path = tmp_path / "My Faces-2.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(3):
            archive.writestr(f"faces/{number}.png", picture(number))
        rows = ["file,hair,eyes", *(f"{number}.png,blonde hair,blue eyes" for number in range(4))]
        archive.writestr("tags.csv", "\n".join(rows))
    return path


def imported(home: Path, *arguments: str, code: int = 0) -> str:
    """Imports as a person would; returns what was said, without a traceback."""
    command = [sys.executable, "-m", "pipeline.cli", "import", "--home", str(home), *arguments]
    ended: subprocess.CompletedProcess[str] = run(command)
    said = ended.stdout + ended.stderr
    assert ended.returncode == code, said
    assert "Traceback" not in said
    return said


def test_a_zip_goes_in_with_a_warning_for_its_bad_row(tmp_path: Path, faces: Path) -> None:
    home = tmp_path / "home"
    options = ("folder", str(faces), "--cropped", "--rating", "general")
    said = imported(home, *options)
    assert "import my_faces_2: 4 records seen, 3 kept, 0 refused, 0 known already" in said
    assert "warning: 1 record or file has a fault and was left out" in said
    assert 'tags.csv, line 5: file "3.png" is not in My Faces-2' in said
    assert "all of them: imports/my_faces_2-faults.jsonl in the home" in said
    assert "0 kept, 0 refused, 3 known already" in imported(home, *options)
    assert "--strict asks for none" in imported(home, *options, "--strict", code=4)
    made = export_posts(Store(home), ["demo"])
    assert made.boards["my_faces_2"] == {"kept": 3, "refused": 0}


def test_nothing_taken_in_is_a_failure_that_says_what_to_do(tmp_path: Path, faces: Path) -> None:
    said = imported(tmp_path / "home", "folder", str(faces), code=7)
    assert "unrated 3" in said
    assert "If you know that all of them are safe, say --rating general." in said


def test_a_dry_run_leaves_no_home(tmp_path: Path, faces: Path) -> None:
    home = tmp_path / "home"
    said = imported(home, "folder", str(faces), "--rating", "general", "--dry-run")
    assert "3 would be kept, 0 would be refused" in said
    assert not home.exists()


def test_a_dump_goes_in_and_says_how_its_ratings_are_read(tmp_path: Path) -> None:
    images = tmp_path / "512px"
    (images / "0005").mkdir(parents=True)
    (images / "0005" / "1005.jpg").write_bytes(picture(5))
    record = {
        "id": "1005", "rating": "s", "md5": "0" * 32, "file_ext": "png",
        "tags": [{"name": "solo", "category": "0"}],
    }  # fmt: skip
    metadata = tmp_path / "metadata.json"
    metadata.write_text(json.dumps(record) + "\n" + json.dumps({**record, "id": "7"}))
    said = imported(
        tmp_path / "home", "danbooru", str(metadata), "--images", str(images), "--resized"
    )
    assert "s is read as safe in records with nested tags" in said
    assert "import set_512px: 2 records seen, 1 kept" in said
    assert "skipped: no_file 1" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folder", "nowhere"], "PATH: nowhere is not there; a folder or a zip wanted"),
        (["folder", ".", "."], "one folder or zip at a time, 2 paths found"),
        (["folder", ".", "--images", "x"], "--images is for danbooru"),
        (["folder", ".", "--resized"], "--resized is not for this kind of set"),
        (["folder", ".", "--repacked"], "--repacked is not for this kind of set"),
        (
            ["danbooru", "x.json", "--images", ".", "--resized", "--repacked"],
            "--resized and --repacked exclude each other",
        ),
        (["danbooru", "x.json"], "--images is missing"),
        (["danbooru", "x.json", "--images", ".", "--tags", "t.csv"], "--tags is not for this kind"),
        (["pictures", "."], "'pictures' is not one of 'danbooru', 'folder'"),
        (["folder", "{parent}"], "holds the home"),
    ],
)
def test_a_wrong_option_is_told(tmp_path: Path, *, arguments: list[str], message: str) -> None:
    home = tmp_path / "home"
    said = imported(home, *(one.format(parent=tmp_path) for one in arguments), code=2)
    assert message in said
    assert not home.exists()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("f.zip", "f"),
        ("My Faces-2.zip", "my_faces_2"),
        ("512px", "set_512px"),
        ("顔", "set"),
    ],
)
def test_a_set_is_named_by_its_path(path: str, name: str) -> None:
    assert name_of(Path(path)) == name
