"""A user's own pictures: how files are found, tags read, ids kept, and every fault named."""

from __future__ import annotations

import io
import json
import os
import urllib.request
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from demo import pictures
from demo.collection import CollectionError
from demo.pictures import pictures_collection, read_tags
from tests.board_fixture import start_board

REAL_DATA = Path(
    os.environ.get("OMOKAGE_REAL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")
)


def picture(colour: str = "red", kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", size, colour).save(made, kind)
    return made.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures in a folder `own`, one of them in a folder below."""
    own = tmp_path / "own"
    (own / "faces").mkdir(parents=True)
    (own / "a.png").write_bytes(picture("red"))
    (own / "b.jpg").write_bytes(picture("blue", "JPEG"))
    (own / "faces" / "c.png").write_bytes(picture("green"))
    write_table(own, "file,hair,eyes", "a.png,blonde hair,blue eyes", "b.jpg,,", "c.png,red hair,")
    return own


def write_table(folder: Path, *lines: str) -> None:
    (folder / "tags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for item in sorted(folder.rglob("*")):
            if item.is_file():
                archive.write(item, item.relative_to(folder))
    return path


def error_of(path: Path, cache: Path) -> str:
    with pytest.raises(CollectionError) as error:
        pictures_collection(path, cache)
    assert error.value.exit_code == 2
    return str(error.value)


def test_tags_kinds_and_ratings_are_read_from_the_columns(folder: Path, tmp_path: Path) -> None:
    write_table(
        folder,
        "file,looks,character,artist,rating",
        "a.png,Blonde Hair; blue  eyes;,hoshino aki,me,",
        "b.jpg,,,,questionable",
        "faces/c.png,,,,safe",
    )
    a, b, c = pictures_collection(folder, tmp_path / "cache").entries
    assert a.tags["general"] == ("blonde_hair", "blue_eyes")
    assert a.tags["character"] == ("hoshino_aki",)
    assert a.tags["artist"] == ("me",)
    assert [entry.rating for entry in (a, b, c)] == ["g", "q", "g"]
    assert (a.width, a.height, a.ext) == (40, 30, "png")
    assert (b.ext, c.body) == ("jpg", "faces/c.png")


@given(tags=st.lists(st.from_regex(r"[a-z0-9_:()]{1,12}", fullmatch=True), max_size=5))
def test_tags_written_in_one_cell_are_read_back(tags: list[str]) -> None:
    assert read_tags("; ".join(tags)) == tags
    assert read_tags(";".join(tag.replace("_", " ") for tag in tags if tag.strip("_"))) == [
        "_".join(tag.replace("_", " ").split()) for tag in tags if tag.strip("_")
    ]


def test_a_zip_serves_the_same_as_its_folder(folder: Path, tmp_path: Path) -> None:
    archive = zip_of(folder, tmp_path / "own.zip")
    from_folder = pictures_collection(folder, tmp_path / "a")
    from_zip = pictures_collection(archive, tmp_path / "b")
    assert from_zip.entries == from_folder.entries
    for entry in from_folder:
        assert from_zip.read(entry) == from_folder.read(entry)
    assert {path.suffix for path in (tmp_path / "b").iterdir()} == {".jsonl"}


def test_a_zip_with_one_folder_around_everything_is_read(folder: Path, tmp_path: Path) -> None:
    folder.rename(folder.parent / "inner")
    (tmp_path / "outer").mkdir()
    (tmp_path / "inner").rename(tmp_path / "outer" / "inner")
    archive = zip_of(tmp_path / "outer", tmp_path / "own.zip")
    bodies = [entry.body for entry in pictures_collection(archive, tmp_path / "cache")]
    assert bodies == ["inner/a.png", "inner/b.jpg", "inner/faces/c.png"]


def test_ids_stay_when_the_set_grows(folder: Path, tmp_path: Path) -> None:
    before = {e.body: e.post_id for e in pictures_collection(folder, tmp_path / "cache")}
    (folder / "A first.png").write_bytes(picture("white"))
    (folder / "b.jpg").write_bytes(picture("black", "JPEG"))
    write_table(folder, "file", "A first.png", "a.png", "b.jpg", "c.png")
    after = {e.body: e.post_id for e in pictures_collection(folder, tmp_path / "cache")}
    assert {body: after[body] for body in before} == before
    assert after["A first.png"] == max(after.values())


def test_a_picture_taken_out_does_not_hand_on_its_id(folder: Path, tmp_path: Path) -> None:
    before = {e.body: e.post_id for e in pictures_collection(folder, tmp_path / "cache")}
    (folder / "d.png").write_bytes(picture("white"))
    write_table(folder, "file", "a.png", "d.png")
    after = {e.body: e.post_id for e in pictures_collection(folder, tmp_path / "cache")}
    assert after["a.png"] == before["a.png"]
    assert after["d.png"] not in before.values()


def test_a_changed_picture_is_read_again(folder: Path, tmp_path: Path) -> None:
    pictures_collection(folder, tmp_path / "cache")
    (folder / "a.png").write_bytes(picture("white", size=(50, 60)))
    (a, *_) = pictures_collection(folder, tmp_path / "cache").entries
    assert (a.width, a.height) == (50, 60)


def test_unreadable_pictures_are_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    (folder / "b.jpg").write_bytes(picture("blue", "JPEG")[:200])
    (folder / "faces" / "c.png").write_bytes(b"no picture")
    collection = pictures_collection(folder, tmp_path / "cache")
    assert [entry.body for entry in collection] == ["a.png"]
    assert len(collection.warnings) == 2
    assert collection.warnings[0].startswith("b.jpg cannot be read and is left out: ")
    assert collection.warnings[1].startswith("faces/c.png cannot be read")


def test_with_none_readable_there_is_no_collection(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*.*g"):
        path.write_bytes(b"")
    text = error_of(folder, tmp_path / "cache")
    assert text.startswith(f"{folder}: none of its 3 pictures can be read\na.png cannot be read")


def test_too_many_pixels_are_refused_before_they_are_decoded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    assert "40x30 px; at most" in error_of(folder, tmp_path / "cache")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["name,tag", "a.png,x"], 'tags.csv: no column "file"; its columns are: name, tag'),
        ([""], 'tags.csv: no column "file"; its columns are: none'),
        (["file,tag"], "tags.csv: no row; name at least one picture"),
        (["file", "x.png"], 'tags.csv, line 2: file "x.png" is not in {folder}'),
        (["file,t", ",x"], 'tags.csv, line 2: the cell "file" is empty'),
        (["file", "a.png", "./a.png"], 'line 3: file "a.png" was already named in line 2'),
        (["file", "../own/a.png"], 'line 2: file "../own/a.png" points outside {folder}'),
        (["file", "/etc/passwd"], 'line 2: file "/etc/passwd" points outside {folder}'),
        (["file,t", "a.png,x,y"], "line 2: 1 cell(s) more than there are columns"),
        (["file,rating", "a.png,nice"], 'line 2: rating "nice" is none of general, sensitive'),
        (["file", '"a.png'], "tags.csv, line 2: unexpected end of data"),
    ],
)
def test_faults_of_the_table_name_their_line(
    folder: Path, tmp_path: Path, lines: list[str], message: str
) -> None:
    write_table(folder, *lines)
    assert message.format(folder=folder) in error_of(folder, tmp_path / "cache")


def test_all_faults_are_gathered_and_ten_are_shown(folder: Path, tmp_path: Path) -> None:
    write_table(folder, "file", *(f"missing-{number}.png" for number in range(1, 1235)))
    lines = error_of(folder, tmp_path / "cache").splitlines()
    assert len(lines) == 11
    assert lines[9].startswith('tags.csv, line 11: file "missing-10.png"')
    assert lines[10] == "… and 1,224 more, 1,234 in all"


def test_a_name_in_two_folders_is_ambiguous(folder: Path, tmp_path: Path) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "c.png").write_bytes(picture())
    assert 'file "c.png" could be faces/c.png or more/c.png' in error_of(folder, tmp_path / "cache")
    write_table(folder, "file", "more/c.png")
    assert [e.body for e in pictures_collection(folder, tmp_path / "cache")] == ["more/c.png"]


def test_a_path_without_a_set_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "is not there" in error_of(tmp_path / "no", tmp_path)
    plain = tmp_path / "plain.txt"
    plain.write_text("x")
    assert "neither a folder nor a zip" in error_of(plain, tmp_path)
    archive = zip_of(folder, tmp_path / "own.zip")
    archive.write_bytes(archive.read_bytes()[:-40])
    assert f"{archive} is neither a folder nor a zip" in error_of(archive, tmp_path)
    (folder / "tags.csv").write_bytes("file,tag\na.png,é\n".encode("latin-1"))
    assert "tags.csv: not UTF-8 at byte 15" in error_of(folder, tmp_path)
    (folder / "tags.csv").unlink()
    assert error_of(folder, tmp_path).startswith(f"{folder}: no tags.csv in it")


@pytest.mark.parametrize("name", ["/abs.png", "../up.png", "in/../../up.png", "C:/x.png"])
def test_zip_entries_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "own.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tags.csv", f"file\n{name}\n")
        archive.writestr(name, picture())
    assert f'"{name}"' in error_of(path, tmp_path / "cache")


def test_an_entry_that_unpacks_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tags.csv", "file\nbomb.png\n")
        with archive.open("bomb.png", "w") as bomb:
            for _ in range(65):
                bomb.write(bytes(1024 * 1024))
    assert path.stat().st_size < 200_000
    assert '"bomb.png" is 65 MiB unpacked; at most 64 MiB' in error_of(path, tmp_path / "cache")


def flag_as_encrypted(body: bytes) -> bytes:
    """Sets the bit that says so in every local and central header."""
    flagged = bytearray(body)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = flagged.find(magic)
        while at >= 0:
            flagged[at + offset] |= 1
            at = flagged.find(magic, at + 1)
    return bytes(flagged)


def test_encrypted_entries_are_refused(folder: Path, tmp_path: Path) -> None:
    archive = zip_of(folder, tmp_path / "own.zip")
    archive.write_bytes(flag_as_encrypted(archive.read_bytes()))
    assert '"a.png" is encrypted' in error_of(archive, tmp_path / "cache")


def test_a_damaged_entry_of_a_zip_is_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    archive = zip_of(folder, tmp_path / "own.zip")
    body = archive.read_bytes()
    at = body.index(b"IDAT")
    archive.write_bytes(body[:at] + b"DAMAGED!" + body[at + 8 :])
    collection = pictures_collection(archive, tmp_path / "cache")
    (warning,) = collection.warnings
    assert warning.startswith("a.png cannot be read and is left out: BadZipFile")


def test_own_pictures_are_served_as_they_are(folder: Path, tmp_path: Path) -> None:
    with start_board(tmp_path / "cache", pictures=folder) as running:
        with urllib.request.urlopen(f"{running.url}/danbooru/posts.json", timeout=600) as answer:
            records = json.load(answer)
        assert len(records) == 3
        for record in records:
            with urllib.request.urlopen(record["file_url"], timeout=600) as answer:
                entry = running.collection.by_id(record["id"])
                assert entry
                assert answer.read() == (folder / entry.body).read_bytes()


def test_files_damaged_in_every_way_are_left_out_and_named(tmp_path: Path) -> None:
    faults = REAL_DATA / "media_faults"
    if not faults.is_dir():
        pytest.skip(f"no {faults}; set OMOKAGE_REAL_DATA")
    archive = tmp_path / "own.zip"
    with zipfile.ZipFile(archive, "w") as made:
        names = sorted(path.name for path in faults.iterdir() if path.is_file())
        made.writestr("tags.csv", "\n".join(["file", *names]))
        for name in names:
            made.write(faults / name, name)
    collection = pictures_collection(archive, tmp_path / "cache")
    left_out = {warning.split()[0] for warning in collection.warnings}
    assert {entry.body for entry in collection} | left_out == set(names)
    assert {"png__empty.png", "ugoira__ugoira.zip", "webp__truncated.webp"} <= left_out
    (mislabelled,) = [entry for entry in collection if entry.body == "png__jpg.png"]
    assert mislabelled.ext == "jpg"


@pytest.mark.slow
def test_8057_faces_are_the_same_the_second_time(tmp_path: Path) -> None:
    archive = REAL_DATA / "faces_labelled.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive}; set OMOKAGE_REAL_DATA")
    collection = pictures_collection(archive, tmp_path)
    assert len(collection) + len(collection.warnings) == 8057
    again = pictures_collection(archive, tmp_path)
    assert again.entries == collection.entries
    first = again.entries[0]
    assert first.body.startswith("faces/")
    assert {name.rpartition("_")[2] for name in first.all_tags} == {"hair", "eyes"}
