"""Imported pictures pass the gates of a crawl, and come in once, whatever happens meanwhile."""

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

from crawlers.audit import audit, sweep
from crawlers.cursor import Cursor
from crawlers.export import export_posts
from crawlers.importing import ImportSettings, ImportSummary, check_outcome, take_in
from crawlers.ledger import Ledger
from crawlers.sites import load_sites
from dataset.errors import CrawlError, EmptyStageError, SchemaError, StoreError, UsageError
from dataset.faces import FaceSettings
from dataset.importers.danbooru import look_through, read_dump
from dataset.importers.files import open_files
from dataset.importers.folder import look_at, read_collection
from dataset.importers.records import Read
from dataset.media import MAX_BYTES, check_media
from dataset.schemas import FACES, POSTS, read_table
from dataset.store import Store, blob_path
from demo.collection import md5_of
from tests.crawlers.conftest import REPOSITORY, MakePost
from tests.crawlers.tiny import tiny_picture
from tests.dataset.home import cropped, png, portrait, scenery

GENERAL = ImportSettings(name="mine", kind="folder", rating="general")


class Set:
    """A user's own pictures in a folder, and a home that they are imported into."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "set"
        self.path.mkdir()
        self.store = Store(folder / "home")

    def add(self, *numbers: int, folder: str = "") -> None:
        for number in numbers:
            target = self.path / folder / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(tiny_picture(number))

    def table(self, *rows: str) -> None:
        (self.path / "tags.csv").write_text("\n".join(("file,tags,rating", *rows)) + "\n")

    def take(self, path: Path | None = None, **changes: Any) -> ImportSummary:
        """Imports the folder, or another path, once."""
        files = open_files(path or self.path, option="PATH")
        found = look_at(files)
        settings = dataclasses.replace(GENERAL, **changes)
        return take_in(self.store, files, read_collection(found), settings=settings)

    def dump(self, *records: Any, s_means: str | None = None, **changes: Any) -> ImportSummary:
        """Imports a dump of records whose pictures are those of the folder."""
        path = self.path.parent / "dump.json"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        files = open_files(self.path, option="--images")
        settings = ImportSettings(**{"name": "dump", "kind": "danbooru", **changes})
        found = look_through([path], s_means=s_means)
        return take_in(
            self.store, files, read_dump(found, files, resized=settings.resized), settings=settings
        )

    def posts(self) -> list[dict[str, Any]]:
        made = export_posts(self.store, ["demo"])
        rows: list[dict[str, Any]] = read_table(self.store, made.path, declared=POSTS).to_pylist()
        return rows

    def everything(self) -> tuple[list[dict[str, Any]], list[str]]:
        """All rows but their times, and all blobs."""
        rows = [{**row, "fetched_at": None} for row in self.posts()]
        return rows, self.store.files("blobs")


@pytest.fixture
def mine(tmp_path: Path) -> Set:
    return Set(tmp_path)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMOKAGE_PROGRESS", "off")


def record(number: int, **changes: Any) -> dict[str, Any]:
    body = tiny_picture(number)
    fields = {"id": number, "rating": "g", "md5": md5_of(body), "file_ext": "png"}
    return {**fields, "tag_string": "1girl solo", "tag_string_general": "1girl solo", **changes}


def no_table(mine: Set) -> None:
    mine.add(1, 2, 3)


def with_table(mine: Set) -> None:
    mine.add(1, 2, 3)
    mine.table("1.png,blonde hair;solo,", "2.png,red hair,safe", "3.png,blue hair,")


def with_sidecars(mine: Set) -> None:
    mine.add(1, 2, 3)
    for number in (1, 2, 3):
        (mine.path / f"{number}.txt").write_text("1girl, blonde hair")


def test_what_an_earlier_release_refused_is_judged_again_once(
    mine: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.add(1, 2, 3)
    mine.table("1.png,solo,", "2.png,sketch,", "3.png,comic,", "4.png,solo,")
    (mine.path / "4.png").write_bytes(tiny_picture(4)[:-40])
    assert mine.take().refused == {"corrupt": 1, "tag_comic": 1, "tag_sketch": 1}
    again = mine.take()
    assert (again.kept, again.known, again.refused) == (0, 4, {})
    monkeypatch.setattr("dataset.policy.EXCLUDED_TAGS", frozenset({"comic"}))
    made = mine.take()
    assert (made.kept, made.known, made.refused) == (1, 3, {})
    monkeypatch.setattr("dataset.media.GATE", 2)
    assert mine.take().refused == {"corrupt": 1}
    assert mine.take().known == 4


@pytest.mark.parametrize("make", [no_table, with_table, with_sidecars])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("cropped", [False, True])
def test_a_folder_imported_twice_adds_nothing(
    mine: Set, *, make: Any, zipped: bool, cropped: bool
) -> None:
    make(mine)
    path = mine.path
    if zipped:
        path = Path(shutil.make_archive(str(mine.path), "zip", mine.path))
    made = mine.take(path, cropped=cropped)
    assert (made.seen, made.kept, made.known, made.faults) == (3, 3, 0, 0)
    first = mine.everything()
    assert [row["cropped"] for row in first[0]] == [cropped] * 3
    assert {row["board"] for row in first[0]} == {"mine"}
    assert {row["source"] for row in first[0]} == {f"set/{number}.png" for number in (1, 2, 3)}
    again = mine.take(path, cropped=cropped)
    assert (again.kept, again.known, again.known_kept, again.bytes) == (0, 3, 3, 0)
    assert mine.everything() == first


@pytest.mark.parametrize("resized", [False, True])
def test_a_dump_imported_twice_adds_nothing(mine: Set, resized: bool) -> None:
    mine.add(1, 2, 3)
    records = [record(1), record(2, rating="q"), record(3, is_deleted=True), record(4)]
    made = mine.dump(*records, resized=resized)
    assert (made.kept, made.refused) == (1, {"deleted": 1, "rating": 1})
    assert made.skipped == {"no_file": 1}
    first = mine.everything()
    assert [(row["post_id"], row["drop_reason"]) for row in first[0]] == [
        (1, None), (2, "rating"), (3, "deleted"),
    ]  # fmt: skip
    assert len(first[1]) == 1
    again = mine.dump(*records, resized=resized)
    assert (again.kept, again.refused, again.known, again.known_kept) == (0, {}, 3, 1)
    assert mine.everything() == first


def test_what_is_settled_is_not_decoded_again(mine: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.add(1, 2)
    mine.take(), mine.dump(record(1))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("crawlers.importing.check_media", never)
    assert mine.take().known == 2
    assert mine.dump(record(1)).known == 1
    # Nor what came in by another way: the md5 tells.
    assert mine.dump(record(2)).kept == 1


def test_a_renamed_or_doubled_picture_adds_nothing(mine: Set) -> None:
    mine.add(1, 2)
    mine.take()
    before = [(row["post_id"], row["sha256"]) for row in mine.posts()]
    (mine.path / "1.png").rename(mine.path / "renamed.png")
    shutil.copy(mine.path / "2.png", mine.path / "2 (copy).png")
    made = mine.take()
    assert made.skipped == {"duplicate": 1}
    rows = mine.posts()
    assert [(row["post_id"], row["sha256"]) for row in rows] == before
    assert "set/renamed.png" in {row["source"] for row in rows}


def test_changed_tags_are_taken_over_and_judged_again(mine: Set) -> None:
    mine.add(1, 2)
    mine.table("1.png,red hair,", "2.png,red hair,")
    mine.take()
    mine.table("1.png,blue hair,", "2.png,red hair;sketch,")
    made = mine.take()
    assert (made.kept, made.refused) == (1, {"tag_sketch": 1})
    rows = {row["source"]: row for row in mine.posts()}
    assert rows["set/1.png"]["tags_general"] == ["blue_hair"]
    assert rows["set/2.png"]["drop_reason"] == "tag_sketch"
    assert len(mine.store.files("blobs")) == 1


def test_only_safe_pictures_are_stored(mine: Set) -> None:
    mine.add(*range(1, 7))
    mine.table(
        "1.png,solo,", "2.png,solo,safe", "3.png,solo,s",
        "4.png,solo,explicit", "5.png,LoLi,general", "6.png,monochrome,g",
    )  # fmt: skip
    made = mine.take(rating=None)
    assert made.kept == 1
    assert made.refused == {"rating": 2, "tag_loli": 1, "tag_monochrome": 1, "unrated": 1}
    (kept,) = (row for row in mine.posts() if row["drop_reason"] is None)
    assert kept["source"] == "set/2.png"
    assert len(mine.store.files("blobs")) == 1
    assert mine.take().kept == 1  # with the user's word for the one that bears no rating


@pytest.mark.parametrize(
    ("shape", "s_means", "kept"),
    [("flat", None, 0), ("flat", "safe", 1), ("nested", None, 1), ("nested", "sensitive", 0)],
)
def test_a_rating_that_may_mean_sensitive_is_refused(
    mine: Set, *, shape: str, s_means: str | None, kept: int
) -> None:
    mine.add(1)
    one = record(1, rating="s")
    if shape == "nested":
        one = {**one, "tags": [{"name": "1girl", "category": "0"}]}
    made = mine.dump(one, s_means=s_means)
    assert (made.kept, sum(made.refused.values())) == (kept, 1 - kept)
    assert len(mine.store.files("blobs")) == kept


def test_a_set_without_ratings_says_what_to_do_and_leaves_no_row(mine: Set) -> None:
    mine.add(1, 2)
    made = mine.take(rating=None)
    with pytest.raises(EmptyStageError, match="--rating general") as failure:
        check_outcome(made)
    assert "none of the 2 records of mine could be taken in" in str(failure.value)
    with Ledger.of(mine.store) as ledger:
        assert ledger.count("mine") == {"pending": 0, "kept": 0, "refused": 0}


def test_bad_files_are_refused_reported_and_listed_and_the_rest_goes_in(mine: Set) -> None:
    mine.add(1, 2)
    (mine.path / "cut.png").write_bytes(tiny_picture(3)[:-40])
    (mine.path / "empty.png").write_bytes(b"")
    (mine.path / "text.jpg").write_bytes(b"no picture")
    (mine.path / "scan.bmp").write_bytes(b"BM....")
    (mine.path / "wrong_ending.jpg").write_bytes(tiny_picture(4))
    with (mine.path / "huge.png").open("wb") as huge:
        huge.truncate(MAX_BYTES + 1)
    made = mine.take()
    assert made.kept == 3
    assert made.refused == {
        "corrupt": 1, "empty": 1, "format": 1, "not_a_picture": 1, "too_large": 1,
    }  # fmt: skip
    check_outcome(made)
    with pytest.raises(SchemaError, match="4 records or files of mine have faults"):
        check_outcome(made, strict=True)
    assert made.faults_path == "imports/mine-faults.jsonl"
    lines = mine.store.read_bytes(made.faults_path).splitlines()
    faults = [json.loads(line) for line in lines]
    assert {fault["file"] for fault in faults} == {"cut.png", "empty.png", "text.jpg", "huge.png"}
    assert all(fault["field"] == "file" for fault in faults)
    for name in ("cut.png", "empty.png", "text.jpg", "huge.png"):
        (mine.path / name).unlink()
    assert mine.take().faults_path is None
    assert not mine.store.exists("imports/mine-faults.jsonl")


def test_a_dumps_md5_and_format_are_verified_unless_its_pictures_are_copies(mine: Set) -> None:
    mine.add(1, 2)
    (mine.path / "1.png").rename(mine.path / "1.jpg")
    records = [record(1, file_ext="jpg"), record(2, md5="0" * 32)]
    made = mine.dump(*records)
    assert made.refused == {"mislabelled": 1, "wrong_md5": 1}
    assert mine.store.files("blobs") == []
    assert mine.dump(*records, resized=True, name="copies").kept == 2


def repacked(number: int) -> bytes:
    """The same pixels in other bytes."""
    file, texts = io.BytesIO(), PngInfo()
    texts.add_text("Software", "an optimiser")
    with Image.open(io.BytesIO(tiny_picture(number))) as picture:
        picture.save(file, "PNG", pnginfo=texts)
    return file.getvalue()


def test_originals_that_were_packed_anew_come_in_by_their_size(mine: Set) -> None:
    for number in range(1, 6):
        (mine.path / f"{number}.png").write_bytes(repacked(number))
    with Image.open(mine.path / "1.png") as picture:
        size = {"image_width": picture.width, "image_height": str(picture.height)}
    records = [
        record(1, **size),
        record(2, **{**size, "image_width": picture.width + 1}),
        record(3),  # it says no size
        record(4, md5=md5_of(repacked(4))),
        record(5, **size),
    ]
    made = mine.dump(*records)
    assert (made.kept, made.refused) == (1, {"wrong_md5": 4})
    assert "--repacked: width and height are compared instead" in made.shown[0]
    mine.store.write_bytes("takedown.txt", f"md5 {md5_of(tiny_picture(5))}".encode())
    made = mine.dump(*records, repacked=True)
    assert (made.kept, made.known_kept) == (1, 1)
    assert made.refused == {"takedown": 1, "wrong_size": 2}
    assert f"says {picture.width + 1}x{picture.height}" in made.shown[0]
    kept = {row["post_id"]: row["md5"] for row in mine.posts() if row["drop_reason"] is None}
    assert kept == {number: md5_of(repacked(number)) for number in (1, 4)}
    # Nor do its bytes help the wrong record, once they are there.
    mine.take(name="other")
    assert mine.dump(*records, repacked=True, name="again").refused["wrong_size"] == 2


def test_what_a_text_says_of_a_picture_refuses_it_whatever_the_users_word(mine: Set) -> None:
    mine.add(*range(1, 10))
    konachan = {"category": "konachan", "rating": "s"}
    sidecars: dict[str, Any] = {
        "1.png.json": {**konachan, "tags": "1girl ;) blonde_hair loli solo"},
        "2.txt": "1girl steins;gate loli",
        "3.png.txt": "rating:safe\n1girl loli solo\n",
        ".4_meta.json": {"danbooru": {"rating": "e"}, "tags": {"1girl": 1.0}},
        "5.caption": "1girl, loli",
        "6.txt": "character:miku\nrating:explicit\n1girl",
        "7.xmp": "<x:xmpmeta>loli</x:xmpmeta>",
        "8.txt": "1girl, nsfw",
        "9.png.json": {**konachan, "tags": "1girl ;) blonde_hair solo"},
    }
    for name, content in sidecars.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (mine.path / name).write_text(text)
    made = mine.take()
    assert (made.kept, made.faults) == (1, 1)
    assert made.refused == {"rating": 3, "tag_loli": 4}
    assert "7.xmp: is not understood" in made.shown[0]
    (kept,) = (row for row in mine.posts() if row["drop_reason"] is None)
    assert kept["tags_general"] == ["1girl", ";)", "blonde_hair", "solo"]


def test_a_damaged_member_of_a_zip_stays_out_and_is_tried_again(mine: Set) -> None:
    mine.add(1, 2)
    path = Path(shutil.make_archive(str(mine.path), "zip", mine.path))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("2.png").header_offset + 60
    path.write_bytes(whole[:start] + bytes(8) + whole[start + 8 :])
    made = mine.take(path)
    assert (made.kept, made.faults) == (1, 1)
    assert 'file "2.png" cannot be read' in made.shown[0]
    path.write_bytes(whole)
    assert mine.take(path).kept == 1


def test_a_members_declared_size_is_checked_before_it_is_unpacked(mine: Set) -> None:
    path = mine.path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(MAX_BYTES + 1))
        archive.writestr("good.png", tiny_picture(1))
    made = mine.take(path)
    assert (made.kept, made.refused) == (1, {"too_large": 1})


def test_the_users_files_stay_as_they_are(mine: Set) -> None:
    with_sidecars(mine)
    mine.add(9, folder="sub")

    def look() -> dict[str, tuple[int, bytes]]:
        files = (path for path in sorted(mine.path.rglob("*")) if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = look()
    mine.take()
    assert look() == before


def test_a_dry_run_counts_and_writes_nothing(mine: Set) -> None:
    with_table(mine)
    (mine.path / "2.png").write_bytes(b"")
    counted = mine.take(dry_run=True)
    assert (counted.kept, counted.refused, counted.faults_path) == (2, {"empty": 1}, None)
    assert not Path(mine.store.root).exists()
    made = mine.take(limit=1)
    assert (made.seen, made.kept) == (1, 1)
    before = mine.everything()
    counted = mine.take(dry_run=True)
    assert (counted.kept, counted.known) == (1, 1)
    assert mine.everything() == before


@pytest.mark.parametrize("line", ["post mine/{id}", "md5 {md5}", "artist someone"])
def test_what_is_taken_down_goes_and_stays_away(mine: Set, line: str) -> None:
    mine.add(1, 2)
    (mine.path / "1.txt").write_text("someone solo")
    mine.take()
    (one,) = (row for row in mine.posts() if row["source"] == "set/1.png")
    text = line.format(id=one["post_id"], md5=one["md5"])
    mine.store.write_bytes("takedown.txt", text.encode())
    assert [row["source"] for row in mine.posts()] == ["set/2.png"]
    assert len(mine.store.files("blobs")) == 1
    mine.store.remove("takedown.txt")
    assert (mine.take().kept, mine.take(name="other").refused) == (0, {"takedown": 1})
    assert len(mine.store.files("blobs")) == 1


def test_a_copy_of_a_picture_that_was_taken_down_is_refused(mine: Set) -> None:
    mine.add(1, 2)
    mine.store.write_bytes("takedown.txt", b"md5 " + b"a" * 32)
    records = [record(1, md5="a" * 32), record(2, md5="b" * 32)]
    assert mine.dump(*records, resized=True).refused == {"takedown": 1}
    mine.store.write_bytes("takedown.txt", b"md5 " + b"b" * 32)
    assert mine.dump(*records, resized=True).refused == {"takedown": 1}
    with Ledger.of(mine.store) as ledger:
        assert ledger.count("dump") == {"pending": 0, "kept": 0, "refused": 2}
        sweep(mine.store, ledger)
    assert mine.store.files("blobs") == []


def test_imports_stand_beside_crawled_posts(mine: Set, make_post: MakePost) -> None:
    body = tiny_picture(50)
    media = check_media(body, md5=md5_of(body), ext="png")
    post = make_post(7, md5=md5_of(body))
    with Ledger.of(mine.store) as ledger:
        ledger.admit(load_sites()["demo"])
        ledger.note_page("demo", "q", posts=[post], cursor=Cursor(7, 7))
        mine.store.write_bytes(blob_path(media.sha256, media.ext), body)
        ledger.keep(post, media)
    mine.add(1, 50)
    mine.take(cropped=True)
    mine.dump(record(1), record(2, is_banned=True))
    mine.add(2)
    mine.dump(record(2, is_banned=True))
    made = export_posts(mine.store, ["demo"])
    assert made.boards == {
        "demo": {"kept": 1, "refused": 0},
        "dump": {"kept": 1, "refused": 1},
        "mine": {"kept": 2, "refused": 0},
    }
    assert len(mine.store.files("blobs")) == 2  # the same bytes are one blob
    found = audit(mine.store)
    assert (found.orphans, found.missing, found.wrong_sha256) == ((), (), ())
    # A crawl of another site finds the imports, too.
    assert export_posts(mine.store, ["konachan"]).boards.keys() == {"konachan", "dump", "mine"}


def test_a_lost_blob_comes_again_with_the_next_import(mine: Set) -> None:
    mine.add(1, 2)
    mine.take()
    mine.store.remove(mine.store.files("blobs")[0])
    assert export_posts(mine.store, ["demo"]).requeued == 1
    assert mine.take().kept == 1
    assert {row["drop_reason"] for row in mine.posts()} == {None}


def test_cropped_sets_and_whole_pictures_live_in_one_home(mine: Set) -> None:
    whole, faces = mine.path / "whole", mine.path / "faces"
    whole.mkdir()
    faces.mkdir()
    (whole / "1.png").write_bytes(png(portrait(1)))
    (faces / "2.png").write_bytes(png(portrait(2)))

    def crops() -> dict[str, tuple[int, int]]:
        mine.posts()
        cropped(mine.store)
        rows = read_table(mine.store, "faces.lance", declared=FACES).to_pylist()
        assert {row["drop_reason"] for row in rows} == {None}
        return {row["board"]: (row["w"], row["side"]) for row in rows}

    mine.take(whole, name="whole")
    mine.take(faces, name="faces", cropped=True)
    found = crops()
    assert found["faces"] == (240, 240)
    assert found["whole"][0] < 200
    # Said otherwise, the same pictures are cropped otherwise.
    mine.take(whole, name="whole", cropped=True)
    mine.take(faces, name="faces", cropped=False)
    turned = crops()
    assert turned["whole"] == (240, 240)
    assert turned["faces"][0] < 200


def test_a_picture_without_a_face_is_one_if_its_set_is_cropped(mine: Set) -> None:
    noisy = scenery(3).filter(ImageFilter.EMBOSS).effect_spread(9)
    (mine.path / "a.png").write_bytes(png(noisy))
    mine.take(cropped=True)
    mine.posts()
    made = cropped(mine.store, FaceSettings(min_sharpness=0.0))
    assert (made.kept, made.pictures_without_face) == (1, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mine", '"Mine" is no name'),
        ("1st", '"1st" is no name'),
        ("danbooru", "is a site or board of the registry"),
        ("demo", "is a site or board of the registry"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(mine: Set, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mine.take(name=name)


def test_a_name_stands_for_one_kind_of_set_and_for_no_board(mine: Set) -> None:
    mine.add(1)
    mine.take()
    with pytest.raises(CrawlError, match="import@folder under the name mine"):
        mine.dump(record(1), name="mine")
    site = dataclasses.replace(load_sites()["konachan"], name="mine", board="mine")
    with Ledger.of(mine.store) as ledger, pytest.raises(CrawlError, match="choose another name"):
        ledger.admit(site)


def test_two_imports_of_one_name_do_not_meet(mine: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crawlers.importing._LOCK_TIMEOUT_S", 0.0)
    mine.add(1)
    with Ledger.of(mine.store) as ledger:
        ledger.lock("mine")
        with pytest.raises(CrawlError, match="of mine is at work"):
            mine.take()
        assert mine.take(name="other").kept == 1


def test_while_an_import_is_at_work_nothing_is_swept_and_crawls_may_run(mine: Set) -> None:
    mine.add(1, 2)
    orphan = "blobs/ab/cd/orphan.png"
    Ledger.of(mine.store).close()
    mine.store.write_bytes(orphan, b"x")
    files = open_files(mine.path, option="PATH")

    def records() -> Iterator[Read]:
        yield from read_collection(look_at(files))
        with Ledger.of(mine.store) as other:
            assert sweep(mine.store, other) == []
            other.lock("demo", timeout_s=0.0)

    made = take_in(mine.store, files, records(), settings=GENERAL)
    assert made.kept == 2
    with Ledger.of(mine.store) as ledger:
        assert sweep(mine.store, ledger) == [orphan]


def test_a_full_disk_ends_the_import_and_the_next_one_resumes(
    mine: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.add(*range(1, 11))
    left = iter(range(4))

    def full(store: Store, path: str, content: bytes, **rest: Any) -> None:
        if next(left, None) is None:
            raise StoreError("the disk is full")
        write(store, path, content, **rest)

    write = Store.write_bytes
    with monkeypatch.context() as patched:
        patched.setattr(Store, "write_bytes", full)
        with pytest.raises(StoreError, match="the disk is full"):
            mine.take()
    made = mine.take()
    assert made.kept + made.known == 10
    assert len(mine.posts()) == len(mine.store.files("blobs")) == 10


PICTURES = 500


@pytest.mark.parametrize(
    ("sent", "kept", "code"),
    [
        (signal.SIGINT, 1, 130),
        pytest.param(signal.SIGKILL, 90, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
@pytest.mark.ci
def test_an_import_that_was_interrupted_or_killed_resumes_where_it_stopped(
    tmp_path: Path, *, sent: signal.Signals, kept: int, code: int
) -> None:
    stopped, undisturbed = Set(tmp_path), Set(subfolder(tmp_path, "undisturbed"))
    stopped.add(*range(1, PICTURES + 1))
    child = start_import(stopped)
    wait_until_kept(stopped, kept, child)
    child.send_signal(sent)
    assert child.wait(600) == code
    with Ledger.of(stopped.store) as ledger:
        known = ledger.count("mine")["kept"]
    assert kept <= known < PICTURES
    made = stopped.take()
    assert (made.kept, made.known) == (PICTURES - known, known)
    undisturbed.path = stopped.path
    undisturbed.take()
    assert stopped.everything() == undisturbed.everything()
    found = audit(stopped.store, hashed=PICTURES)
    assert (found.orphans, found.temporary, found.missing, found.wrong_sha256) == ((), (), (), ())


def subfolder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def start_import(mine: Set) -> subprocess.Popen[bytes]:
    options = ["--rating", "general", "--name", "mine", "--home", mine.store.root]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "import", "folder", str(mine.path), *options],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if not name.startswith("OMOKAGE_")},
        stderr=subprocess.DEVNULL,
    )


def wait_until_kept(mine: Set, count: int, child: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 600
    while child.poll() is None and time.monotonic() < until:
        if mine.store.exists("ledger.sqlite"):
            with Ledger.of(mine.store) as ledger:
                if ledger.count("mine")["kept"] >= count:
                    return
        time.sleep(0.005)


def rows_of(rows: Iterable[dict[str, Any]], tag: str) -> int:
    return sum(tag in row["tags_general"] for row in rows)


def test_real_faces_come_through_to_crops(tmp_path: Path, real_data: Path) -> None:
    mine = Set(tmp_path)
    source = real_data / "faces_labelled.zip"
    made = mine.take(source, name="faces", cropped=True, limit=200)
    assert (made.seen, made.kept, made.faults) == (200, 200, 0)
    rows = mine.posts()
    assert all(len(row["tags_general"]) == 2 for row in rows)
    assert rows_of(rows, "blonde_hair") > 5
    assert rows_of(rows, "blue_eyes") > 5
    faces = cropped(mine.store)
    assert faces.rows == 200
    assert faces.kept > 180
    assert mine.take(source, name="faces", cropped=True, limit=200).known == 200
