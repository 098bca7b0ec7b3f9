"""Whatever is missing beside them, no command removes originals; the message names what it misses.

A home of COUNT crawled and IMPORTED imported posts loses a volume or its ledger in every way, meets
every command that could remove or fetch, and is whole again once the thing is back.
"""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawlers.audit import audit
from crawlers.export import PostsTable, export_posts
from crawlers.importing import ImportSettings, ImportSummary, take_in
from crawlers.ledger import Ledger
from crawlers.ledger_file import MARKER
from dataset.errors import EmptyStageError, StoreError
from dataset.importers.files import open_files
from dataset.importers.folder import look_at, read_collection
from dataset.schemas import POSTS, read_table
from dataset.store import Store
from tests.board_fixture import serve_collection
from tests.crawlers.conftest import CrawlOf
from tests.crawlers.tiny import tiny_collection, tiny_picture
from tests.hypothesis_profiles import examples

COUNT, IMPORTED = 60, 5
ALL = COUNT + IMPORTED
EARLIER = 35  # of the posts, known to the older copy of the ledger


@dataclasses.dataclass
class Home:
    """A copy of the crawled home, what lies beside it, and the commands that write to it."""

    folder: Path
    crawl: CrawlOf

    @property
    def path(self) -> Path:
        return self.crawl.home

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def store(self) -> Store:
        return Store(self.path)

    def build(self, **options: bool) -> PostsTable:
        return export_posts(self.store, ["demo"], **options)  # type: ignore[arg-type]

    def take_in(self) -> ImportSummary:
        files = open_files(self.folder / "set", option="PATH")
        chosen = ImportSettings(name="mine", kind="folder", rating="general")
        return take_in(self.store, files, read_collection(look_at(files)), settings=chosen)

    def files(self) -> list[Path]:
        """All blobs of the home, where it looks for them."""
        return sorted(path for path in self.blobs.rglob("*.png") if path.is_file())

    def everything(self) -> dict[str, str]:
        """The sha256 of each file in the home and beside it but the ledger's own, by path."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and "/ledger" not in str(path)  # nor its backups
        }

    def settled(self) -> list[tuple[str, int, str]]:
        """State of every post in the ledger, with its blob."""
        if not self.ledger.exists():
            return []
        with Ledger(self.ledger) as ledger:
            rows = ledger.rows(ledger.boards())
            return [(str(row.media), row.post.post_id, row.state) for row in rows]


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A board that still answers, a home that was crawled from it, and older and other homes."""
    folder = tmp_path_factory.mktemp("crawled")
    (folder / "set").mkdir()
    for number in range(IMPORTED):
        (folder / "set" / f"{number}.png").write_bytes(tiny_picture(1_000 + number))
    with serve_collection(tiny_collection(range(1, COUNT + 1))) as board:
        home = Home(folder, CrawlOf(board.url, folder))
        other = CrawlOf(board.url, folder)
        other.home = folder / "other"
        other("--limit", "30")
        home.crawl("--limit", str(EARLIER))
        home.take_in()
        shutil.copy(home.ledger, folder / "older.sqlite")
        home.crawl()
        home.build()
        yield home


@pytest.fixture
def home(crawled: Home, tmp_path: Path) -> Home:
    folder = tmp_path / "copy"
    shutil.copytree(crawled.folder, folder)
    crawl = CrawlOf(crawled.crawl._variables["OMOKAGE_BOARD_URL"], folder)
    return Home(folder, crawl)


