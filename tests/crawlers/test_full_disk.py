"""A disk that fills up during a crawl: said clearly, and the next run completes."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crawlers.export import PostsTable, export_posts
from crawlers.ledger import Ledger
from dataset.errors import StoreError
from dataset.schemas import POSTS, read_table
from dataset.store import Store
from tests.board_fixture import RunningBoard
from tests.crawlers.conftest import CrawlOf

pytestmark = pytest.mark.slow

CrawlOfUrl = Callable[[str], CrawlOf]

FULL = "the disk is full; free some space and run the same command again"


class SmallDisk:
    """A file system of its own that can be filled and emptied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, size_kb: int) -> None:
        """Makes the disk; skips the test where that is not allowed."""
        self.folder.mkdir(parents=True)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", self.folder],
            capture_output=True,
            check=False,
        )
        if made.returncode:
            pytest.skip("only root can make a small disk")

    def fill(self) -> None:
        """Leaves no byte free."""
        try:
            with (self.folder / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        except OSError:
            return

    def enlarge(self) -> None:
        """Makes the disk large enough for all, and empties it of what only filled it."""
        (self.folder / "filler").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=600m", self.folder], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    small = SmallDisk(tmp_path / "disk")
    yield small
    if small.folder.is_mount():
        small.unmount()


@pytest.fixture(scope="module")
def undisturbed(board: RunningBoard, tmp_path_factory: pytest.TempPathFactory) -> PostsTable:
    """The table of a crawl on a disk with free space."""
    crawl = CrawlOf(board.url, tmp_path_factory.mktemp("undisturbed"))
    crawl("--tags", "status:any")
    return export_posts(Store(crawl.home), ["demo"])


def completes(crawl: CrawlOf, undisturbed: PostsTable) -> None:
    crawl("--tags", "status:any")
    made = export_posts(Store(crawl.home), ["demo"])
    assert made.digest == undisturbed.digest
    assert made.requeued == 0
    assert not [path for path in crawl.home.rglob("*") if path.name.startswith(".tmp-")]


def test_blobs_that_fill_the_disk_are_reported_and_the_next_run_completes(
    board: RunningBoard, crawl_of: CrawlOfUrl, disk: SmallDisk, undisturbed: PostsTable
) -> None:
    crawl = crawl_of(board.url)
    disk.mount(size_kb=2000)
    crawl.home.mkdir()
    (crawl.home / "blobs").symlink_to(disk.folder)
    code, err = crawl.failing("--tags", "status:any")
    assert code == 5
    assert f"{crawl.home}/blobs/" in err
    assert FULL in err
    assert len(err.splitlines()) == 1
    disk.enlarge()
    completes(crawl, undisturbed)


@pytest.mark.parametrize("size_kb", [4, 60, 160])
def test_a_ledger_that_fills_the_disk_is_reported_and_the_next_run_completes(
    board: RunningBoard,
    crawl_of: CrawlOfUrl,
    disk: SmallDisk,
    *,
    undisturbed: PostsTable,
    tmp_path: Path,
    size_kb: int,
) -> None:
    crawl = crawl_of(board.url)
    disk.mount(size_kb)
    crawl.home = disk.folder
    elsewhere = tmp_path / "blobs"
    elsewhere.mkdir()
    (crawl.home / "blobs").symlink_to(elsewhere)
    code, err = crawl.failing("--tags", "status:any")
    assert code == 5
    assert "ledger.sqlite" in err
    assert FULL in err
    assert len(err.splitlines()) == 1
    disk.enlarge()
    completes(crawl, undisturbed)


def test_a_table_that_finds_the_disk_full_is_reported_and_the_old_one_stays(
    board: RunningBoard, crawl_of: CrawlOfUrl, disk: SmallDisk, undisturbed: PostsTable
) -> None:
    crawl = crawl_of(board.url)
    crawl("--tags", "status:any", "--limit", "30")
    home = Store(crawl.home)
    before = export_posts(home, ["demo"])
    # The same home, on a disk on which no other file fits: SQLite opens its files before.
    disk.mount(size_kb=200_000)
    shutil.copytree(crawl.home, disk.folder / "home")
    crawl.home = disk.folder / "home"
    store = Store(crawl.home)
    table = read_table(store, before.path, declared=POSTS)
    disk.fill()
    with pytest.raises(StoreError, match=FULL):
        export_posts(store, ["demo"])
    assert read_table(store, before.path, declared=POSTS).equals(table)
    (disk.folder / "filler").open("r+b").truncate(0)
    with Ledger.of(store) as ledger:  # its files are there now, and the table's are not
        first = next(row.post for row in ledger.rows(["demo"]) if row.state == "kept")
        ledger.renew([first])
        disk.fill()
        with pytest.raises(StoreError, match=f"posts.lance: {FULL}"):
            export_posts(store, ["demo"])
    assert read_table(store, before.path, declared=POSTS).equals(table)
    disk.enlarge()
    completes(crawl, undisturbed)
