"""The readers of users' own sets: every shape is read, every fault has its place."""

import gzip
import io
import json
import lzma
import re
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.errors import UsageError
from dataset.importers.danbooru import look_through, read_dump, read_record
from dataset.importers.files import MAX_LINE_BYTES, Files, FolderFiles, ZipFiles, open_files, read
from dataset.importers.folder import look_at, read_collection
from dataset.importers.records import BadField, Entry, Fault, Place, Read, split_tags, tag_of
from dataset.policy import EXCLUDED_TAGS
from tests.hypothesis_profiles import examples

MD5 = "0123456789abcdef0123456789abcdef"
HERE = Place("records.json", "line 1")

NESTED: dict[str, Any] = {
    "id": "1234567",
    "created_at": "2017-11-25 08:15:55.85054 UTC",
    "rating": "s",
    "md5": MD5,
    "file_ext": "jpg",
    "score": "3",
    "is_deleted": False,
    "tags": [
        {"id": "1", "name": "blonde_hair", "category": "0"},
        {"id": "2", "name": "someone", "category": "1"},
        {"id": "3", "name": "some_work", "category": "3"},
        {"id": "4", "name": "somebody", "category": 4},
        {"id": "5", "name": "highres", "category": "5"},
    ],
}
FLAT: dict[str, Any] = {
    "id": 1234567,
    "created_at": "2025-09-15T19:27:31.639-04:00",
    "rating": "g",
    "md5": MD5,
    "file_ext": "jpg",
    "tag_string": "blonde_hair someone some_work somebody highres",
    "tag_string_general": "blonde_hair",
    "tag_string_artist": "someone",
    "tag_string_copyright": "some_work",
    "tag_string_character": "somebody",
    "tag_string_meta": "highres",
}
KINDS = {
    "general": ("blonde_hair",),
    "artist": ("someone",),
    "copyright": ("some_work",),
    "character": ("somebody",),
    "meta": ("highres",),
}