Way = Callable[[Home], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def without(home: Home, *paths: Path) -> Iterator[None]:
    """Moves files or folders away, and back over what is there then."""
    away = {path: home.folder / f"away-{number}" for number, path in enumerate(paths)}
    for path, place in away.items():
        path.rename(place)
    yield
    for path, place in away.items():
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        place.rename(path)


@contextlib.contextmanager
def no_blobs(home: Home) -> Iterator[None]:
    with without(home, home.blobs):
        yield


@contextlib.contextmanager
def empty_mount_point(home: Home) -> Iterator[None]:
    with without(home, home.blobs):
        home.blobs.mkdir()
        yield


@contextlib.contextmanager
def link_to_nowhere(home: Home) -> Iterator[None]:
    with without(home, home.blobs):
        home.blobs.symlink_to(home.folder / "unplugged")
        yield


@contextlib.contextmanager
def foreign_blobs(home: Home) -> Iterator[None]:
    with without(home, home.blobs):
        home.blobs.symlink_to(home.folder / "other" / "blobs")
        yield


@contextlib.contextmanager
def half_restored(home: Home) -> Iterator[None]:
    with without(home, home.blobs):
        shutil.copytree(home.folder / "other" / "blobs", home.blobs)
        (home.path / MARKER).unlink()
        yield


@contextlib.contextmanager
def missing_prefixes(home: Home) -> Iterator[None]:
    with without(home, *home.blobs.glob("[0-7]?")):
        yield


@contextlib.contextmanager
def cut_short(home: Home) -> Iterator[None]:
    halved = {path: path.read_bytes() for path in home.files()[::2]}
    for path in halved:
        path.write_bytes(halved[path][:20])
    yield
    for path in halved:
        path.write_bytes(halved[path])


@contextlib.contextmanager
def no_ledger(home: Home) -> Iterator[None]:
    with without(home, home.ledger):
        yield


@contextlib.contextmanager
def fresh_ledger(home: Home) -> Iterator[None]:
    with without(home, home.ledger, home.path / MARKER):
        Ledger(home.ledger).close()
        yield


@contextlib.contextmanager
def ledger_crawled_anew(home: Home) -> Iterator[None]:
    with without(home, home.ledger):
        shutil.copy(home.folder / "other" / "ledger.sqlite", home.ledger)
        yield


@contextlib.contextmanager
def older_ledger(home: Home) -> Iterator[None]:
    with without(home, home.ledger):
        shutil.copy(home.folder / "older.sqlite", home.ledger)
        yield


LOST = rf"{{blobs}}: {ALL} of the {ALL} blobs that .*ledger.sqlite names are missing"
MIXED = r"{blobs} with %d files belongs to another home: .* has %d blobs"
# What is lost, what is said, and whether a crawl or an import can know that something is wrong.
WAYS: list[tuple[Way, str, bool]] = [
    (no_blobs, LOST, True),
    (empty_mount_point, LOST, True),
    (link_to_nowhere, LOST, True),
    (foreign_blobs, MIXED % (30, ALL), True),
    (half_restored, rf"{{blobs}}: {ALL - 30} of the {ALL} blobs", True),
    (missing_prefixes, rf"{{blobs}}: [23]\d of the {ALL} blobs", False),
    (cut_short, rf"{{blobs}}: {(ALL + 1) // 2} of the {ALL} blobs .* or cut short", False),
    (no_ledger, rf"{{blobs}} has {ALL} files, and .*ledger.sqlite is not there", True),
    (fresh_ledger, rf"{{blobs}} has {ALL} files, and .*ledger.sqlite knows no post", True),
    (ledger_crawled_anew, MIXED % (ALL, 30), True),
    (older_ledger, rf"{{blobs}}: {COUNT - EARLIER} of {ALL} files belong to no post", False),
]


@pytest.mark.parametrize(("way", "said", "is_seen"), WAYS, ids=[way.__name__ for way, _, _ in WAYS])
def test_nothing_is_removed_and_all_works_once_the_thing_is_back(
    home: Home, way: Way, said: str, is_seen: bool
) -> None:
    before = home.build()
    whole = home.everything()
    with way(home):
        files, settled = home.everything(), home.settled()
        text = said.format(blobs=home.blobs)
        commands: list[Callable[[], object]] = [home.build]
        if is_seen:
            commands += [home.take_in, lambda: audit(home.store)]
        for command in [*commands, home.build]:  # twice: the first must not have changed anything
            with pytest.raises(StoreError, match=text) as error:
                command()
            assert "Nothing was changed." in str(error.value)
            assert home.everything() == files
            assert home.settled() == settled
    assert home.everything() == whole
    made = home.build()
    assert (made.digest, made.kept, made.requeued, made.swept) == (before.digest, ALL, 0, 0)
    assert home.everything() == whole


@pytest.mark.parametrize("way", [empty_mount_point, foreign_blobs, ledger_crawled_anew, no_ledger])
def test_a_crawl_stops_before_it_fetches_anything_again(home: Home, way: Way) -> None:
    with way(home):
        files = home.everything()
        code, err = home.crawl.failing()
        assert code == StoreError.exit_code
        assert f"crawl: {home.blobs}" in err
        assert home.everything() == files
        assert not (home.ledger.exists() and way is no_ledger)


@pytest.mark.parametrize("way", [missing_prefixes, cut_short])
def test_a_crawl_beside_missing_files_fetches_none_of_them(home: Home, way: Way) -> None:
    with way(home):
        files = home.everything()
        made = home.crawl()
        assert (made["kept"], made["media_requests"]) == (0, 0)
        assert (home.take_in().kept, home.everything()) == (0, files)


def test_the_ledger_of_five_posts_is_guarded_as_any(tmp_path: Path) -> None:
    small = Home(tmp_path, CrawlOf("", tmp_path))
    (tmp_path / "set").mkdir()
    for number in range(5):
        (tmp_path / "set" / f"{number}.png").write_bytes(tiny_picture(number))
    small.take_in()
    before, whole = small.build(), small.everything()
    for _ in range(2):
        with empty_mount_point(small), pytest.raises(StoreError, match="5 of the 5 blobs"):
            small.build()
        assert small.build() == before
    assert small.everything() == whole


def test_a_copy_without_hidden_files_is_taken_for_what_it_is(home: Home) -> None:
    before = home.build()
    (home.path / MARKER).unlink()
    home.files()[0].unlink()  # a single accident is none of the marker's business
    assert home.build().requeued == 1
    assert (home.path / MARKER).is_file()
    home.crawl()
    assert home.take_in().faults == 0
    assert home.build().digest == before.digest


def test_a_small_loss_is_queued_and_known_when_it_comes_back(home: Home) -> None:
    before = home.build()
    gone, cut = home.files()[:2]
    orphan = home.blobs / "ab" / "cd" / f"{'ab' * 32}.png"
    with without(home, gone):
        whole = cut.read_bytes()
        cut.write_bytes(whole[:20])
        orphan.parent.mkdir(parents=True, exist_ok=True)
        orphan.write_bytes(b"of a killed crawl")
        made = home.build()
        assert (made.requeued, made.swept) == (2, 0)
        assert orphan.is_file()  # a build that misses something removes nothing
        waiting = [row for row in home.settled() if row[2] == "pending"]
        assert sorted(gone.stem in row[0] or cut.stem in row[0] for row in waiting) == [True] * 2
        found = audit(home.store)
        assert (found.named, found.lost) == (ALL - 2, ())  # they wait, and are no fault
        made = home.build()
        assert (made.requeued, made.swept) == (0, 1)
    cut.write_bytes(whole)
    assert home.build().digest == before.digest  # without a crawl


def test_lost_files_come_again_by_the_same_identity_or_another_crawl(home: Home) -> None:
    before = home.build()
    for path in home.files()[:3]:
        path.unlink()
    assert home.build().requeued == 3
    made, imported = home.crawl(), home.take_in()
    assert made["media_requests"] + imported.kept == 3
    assert home.build().digest == before.digest


@pytest.mark.parametrize("by_crawl", [True, False])
def test_a_word_fetches_everything_again(home: Home, by_crawl: bool) -> None:
    before = home.build()
    shutil.rmtree(home.blobs)
    if by_crawl:
        assert home.crawl("--refetch-missing")["media_requests"] == COUNT
        assert home.build().requeued == IMPORTED
    else:
        with pytest.raises(EmptyStageError, match=r"(?s)none of the 65 posts.*The next crawl"):
            home.build(refetch_missing=True)
        assert home.crawl()["media_requests"] == COUNT
    assert home.take_in().kept == IMPORTED
    assert home.build().digest == before.digest


def test_more_orphans_than_killed_crawls_leave_move_only_upon_a_word(home: Home) -> None:
    with older_ledger(home):
        made = home.build(trash_orphans=True)
        assert (made.kept, made.swept) == (EARLIER + IMPORTED, COUNT - EARLIER)
        (day,) = (home.path / "trash").iterdir()
        moved = [path.relative_to(day) for path in day.rglob("*.png")]
        assert len(moved) == COUNT - EARLIER
        for path in moved:
            assert hashlib.sha256((day / path).read_bytes()).hexdigest() == path.stem
            assert not (home.path / path).exists()
    for path in moved:  # back where they were, all is as before
        (day / path).rename(home.path / path)
    assert home.build().kept == ALL


def test_blobs_that_posts_gave_up_are_no_sign_of_a_loss_and_go_bit_by_bit(home: Home) -> None:
    with Ledger.of(home.store) as ledger:
        posts = [row.post for row in ledger.rows(["demo"])]
        for post in posts[:30]:
            ledger.refuse(post, "rating")
        replaced = dataclasses.replace(posts[30], md5="f" * 32)
        ledger.note_page("demo", "q", posts=[replaced], cursor=ledger.cursor("demo", "q"))
    assert len(audit(home.store).given_up) == 31
    assert [home.build().swept for _ in range(3)] == [20, 11, 0]
    assert audit(home.store).orphans == ()
    assert len(list((home.path / "trash").rglob("*.png"))) == 31


def test_the_trash_is_emptied_after_its_time_and_never_beside_a_loss(home: Home) -> None:
    today = dt.datetime.now(dt.UTC).date()
    kept_for = {29: True, 30: True, 31: False, 400: False}
    names = {days: f"{today - dt.timedelta(days=days)}" for days in kept_for}
    for name in [*names.values(), "mine"]:
        home.store.write_bytes(f"trash/{name}/blobs/ab/cd/x.png", b"x")
    with without(home, home.files()[0]):
        assert home.build().requeued == 1
        assert len(home.store.names("trash")) == len(names) + 1
    home.build()
    stays = [names[days] for days, stays in kept_for.items() if stays]
    assert home.store.names("trash") == sorted([*stays, "mine"])
    export_posts(home.store, ["demo"], trash_days=1)
    assert home.store.names("trash") == ["mine"]


def test_prefixes_on_other_disks_are_part_of_the_home(home: Home) -> None:
    before = home.build()
    prefix = home.files()[0].parents[1]
    elsewhere = home.folder / "disk"
    prefix.rename(elsewhere)
    prefix.symlink_to(elsewhere)
    assert home.build() == before
    with without(home, elsewhere):  # the link stays, and is nobody's orphan
        made = home.build()
        assert (made.swept, made.requeued > 0, prefix.is_symlink()) == (0, True, True)
    assert home.build().digest == before.digest


def test_a_takedown_is_no_move_to_the_trash(home: Home) -> None:
    (row, *_) = read_table(home.store, home.build().path, declared=POSTS).to_pylist()
    home.store.write_bytes("takedown.txt", f"post demo/{row['post_id']}\n".encode())
    assert home.build().kept == ALL - 1
    assert not [path for path in home.folder.rglob("*") if row["sha256"] in path.name]


ACTIONS = ["lose", "cut", "unmount", "older ledger", "build", "import", "audit", "put back"]


@settings(max_examples=examples(25))
@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=8), seed=st.integers(0, 99))
@pytest.mark.ci
def test_whatever_is_lost_meanwhile_no_command_adds_to_the_loss(
    crawled: Home, actions: list[str], seed: int
) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(crawled.folder, Path(folder), dirs_exist_ok=True)
        home = Home(Path(folder), CrawlOf("", Path(folder)))
        before = home.build()
        originals = {path: path.read_bytes() for path in home.files()}
        newest = home.ledger.read_bytes()
        taken: set[Path] = set()  # by the test
        for action in [*actions, "put back"]:
            if action in ("lose", "cut"):
                there = [path for path in originals if path.is_file()]
                for path in rng.sample(there, min(len(there), rng.choice([1, 9, 30]))):
                    path.unlink() if action == "lose" else path.write_bytes(b"cut")
                    taken.add(path)
            elif action == "unmount":
                if home.blobs.exists():
                    home.blobs.rename(home.folder / "unmounted")
            elif action == "older ledger":
                shutil.copy(home.folder / "older.sqlite", home.ledger)
            elif action == "put back":
                if not home.blobs.exists():
                    (home.folder / "unmounted").rename(home.blobs)
                for path in (home.path / "trash").rglob("*.png"):
                    shutil.copy(path, home.path.joinpath(*path.relative_to(home.path).parts[2:]))
                for path in taken:
                    path.write_bytes(originals[path])
                taken.clear()
                home.ledger.write_bytes(newest)
            else:
                commands: dict[str, Callable[[], object]] = {
                    "build": home.build,
                    "import": home.take_in,
                    "audit": lambda: audit(home.store),
                }
                with contextlib.suppress(StoreError):
                    commands[action]()
            found = {path.name for path in home.folder.rglob("*.png")}
            assert found >= {path.name for path in originals if path not in taken}
        assert home.build().digest == before.digest
