"""The store writes whole files or none, here and on an object store, and explains what fails."""

import errno
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from dataset.errors import StoreError
from dataset.store import LocalFolder, Store, digest_of, open_home


@pytest.fixture(params=["folder", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    name = request.node.name.replace("[", "-").strip("]").replace(" ", "-")
    return Store(tmp_path if request.param == "folder" else f"memory://{name}")


def test_what_is_written_is_read_and_listed_by_its_path(store: Store) -> None:
    store.write_bytes("b/two.bin", b"2")
    store.write_json("a/one.json", {"ä": 1})
    assert store.read_bytes("b/two.bin") == b"2"
    assert store.read_json("a/one.json") == {"ä": 1}
    assert store.files("") == ["a/one.json", "b/two.bin"]
    assert store.files("a") == ["a/one.json"]
    assert store.files("nowhere") == []


def test_an_interrupt_is_never_taken_for_a_missing_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_bytes("file", b"")
    interrupts = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        while interrupts < 100:
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4)
                until = time.monotonic() + 10
                while time.monotonic() < until:
                    assert store.exists("file")
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def test_an_error_while_writing_leaves_what_was_there(store: Store) -> None:
    store.write_bytes("file", b"before")

    def interrupted() -> None:
        with store.writing("file") as file:
            file.write(b"half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert store.read_bytes("file") == b"before"
    assert store.files("") == ["file"]


def test_nothing_is_seen_of_a_file_before_it_is_whole(store: Store) -> None:
    with store.writing("file") as file:
        file.write(b"x" * 100_000)
        assert not store.exists("file")
    assert len(store.read_bytes("file")) == 100_000


def test_removing_takes_folders_too_and_minds_no_absence(store: Store) -> None:
    store.write_bytes("folder/one", b"")
    store.remove("folder")
    store.remove("folder")
    assert not store.exists("folder/one")


def test_hidden_files_are_not_listed(store: Store) -> None:
    for name in ("folder/one", "folder/.marker", "folder/.tmp-left"):
        store.write_bytes(name, b"")
    assert store.files("folder") == ["folder/one"]


def test_a_linked_folder_is_listed_as_a_file_and_a_file_lists_itself(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    store.write_bytes("folder/b/file", b"1")
    store.write_bytes("folder/a", b"2")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c").write_bytes(b"3")
    store.state.local("folder/linked").symlink_to(tmp_path / "elsewhere")
    expected = ["folder/a", "folder/b/file", "folder/linked"]
    assert store.files("folder") == store.files("folder/") == store.files("") == expected
    assert store.files("folder/a") == ["folder/a"]


def test_a_moved_file_is_at_its_new_place_only(store: Store) -> None:
    store.write_bytes("folder/one", b"x")
    store.move("folder/one", "trash/folder/one")
    assert store.files("") == ["trash/folder/one"]


def test_a_folder_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "blobs").symlink_to(tmp_path / "unplugged")
    with pytest.raises(StoreError, match=r"blobs/one: .* a link that leads nowhere"):
        Store(tmp_path).write_bytes("blobs/one", b"")


def test_a_missing_file_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match=r"nowhere\.json is not there"):
        store.read_json("nowhere.json")


def test_a_file_that_is_not_json_is_named_with_its_line(store: Store) -> None:
    store.write_bytes("bad.json", b'{"a": 1,\n"b" 2}')
    with pytest.raises(StoreError, match=r"bad\.json is not JSON: .*line 2"):
        store.read_json("bad.json")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full; free some space and run the same command again"),
        (errno.EROFS, "it is read-only; set OMOKAGE_HOME to a folder that can be written"),
    ],
)
def test_a_full_or_read_only_disk_is_explained_and_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def failing(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StoreError, match=message):
        Store(tmp_path).write_bytes("file", b"content")
    assert list(tmp_path.iterdir()) == []


def test_an_object_store_has_no_local_paths() -> None:
    with pytest.raises(StoreError, match="a local folder is needed"):
        LocalFolder("memory://home")


def test_a_file_is_created_once_and_has_its_size(store: Store) -> None:
    assert store.size("folder/marker") is None
    assert store.create("folder/marker", b"one")
    assert store.size("folder/marker") == 3
    assert store.size("folder") is None


def test_a_folder_alone_is_all_three_roots(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.state.root == store.scratch.root == str(tmp_path)
    assert store.local_roots == []
    assert open_home(str(tmp_path), {}).variables() == store.variables()


def test_an_object_store_wants_a_folder_for_the_ledger() -> None:
    with pytest.raises(StoreError, match="set OMOKAGE_HOME or OMOKAGE_STATE"):
        _ = Store("memory://home").state
    with pytest.raises(StoreError, match="set OMOKAGE_HOME or OMOKAGE_STATE"):
        _ = open_home("", {"OMOKAGE_DATA": "memory://home"}).scratch


def test_each_root_is_where_its_variable_says_also_in_another_process(tmp_path: Path) -> None:
    given = {"OMOKAGE_DATA": "memory://home", "OMOKAGE_SCRATCH": str(tmp_path / "scratch")}
    store = open_home(str(tmp_path), given)
    for one in (store, pickle.loads(pickle.dumps(store)), open_home("/nowhere", store.variables())):
        roots = [one.root, one.state.root, one.scratch.root]
        assert roots == ["memory://home", str(tmp_path), str(tmp_path / "scratch")]
        assert one.folder is None
        assert len(one.local_roots) == 2


@pytest.mark.parametrize("change", [lambda v: v, lambda v: dict(reversed(v.items()))])
def test_a_digest_minds_content_and_not_order(
    change: Callable[[dict[str, object]], dict[str, object]],
) -> None:
    value: dict[str, object] = {"a": [1, 2], "b": "ü"}
    assert digest_of(change(value)) == digest_of(value)
    assert digest_of({**value, "a": [2, 1]}) != digest_of(value)


def test_appended_bytes_stand_behind_what_was_there(tmp_path: Path) -> None:
    store = LocalFolder(tmp_path)
    for content in (b"one\n", b"two\n"):
        store.append_bytes("new/folder/file", content)
    assert store.read_bytes("new/folder/file") == b"one\ntwo\n"