class Made:
    """Writes small sets into a folder, and reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, content: bytes | str = b"picture") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def lines(self, name: str, *records: Any) -> Path:
        return self.file(name, "".join(json.dumps(record) + "\n" for record in records))

    def dump(self, *paths: Path, s_means: str | None = None, resized: bool = False) -> list[Read]:
        pictures = self.folder / "pictures"
        pictures.mkdir(exist_ok=True)
        found = look_through(paths, s_means=s_means)
        return list(read_dump(found, FolderFiles(pictures), resized=resized))

    def collection(self, path: str = "set", *, tags: str = "") -> list[Read]:
        files = open_files(self.folder / path, option="PATH")
        return list(read_collection(look_at(files, tags=tags)))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def entries(records: Sequence[Read]) -> list[Entry]:
    faults = [str(one) for one in records if isinstance(one, Fault)]
    assert faults == []
    return [one for one in records if isinstance(one, Entry)]


def faults(records: Sequence[Read]) -> list[str]:
    return [str(one) for one in records if isinstance(one, Fault)]


def test_both_shapes_of_a_dump_give_the_same_entry(made: Made) -> None:
    for shape, created_at in (
        (NESTED, "2017-11-25 08:15:55.850540+00:00"),
        (FLAT, "2025-09-15 23:27:31.639000+00:00"),
    ):
        (entry,) = entries(made.dump(made.lines("a.json", shape)))
        found = (entry.post_id, entry.md5, entry.ext, entry.rating, str(entry.created_at))
        assert found == (1234567, MD5, "jpg", "general", created_at)
        assert entry.tags == KINDS


def test_without_kinds_all_tags_are_general(made: Made) -> None:
    path = made.lines("a.json", {"id": 1, "rating": "g", "tag_string": "b a", "md5": MD5})
    assert entries(made.dump(path))[0].tags["general"] == ("a", "b")


@pytest.mark.parametrize(
    ("records", "s_means", "ratings"),
    [
        ([NESTED], None, ["general"]),
        ([{**FLAT, "rating": "s"}], None, ["sensitive"]),
        ([{**FLAT, "rating": "s"}], "safe", ["general"]),
        ([NESTED], "sensitive", ["sensitive"]),
        # A dump that knows g is from after 2022, whatever the shape of its records.
        ([NESTED, FLAT], None, ["sensitive", "general"]),
        ([FLAT, {**FLAT, "rating": "s"}], None, ["general", "sensitive"]),
        (
            [{**NESTED, "rating": "q"}, {**NESTED, "rating": "e"}],
            "safe",
            ["questionable", "explicit"],
        ),
        ([{key: FLAT[key] for key in FLAT if key != "rating"}], None, [None]),
    ],
)
def test_what_s_means_is_decided_by_the_whole_dump(
    made: Made, *, records: list[Any], s_means: str | None, ratings: list[str | None]
) -> None:
    read_in = entries(made.dump(made.lines("a.json", *records), s_means=s_means))
    assert [entry.rating for entry in read_in] == ratings


def test_s_is_never_safe_beside_a_g_even_in_another_file(made: Made) -> None:
    old, new = made.lines("a.json", {**FLAT, "rating": "s"}), made.lines("b.json.gz")
    new.write_bytes(gzip.compress(json.dumps(FLAT).encode()))
    with pytest.raises(UsageError, match=r"b\.json\.gz has a record rated g"):
        look_through([old, new], s_means="safe")


def test_a_g_is_found_across_the_edge_of_two_chunks(made: Made) -> None:
    edge = 2**20
    for shift in range(0, 16, 3):
        line = json.dumps({"source": "x" * (edge - 24 - shift), "rating": "g"})
        with pytest.raises(UsageError, match="rated g"):
            look_through([made.file("a.json", line)], s_means="safe")


def test_a_text_that_looks_like_a_rating_is_none(made: Made) -> None:
    path = made.lines("a.json", {**NESTED, "source": 'he said "rating": "g" to her'})
    assert entries(made.dump(path))[0].rating == "general"


@pytest.mark.parametrize(
    ("name", "resized"),
    [
        ("0567/1234567.jpg", False),
        (f"01/23/{MD5}.jpg", False),
        (f"01/{MD5}.jpg", False),
        (f"{MD5}.jpg", False),
        ("1234567.jpg", False),
        ("0567/1234567.png", True),
    ],
)
def test_pictures_are_found_by_id_and_md5(made: Made, *, name: str, resized: bool) -> None:
    made.file(f"pictures/{name}")
    path = made.lines("a.json", NESTED, {**NESTED, "id": 5, "md5": MD5[::-1]})
    found = [entry.file for entry in entries(made.dump(path, resized=resized))]
    assert found == [name, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "12x"}, 'line 1: id is "12x"; a number above 0 wanted'),
        ({"id": None}, "line 1: id is None; a number above 0 wanted"),
        ({"md5": "abc"}, 'line 1: md5 is "abc"; an md5 of 32 hex digits wanted'),
        ({"rating": "x"}, 'line 1: rating is "x"; one of general, sensitive, questionable'),
        ({"rating": 5}, "line 1: rating is 5; text wanted"),
        ({"file_ext": "../x"}, 'line 1: file_ext is "../x"; an extension such as jpg wanted'),
        ({"tags": [{"name": "a"}, 7]}, "line 1: tags[1] is 7; name and category wanted"),
        ({"tags": [{"name": ""}]}, 'line 1: tags[0].name is ""; a tag wanted'),
        ({"tags": [{"name": "a", "category": "x"}]}, 'tags[0].category is "x"; a number wanted'),
        ({"tags": None}, "line 1: tags are missing"),
        ({"is_deleted": "perhaps"}, 'line 1: is_deleted is "perhaps"; true or false wanted'),
        ({"created_at": "yesterday"}, 'line 1: created_at is "yesterday"; a time as in ISO 8601'),
        ({"is_deleted": 2}, "line 1: is_deleted is 2; true or false wanted"),
        ({"score": 4.5}, "line 1: score is 4.5; a whole number of at most"),
        ({"score": 2**40}, "line 1: score is 1099511627776; a whole number of at most"),
    ],
)
def test_a_bad_record_is_reported_by_file_line_and_field_and_the_rest_goes_in(
    made: Made, *, change: dict[str, Any], message: str
) -> None:
    read_in = made.dump(made.lines("a.json", {**NESTED, **change}, NESTED))
    assert next(one for one in read_in if isinstance(one, Entry)).post_id == 1234567
    (fault,) = faults(read_in)
    assert fault.startswith("a.json, ")
    assert message in fault


def test_lines_that_are_no_json_are_reported_by_number(made: Made) -> None:
    good = json.dumps(NESTED)
    path = made.file("a.json", f"{good}\n\n{{cut\n[]\n{good}\n".encode() + b'"\xff"\n')
    read_in = made.dump(path)
    assert [fault.split(":")[0] for fault in faults(read_in)] == [
        "a.json, line 3", "a.json, line 4", "a.json, line 6",
    ]  # fmt: skip
    assert len(read_in) == 5


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_compressed_dumps_and_folders_of_them_are_read(made: Made, suffix: str) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {
        "": bytes, ".gz": gzip.compress, ".xz": lzma.compress,
    }  # fmt: skip
    content = (json.dumps(NESTED) + "\n").encode() * 3
    made.file(f"metadata/2017/a.json{suffix}", pack[suffix](content))
    made.file("metadata/readme.txt", "no records")
    found = look_through([made.folder / "metadata"])
    assert found.lines == 3
    assert len(entries(made.dump(made.folder / "metadata"))) == 3


def test_a_cut_off_archive_keeps_what_came_before_and_the_next_file(made: Made) -> None:
    content = "".join(json.dumps({**NESTED, "id": n}) + "\n" for n in range(1, 2000)).encode()
    made.file("m/a.json.gz", gzip.compress(content)[:-2000])
    made.lines("m/b.json", {**NESTED, "id": 5000})
    read_in = made.dump(made.folder / "m")
    numbers = [one.post_id for one in read_in if isinstance(one, Entry)]
    assert numbers[0] == 1
    assert numbers[-1] == 5000
    assert any("cannot be read any further" in fault for fault in faults(read_in))


def test_an_array_as_the_api_answers_is_read_too(made: Made) -> None:
    path = made.file("posts.json", json.dumps([FLAT, 7], indent=1))
    read_in = made.dump(path)
    assert faults(read_in) == ["posts.json, record 2: is 7, a JSON object wanted"]
    assert len(read_in) == 2


def test_an_overlong_line_is_a_fault_and_not_read_into_memory(made: Made) -> None:
    path = made.file(
        "a.json", b'{"a": "' + b"x" * (MAX_LINE_BYTES + 10) + b'"}\n' + json.dumps(NESTED).encode()
    )
    read_in = made.dump(path)
    assert faults(read_in) == ["a.json, line 1: is longer than any record"]
    assert len(read_in) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda made: [], "METADATA is missing"),
        (lambda made: [made.folder / "no.json"], "no.json is not there"),
        (lambda made: [made.file("m.json.tar.xz")], "is an archive; unpack it first"),
        (lambda made: [made.file("m/readme.txt").parent], "has no .json or .jsonl file"),
    ],
)
def test_a_dump_that_is_none_is_reported(
    made: Made, *, make: Callable[[Made], list[Path]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        look_through(make(made))


def test_recorded_answers_of_both_times_are_read(real_data: Path) -> None:
    folder = real_data / "api" / "danbooru.donmai.us"
    old, new = folder / "posts_2020_10.json", folder / "post_9969513_2025.json"
    nowhere = FolderFiles(folder)
    for s_means, rating in (("safe", "general"), (None, "sensitive")):
        found = look_through([old], s_means=s_means)
        assert {entry.rating for entry in entries(list(read_dump(found, nowhere)))} == {rating}
    record = json.loads(new.read_bytes())
    entry = read_record(
        record[0] if isinstance(record, list) else record, HERE, nested_s="x", flat_s="x"
    )
    assert entry.rating == "general"
    assert "pink_hair" in entry.tags["general"]


CSV = """file,hair,eyes,rating,artist
a.png,blonde hair,Blue Eyes,,someone
sub/b.png,red hair; ahoge,,safe,
"""


@pytest.mark.parametrize("where", ["set", "set.zip"])
@pytest.mark.parametrize("beside", ["", "faces/"])
def test_a_csv_is_read_as_for_the_demo_board(made: Made, where: str, beside: str) -> None:
    for name in ("a.png", "sub/b.png"):
        made.file(f"set/{beside}{name}")
    made.file(f"set/{beside}tags.csv", "\ufeff" + CSV)
    zipped(made.folder / "set", made.folder / "set.zip")
    first, second = entries(made.collection(where))
    assert (first.file, second.file) == (f"{beside}a.png", f"{beside}sub/b.png")
    assert first.tags["general"] == ("blonde_hair", "blue_eyes")
    assert first.tags["artist"] == ("someone",)
    assert second.tags["general"] == ("ahoge", "red_hair")
    assert (first.rating, second.rating) == (None, "general")


def zipped(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())


def test_a_bad_row_of_a_csv_is_reported_by_line_and_the_rest_goes_in(made: Made) -> None:
    for name in ("a.png", "b.png", "x/c.png", "y/c.png"):
        made.file(f"set/{name}")
    rows = [
        b"file,tags,rating",
        b"a.png,one,",
        b"gone.png,one,",
        b"a.png,again,",
        b"b.png,one,funny",
        b"b.png,a,b,c",
        b"../b.png,one,",
        b"c.png,one,",
        b",one,",
        b"b.png,\xff,",
        b'b.png,"cut"off,',
        b"b.png,good,",
    ]
    made.file("set/tags.csv", b"\n".join(rows))
    read_in = made.collection()
    assert [one.file for one in read_in if isinstance(one, Entry)] == ["a.png", "b.png"]
    messages = faults(read_in)
    expected = [
        'line 3: file "gone.png" is not in set',
        'line 4: file "a.png" was already named in tags.csv, line 2',
        'line 5: rating is "funny"; one of',
        "line 6: has 1 cell(s) more than there are columns",
        'line 7: file "../b.png" points outside set',
        'line 8: file "c.png" could be x/c.png or y/c.png',
        'line 9: file is ""; the name of a picture wanted',
        "line 10: is not UTF-8",
        "line 11: is no row of a CSV",
    ]
    assert len(messages) == len(expected)
    for found, wanted in zip(messages, expected, strict=True):
        assert found.startswith(f"tags.csv, {wanted}")


@pytest.mark.parametrize(
    "table",
    [
        {
            "a.png": ["Blonde Hair", "solo"],
            "b.png": {"tags": "solo, blue eyes", "rating": "general"},
        },
        [
            {"file": "a.png", "tags": ["blonde hair", "solo"], "id": 7},
            {"file": "b.png", "tags": "solo blue_eyes", "rating": "g"},
        ],
    ],
)
def test_a_json_table_is_read(made: Made, table: Any) -> None:
    made.file("set/a.png"), made.file("set/b.png")
    made.file("set/tags.json", json.dumps(table))
    first, second = entries(made.collection())
    assert (first.tags["general"], first.rating) == (("blonde_hair", "solo"), None)
    assert (second.tags["general"], second.rating) == (("blue_eyes", "solo"), "general")


def test_json_lines_elsewhere_are_a_table_too(made: Made) -> None:
    made.file("set/a.png")
    table = made.lines("my.jsonl", {"file": "a.png", "hair": "red hair"}, {"file": 7}, [], 5)
    read_in = made.collection(tags=str(table))
    assert isinstance(read_in[0], Entry)
    assert read_in[0].tags["general"] == ("red_hair",)
    assert [fault.split(":")[0] for fault in faults(read_in)] == [
        f"my.jsonl, line {number}" for number in (2, 3, 4)
    ]


@pytest.mark.parametrize(
    ("tables", "tags", "message"),
    [
        ({"tags.csv": "name,hair\n"}, "", 'no column "file"; its columns are: name, hair'),
        ({"tags.csv": "file,hair,hair\n"}, "", "columns that stand twice"),
        ({"tags.json": "{"}, "", "tags.json: is not JSON"),
        ({"tags.json": "5"}, "", "tags.json is 5; a list of rows"),
        ({"x/tags.csv": "file\n", "y/tags.csv": "file\n"}, "", "more than one table"),
        ({}, "mine.csv", "mine.csv is neither in set nor a file elsewhere"),
        ({"my.txt": "x"}, "my.txt", "a table of tags ends in .csv, .json or .jsonl"),
    ],
)
def test_a_table_that_is_none_is_reported(
    made: Made, *, tables: dict[str, str], tags: str, message: str
) -> None:
    made.file("set/a.png")
    for name, text in tables.items():
        made.file(f"set/{name}", text)
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        made.collection(tags=tags)


@pytest.mark.parametrize(
    ("name", "content", "tags", "rating"),
    [
        (
            "a.txt",
            "1girl, blonde hair, miku \\(voice\\)",
            ("1girl", "blonde_hair", "miku_(voice)"),
            None,
        ),
        ("a.png.txt", "blonde_hair\n1girl\n", ("1girl", "blonde_hair"), None),
        ("a.txt", "1girl blonde_hair", ("1girl", "blonde_hair"), None),
        ("a.json", FLAT, KINDS["general"], "general"),
        ("a.json", {**FLAT, "rating": "s"}, KINDS["general"], "sensitive"),
        ("a-danbooru.json", NESTED, KINDS["general"], "general"),
        ("a.json", {"category": "konachan", "rating": "s", "tags": "x y"}, ("x", "y"), "general"),
        ("a.json", {"category": "gelbooru", "rating": "s", "tags": ["x"]}, ("x",), "sensitive"),
        ("a.json", {"tags": "x y z", "tags_general": "x y", "tags_artist": "z"}, ("x", "y"), None),
        ("a.json", {"tags": {"general": ["x"], "artist": ["z"]}, "width": 5}, ("x",), None),
        ("a.json", {"tags": "x loli", "tags_general": "x"}, ("loli", "x"), None),
    ],
)
def test_sidecars_are_read(
    made: Made, *, name: str, content: Any, tags: tuple[str, ...], rating: str | None
) -> None:
    made.file("set/a.png")
    made.file(f"set/{name}", content if isinstance(content, str) else json.dumps(content))
    (entry,) = entries(made.collection())
    assert (entry.file, entry.tags["general"], entry.rating) == ("a.png", tags, rating)


def test_a_bad_sidecar_keeps_its_picture_out(made: Made) -> None:
    made.file("set/a.png"), made.file("set/a.json", "{cut")
    made.file("set/b.png"), made.file("set/b.txt", b"\xff\xfe")
    made.file("set/c.png")
    read_in = made.collection()
    assert [one.file for one in read_in if isinstance(one, Entry)] == ["c.png"]
    assert "a.json: is not JSON" in faults(read_in)[0]
    assert "b.txt: is not UTF-8 at byte 0" in faults(read_in)[1]


@pytest.mark.parametrize(
    ("name", "content", "tags", "rating"),
    [
        ("a.txt", "character:miku\nrating:explicit\n1girl", "1girl character=miku", "explicit"),
        ("a.txt", "Rating: safe, creator:some one, series:a:b", "artist=some_one copyright=a:b",
         "general"),
        ("a.txt", "questionable, 1girl", "1girl", "questionable"),
        ("a.txt", "score_9, rating_safe, 1girl, nsfw", "1girl score_9", "explicit"),
        ("a.json", {"tags": "1girl rating:q", "rating": "g"}, "1girl", "questionable"),
        ("a.json", {"category": "pixiv", "tags": ["x"], "rating": "R-18", "x_restrict": 1}, "x",
         "explicit"),
        ("a.json", {"category": "twitter", "content": "x", "sensitive": True}, "", "explicit"),
        ("a.json", {"category": "twitter", "content": "x", "sensitive": False}, "", None),
        ("a.json", {"category": "yandere", "rating": "s", "tags": "steins;gate z_z",
                    "tags_copyright": "steins;gate"}, "z_z copyright=steins;gate", "general"),
        # waifuc
        (".a_meta.json", {"danbooru": {"rating": "e"}, "tags": {"1girl": 1.0, "x": 0.4}},
         "1girl x", "explicit"),
        (".a_meta.json", {"konachan": {"tags": "x y", "rating": "s"}, "tags": {"x": 1, "y": 1}},
         "x y", "general"),
        (".a_meta.json", {"danbooru": FLAT, "group_id": "danbooru_1",
                          "tags": {"blonde_hair": 1.0, "someone": 1.0}},
         "blonde_hair artist=someone character=somebody copyright=some_work meta=highres",
         "general"),
        (".a_meta.json", {"pixiv": {"x_restrict": 1, "tags": [
            {"name": "女の子", "translated_name": "girl"}, {"name": "x", "translated_name": None},
        ]}}, "girl 女の子 x", "explicit"),
        # kohya, Hydrus
        ("a.caption", "1girl, red hair", "1girl red_hair", None),
        ("a.png.json", {"metadata": {"tags": ["blue sky", "rating:safe"], "urls": ["x"]}},
         "blue_sky", "general"),
        ("a.png.tags.txt", "blue sky\nseries:a b", "blue_sky copyright=a_b", None),
        ("a.json", {"tags": {"my tags": ["blue sky"], "all": ["creator:x"]}}, "blue_sky artist=x",
         None),
        ("a.json", ["blue sky", "character:x"], "blue_sky character=x", None),
    ],
)  # fmt: skip
def test_sidecars_of_other_programs_are_read_with_their_ratings_and_kinds(
    made: Made, *, name: str, content: Any, tags: str, rating: str | None
) -> None:
    made.file("set/a.png"), made.file("set/a.png.urls.txt", "https://example.org/loli")
    made.file(f"set/{name}", content if isinstance(content, str) else json.dumps(content))
    zipped(made.folder / "set", made.folder / "set.zip")
    for path in ("set", "set.zip"):
        (entry,) = entries(made.collection(path))
        kinds = {kind: named for kind, named in entry.tags.items() if kind != "general"}
        found = [
            *entry.tags["general"],
            *(f"{kind}={tag}" for kind in kinds for tag in kinds[kind]),
        ]
        assert (sorted(found), entry.rating) == (sorted(tags.split()), rating)


def test_every_sidecar_of_a_picture_can_refuse_it(made: Made) -> None:
    made.file("set/a.png"), made.file("set/a.txt", "loli, red hair\nrating:q")
    made.file("set/a.png.json", json.dumps({"tags": "1girl solo", "rating": "g"}))
    (entry,) = entries(made.collection())
    assert (entry.tags["general"], entry.rating) == (("1girl", "loli", "solo"), "questionable")


def test_a_sidecar_that_is_not_understood_keeps_its_picture_out(made: Made) -> None:
    for number, (name, content) in enumerate([
        ("{}.json", b'{"some": "thing else"}'), (".{}_meta.json", b'{"filename": "x.png"}'),
        ("{}.txt", b"rating:funny\n1girl"), ("{}.json", b'{"tags": 5}'), ("{}.json", b"[1]"),
        ("{}.xmp", b"<x:xmpmeta/>"), ("{}.png.yaml", b"tags: [loli]"), ("{}.psd", b"8BPS\0"),
        ("{}.npz", b"PK\3\4\0"), ("{}.done", b""),
    ]):  # fmt: skip
        made.file(f"set/{number}.png")
        made.file(f"set/{name.format(number)}", content)
    read_in = made.collection()
    # What is no text is no sidecar.
    assert [one.file for one in read_in if isinstance(one, Entry)] == [
        "7.png", "7.psd", "8.png", "9.png",
    ]  # fmt: skip
    messages = faults(read_in)
    assert [message.split(":")[0].split(".", 1)[1] for message in messages] == [
        "json", "1_meta.json", "txt", "json", "json", "xmp", "png.yaml",
    ]  # fmt: skip
    assert "5.xmp: is not understood; sidecars end in .json, .txt, .caption" in messages
    assert '2.txt: rating:funny is "funny"; one of general' in messages[2]


KOHYA = {"tags": "1girl, red hair", "train_resolution": [512, 512]}


def test_names_without_ending_and_paths_of_elsewhere_are_found(made: Made) -> None:
    for name in ("a.png", "b.jpg", "x/c.png", "y/c.png", "d.png", "d.jpg"):
        made.file(f"set/{name}")
    table = {
        "a": KOHYA, "/home/me/b.jpg": {"caption": "1girl, red hair"}, "C:\\set\\x\\c.png": KOHYA,
        "/set/y/c": KOHYA, "c": KOHYA, "d": KOHYA, "e": KOHYA, "/home/../a.png": KOHYA,
    }  # fmt: skip
    read_in = made.collection(tags=str(made.file("meta.json", json.dumps(table))))
    found = [one for one in read_in if isinstance(one, Entry)]
    assert [one.file for one in found] == ["a.png", "b.jpg", "x/c.png", "y/c.png"]
    assert {one.tags["general"] for one in found} == {("1girl", "red_hair")}
    assert [message.split(", ")[1] for message in faults(read_in)] == [
        'record 5: file "c" could be x/c.png or y/c.png; name it with its folder',
        'record 6: file "d" could be d.jpg or d.png; name it with its folder',
        'record 7: file "e" is not in set',
        'record 8: file "/home/../a.png" points outside set',
    ]


class RawName(zipfile.ZipInfo):
    """A member whose name is of these bytes, which the zip does not call UTF-8."""

    raw = b""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802
        return self.raw, 0


def test_names_that_differ_only_in_their_form_or_a_zips_encoding_are_found(made: Made) -> None:
    names = ["がé.png", "猫.png", "犬.png", "ü.png"]
    decomposed = unicodedata.normalize("NFD", names[0])
    raw = [decomposed.encode(), names[1].encode(), names[2].encode("cp932"), b"\x81.png"]
    with zipfile.ZipFile(made.folder / "set.zip", "w") as archive:
        for number, content in enumerate(raw):
            member = RawName(str(number))
            member.raw = content
            archive.writestr(member, b"picture")
        archive.writestr("tags.json", json.dumps(dict.fromkeys(names, "1girl red_hair")))
    made.file(f"folder/{decomposed}"), made.file("folder/tags.csv", f"file,tags\n{names[0]},x\n")
    made.file(f"beside/{decomposed}"), made.file("beside/がé.txt", "x")
    assert len(entries(made.collection("set.zip"))) == 4
    for path in ("folder", "beside"):
        (entry,) = entries(made.collection(path))
        assert (entry.file, entry.tags["general"]) == (decomposed, ("x",))


@pytest.mark.parametrize("value", ["0", "f", "False", "no", "", 0.0, None])
def test_flags_and_numbers_are_read_as_databases_write_them(made: Made, value: Any) -> None:
    one = {**NESTED, "is_deleted": value, "is_banned": value, "score": 4.0, "id": 7.0}
    other = {**NESTED, "is_deleted": "True", "is_pending": "t", "is_flagged": "1", "score": "4.0"}
    first, second = entries(made.dump(made.lines("a.json", one, other)))
    assert (first.post_id, first.score, first.deleted, first.banned) == (7, 4, False, False)
    assert (second.score, second.deleted, second.pending, second.flagged) == (4, True, True, True)


def test_a_folder_without_tags_gives_untagged_entries_and_no_litter(made: Made) -> None:
    for name in ("a.png", "sub/b.JPG", "c.bmp", ".hidden.png", "__MACOSX/a.png", "notes.md"):
        made.file(f"set/{name}")
    read_in = entries(made.collection())
    assert [entry.file for entry in read_in] == ["a.png", "c.bmp", "sub/b.JPG"]
    assert all(not any(entry.tags.values()) for entry in read_in)


def test_members_that_point_outside_a_zip_or_are_encrypted_are_never_read(made: Made) -> None:
    path = made.folder / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../evil.png", "/abs.png", "C:/disk.png", "good.png", "x/../../y.png"):
            archive.writestr(name, b"picture")
    files = ZipFiles(path)
    assert list(files.names()) == ["good.png"]
    assert len(files.faults()) == 4
    assert len(faults(made.collection("set.zip"))) == 4


def test_no_more_is_unpacked_than_requested(made: Made) -> None:
    path = made.folder / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.png", bytes(5_000_000))
    files = ZipFiles(path)
    assert files.size("big.png") == 5_000_000
    assert len(read(files, "big.png", greatest=1000)) == 1001


@pytest.mark.parametrize("content", [b"no zip", b"PK\x05\x06" + bytes(10)])
def test_what_is_no_zip_is_reported(made: Made, content: bytes) -> None:
    with pytest.raises(UsageError, match=r"set\.zip"):
        open_files(made.file("set.zip", content), option="PATH")
    with pytest.raises(UsageError, match=r"--images: .*nowhere is not there"):
        open_files(made.folder / "nowhere", option="--images")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
some_fields = st.sampled_from([*NESTED, *FLAT, "name", "category", "rating"])
records = st.dictionaries(some_fields, json_values, max_size=8) | json_values
mutated = st.builds(
    lambda base, changes: {**base, **changes},
    st.sampled_from([NESTED, FLAT]),
    st.dictionaries(some_fields, json_values, max_size=2),
)


@given(records | mutated)
@settings(max_examples=examples(300), deadline=None)
def test_any_json_value_is_an_entry_or_a_bad_field(value: Any) -> None:
    try:
        entry = read_record(value, HERE, nested_s="general", flat_s="sensitive")
    except BadField as bad:
        json.dumps(bad.at(HERE).as_json()).encode()
        return
    assert entry.rating in (None, "general", "sensitive", "questionable", "explicit")
    "".join(tag for tags in entry.tags.values() for tag in tags).encode()  # no half surrogate


class NoFiles:
    """A set with one picture and any table."""

    name = "set"

    def __init__(self, table: str, content: bytes) -> None:
        self._files = {"a.png": b"picture", table: content}

    def names(self, *, hidden: bool = False) -> Any:
        return iter(self._files)

    def faults(self) -> list[Fault]:
        return []

    def size(self, name: str) -> int | None:
        return len(self._files[name]) if name in self._files else None

    def open(self, name: str) -> Any:
        return io.BytesIO(self._files[name])


def places_of(files: Files) -> list[str]:
    """The place that each entry or fault names; the words of the refusal if there is no table."""
    try:
        found = list(read_collection(look_at(files)))
    except UsageError as refused:
        return [str(refused)]
    assert all(isinstance(one, Entry | Fault) for one in found)
    return [str(one.place) for one in found]


@given(st.binary(max_size=200))
@settings(max_examples=examples(200), deadline=None)
def test_any_bytes_below_a_csv_heading_are_rows_or_faults(content: bytes) -> None:
    places = places_of(NoFiles("tags.csv", b"file,hair,rating\na.png,red,\n" + content))
    assert places  # there is a row, at least
    assert all("tags.csv" in one for one in places), places


@given(json_values, st.sampled_from(["tags.json", "tags.jsonl", "a.json", "a.txt"]))
@settings(max_examples=examples(300), deadline=None)
def test_any_json_beside_or_about_a_picture_is_read_or_reported(value: Any, name: str) -> None:
    for content in (
        value,
        {"a.png": value},
        [value, {"file": "a.png", "tags": value}],
        {"tags": value, "rating": value},
    ):
        assert all(places_of(NoFiles(name, json.dumps(content).encode())))


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("1girl ;) blonde_hair solo", "1girl ;) blonde_hair solo"),
        ("1girl steins;gate makise_kurisu", "1girl steins;gate makise_kurisu"),
        ("1girl ;) happy", "1girl ;) happy"),
        ("1girl ;_; >;d solo", "1girl ;_; >;d solo"),
        ("don't_worry,_be_happy hello,world 1girl", "don't_worry,_be_happy hello,world 1girl"),
        ("steins;gate chaos;head", "steins;gate chaos;head"),
        ("1girl, steins;gate, ;), solo", "1girl steins;gate ;) solo"),
        ("1girl solo &gt;_&lt; a&amp;b don&#039;t", "1girl solo >_< a&b don't"),
        ("1girl solo, what?; long_hair", "1girl solo what?; long_hair"),
        ("1girl,solo,blonde hair", "1girl solo blonde_hair"),
        ("1girl solo, blonde hair", "1girl_solo blonde_hair"),
        ("red hair ; solo; ahoge", "red_hair solo ahoge"),
        ("fast car\nanime girl\nnight sky\n", "fast_car anime_girl night_sky"),
        ("solo\nsteins;gate\nred hair", "solo steins;gate red_hair"),
        ("rating:safe\n1girl smile solo\n", "rating:safe 1girl smile solo"),
        ("artist:x character:y\none two three four five six", "artist:x character:y "
         "one two three four five six"),
    ],
)  # fmt: skip
def test_the_tags_of_a_text_keep_their_own_marks(text: str, tags: str) -> None:
    assert list(split_tags(text)) == tags.split()


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        ("blonde hair;solo", "blonde_hair solo"),
        ("blonde hair", "blonde_hair"),
        ("1girl ;) blonde_hair", "1girl ;) blonde_hair"),
        ("1girl steins;gate makise_kurisu", "1girl steins;gate makise_kurisu"),
    ],
)
def test_a_cell_is_parted_by_semicolons_unless_it_is_a_boards(cell: str, tags: str) -> None:
    assert list(split_tags(cell, cell=True)) == tags.split()


EXCLUDING = [
    "1girl ;) blonde_hair loli solo", "1girl steins;gate loli", "smile\n1girl loli solo",
    "smile ;) happy loli", "one,two loli", "(loli:1.2), solo", "1girl/loli|solo", "a\nsolo;loli",
    "smile  LOLI",
]  # fmt: skip


@pytest.mark.parametrize("text", EXCLUDING)
def test_no_way_of_writing_hides_an_excluded_tag(made: Made, text: str) -> None:
    for name in "abcdef":
        made.file(f"set/{name}.png")
    made.file("set/a.txt", text)
    made.file("set/b.json", json.dumps({"category": "konachan", "tags": text, "rating": "s"}))
    made.file("set/c.json", json.dumps([text]))
    made.file("set/d.json", json.dumps({"tags": {"general": text}, "caption": "a girl"}))
    made.file("set/e.json", json.dumps({"tags": "solo", "caption": text}))
    made.file("set/f.json", json.dumps({"rating": "g", "tag_string": text}))
    made.file("set/f.caption", text)
    found = entries(made.collection())
    assert ["loli" in entry.tags["general"] for entry in found] == [True] * 6
    for table in (
        made.lines("t.jsonl", {"file": "a.png", "tags": text}, {"file": "b.png", "hair": text}),
        made.file("t.json", json.dumps({"a.png": text, "b.png": [text], "c.png": {"tags": text}})),
    ):
        found = entries(made.collection(tags=str(table)))
        assert all("loli" in entry.tags["general"] for entry in found)


WAYS = [r"\s", "\n", ",", ";", "[,;]", "[,;\n]", r"[,;\s]", ", |; ", r"\|", "/"]
PIECES = [*";,_|/):.\n", " ", ", ", "; ", "a", "1girl", "red_hair", *sorted(EXCLUDED_TAGS)]
SPACED = [tag.replace("_", " ").title() for tag in sorted(EXCLUDED_TAGS) if "_" in tag]


@given(st.lists(st.sampled_from(PIECES + SPACED), max_size=9).map("".join), st.booleans())
@settings(max_examples=examples(300), deadline=None)
def test_a_text_in_which_any_way_of_splitting_finds_an_excluded_tag_has_one(
    text: str, cell: bool
) -> None:
    found = [tag_of(part) for way in WAYS for part in re.split(way, text)]
    if not EXCLUDED_TAGS.isdisjoint(found):
        assert not EXCLUDED_TAGS.isdisjoint(split_tags(text, cell=cell))


@given(st.text(max_size=60))
def test_tags_of_any_text_have_no_blank(text: str) -> None:
    for tag in split_tags(text):
        assert tag == "_".join(tag.split())
        assert tag == tag.lower() or tag.lower() != tag.lower().lower()
