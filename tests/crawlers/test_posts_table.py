"""The table of posts grows by what changed, and always is what a build from nothing would make."""

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crawlers import export
from crawlers.cursor import Cursor
from crawlers.export import PostsTable, export_posts
from crawlers.ledger import Ledger
from crawlers.post import Post
from crawlers.sites import Site, load_sites
from dataset.errors import EmptyStageError, SchemaError
from dataset.media import Media
from dataset.policy import Takedowns
from dataset.schemas import POSTS, POSTS_PATH, read_table
from dataset.store import Store, blob_path
from tests.crawlers.conftest import MakePost, take_back_to_2
from tests.hypothesis_profiles import examples

POSTS_AT_MOST = 6
READ = st.tuples(st.just("read"), st.integers(1, POSTS_AT_MOST), st.sampled_from("gq"))
KEEP = st.tuples(st.just("keep"), st.integers(1, POSTS_AT_MOST), st.just(""))
REFUSE = st.tuples(st.just("refuse"), st.integers(1, POSTS_AT_MOST), st.just(""))
TAKE_DOWN = st.tuples(st.just("take down"), st.integers(1, POSTS_AT_MOST), st.just(""))
LOSE = st.tuples(st.just("lose"), st.integers(1, POSTS_AT_MOST), st.just(""))
EXCLUDE = st.tuples(st.just("exclude"), st.just(0), st.sampled_from(["g_tag", "q_tag", ""]))
BUILD = st.tuples(st.just("build"), st.just(0), st.just(""))
STEPS = st.lists(
    st.one_of(READ, KEEP, KEEP, REFUSE, TAKE_DOWN, LOSE, EXCLUDE, BUILD, BUILD), max_size=24
)


@dataclasses.dataclass
class Home:
    """A home whose ledger is written by hand."""

    store: Store
    make_post: MakePost
    site: Site

    def note(self, post: Post) -> None:
        with Ledger.of(self.store) as ledger:
            ledger.admit(self.site)
            cursor = Cursor(post.post_id, post.post_id)
            ledger.note_page("demo", "q", posts=[post], cursor=cursor)

    def keep(self, post_id: int, content: bytes | None = None) -> Media:
        content = content or f"picture {post_id}".encode()
        media = Media(hashlib.sha256(content).hexdigest(), "png", 8, 8, len(content))
        self.store.write_bytes(blob_path(media.sha256, "png"), content, durable=False)
        with Ledger.of(self.store) as ledger:
            ledger.keep(self.make_post(post_id), media)
        return media

    def build(self) -> PostsTable:
        return export_posts(
            self.store, ["demo"], registry={"demo": self.site}, refetch_missing=True
        )

    def rows(self) -> pa.Table:
        return read_table(self.store, POSTS_PATH, declared=POSTS)


@pytest.fixture
def home(tmp_path: Path, make_post: MakePost) -> Home:
    return Home(Store(tmp_path / "home"), make_post, load_sites()["demo"])


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each merge and each whole table had."""
    counts: list[int] = []
    real: Callable[..., pa.Table] = export._table

    def noted(store: Store, rows: list[dict[str, object]]) -> pa.Table:
        counts.append(len(rows))
        return real(store, rows)

    monkeypatch.setattr(export, "_table", noted)
    return counts


def test_a_build_writes_the_rows_that_changed_and_no_others(home: Home, written: list[int]) -> None:
    for number in range(1, 51):
        home.note(home.make_post(number))
        home.keep(number)
    first = home.build()
    assert (first.rows, first.kept, written) == (50, 50, [50])
    home.note(home.make_post(51))
    home.keep(51)
    home.note(home.make_post(7, rating="explicit"))
    again = home.build()
    assert (again.rows, again.kept, again.refused) == (51, 50, {"not_fetched": 1})
    assert written == [50, 2]
    assert home.build().digest == again.digest != first.digest
    assert written == [50, 2]


def test_other_rules_another_ledger_or_a_damaged_table_mean_a_build_of_all(
    home: Home, written: list[int]
) -> None:
    for number in (1, 2, 3):
        home.note(home.make_post(number))
        home.keep(number)
    made = home.build()
    home.site = dataclasses.replace(home.site, excluded_tags=("solo",))
    with pytest.raises(EmptyStageError, match="tag_solo: 3"):
        home.build()
    home.site = load_sites()["demo"]
    assert home.build() == made
    assert written == [3, 3, 3]
    older = Path(home.store.root, "older.sqlite")
    shutil.copy(Path(home.store.root, "ledger.sqlite"), older)
    home.note(home.make_post(4))
    home.keep(4)
    home.build()
    for left in Path(home.store.root).glob("ledger.sqlite-*"):
        left.unlink()
    older.replace(Path(home.store.root, "ledger.sqlite"))
    assert home.build().rows == 3
    assert written == [3, 3, 3, 1, 3]
    for folder in ("_versions", "data"):
        for file in Path(home.store.root, POSTS_PATH, folder).iterdir():
            file.write_bytes(b"cut")
        with pytest.raises(SchemaError, match=r"posts\.lance cannot be read: .*Build it again\.$"):
            home.rows()
        assert home.build() == made
        assert home.rows().num_rows == 3


def test_a_home_with_a_ledger_and_a_table_of_before_gets_the_new_one(home: Home) -> None:
    home.note(home.make_post(1))
    home.keep(1)
    home.store.write_bytes("posts.parquet", b"of before")
    take_back_to_2(Path(home.store.root, "ledger.sqlite"))
    assert home.build().rows == 1
    assert not home.store.exists("posts.parquet")


def test_what_was_taken_down_is_in_no_file_of_the_table(home: Home) -> None:
    for number in range(1, 20):
        home.note(home.make_post(number, source=f"https://artist.example/art/{number}"))
        home.keep(number)
    home.build()
    home.note(home.make_post(5, source="https://artist.example/art/5", score=2))
    home.keep(5)
    home.build()
    assert len(files_with(home, b"art/5")) == 2  # its old row is in the older file
    home.store.write_bytes("takedown.txt", b"post demo/5\n")
    home.build()
    assert files_with(home, b"art/5") == []
    assert len(files_with(home, b"art/6")) == 1


def test_nor_in_the_version_before_when_other_rules_write_it_whole(home: Home) -> None:
    for number in range(1, 6):
        home.note(home.make_post(number, source=f"https://artist.example/art/{number}"))
        home.keep(number)
    home.build()
    home.store.write_bytes("takedown.txt", b"post demo/5\n")
    home.site = dataclasses.replace(home.site, excluded_tags=("other",))
    home.build()
    assert files_with(home, b"art/5") == []


def test_a_takedown_list_that_was_applied_is_held_against_changed_posts_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    real = Takedowns.cover

    def cover(self: Takedowns, post: Post) -> bool:
        held.append(post.post_id)
        return real(self, post)

    for number in (1, 2, 3):
        home.note(home.make_post(number))
        home.keep(number)
    home.store.write_bytes("takedown.txt", b"artist nobody\n")
    home.build()
    monkeypatch.setattr(Takedowns, "cover", cover)
    home.note(home.make_post(4, tags_artist=("nobody",)))
    home.keep(4)
    assert home.build().refused == {"takedown": 1}
    assert set(held) == {4}
    home.store.write_bytes("takedown.txt", b"artist nobody\npost demo/2\n")
    assert home.build().refused == {"takedown": 2}
    assert {1, 2, 3} <= set(held)


def files_with(home: Home, text: bytes) -> list[Path]:
    files = Path(home.store.root, POSTS_PATH).rglob("*")
    return [file for file in files if file.is_file() and text in file.read_bytes()]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@settings(max_examples=examples(12))
@given(steps=STEPS)
@example(steps=[("read", 1, "g"), ("keep", 1, ""), ("read", 1, "q"), ("refuse", 1, "")])
def test_however_a_home_came_to_be_its_table_is_that_of_one_build(
    folder: Path, make_post: MakePost, steps: list[tuple[str, int, str]]
) -> None:
    home = Home(Store(tempfile.mkdtemp(dir=folder)), make_post, load_sites()["demo"])
    home.note(make_post(9))
    home.keep(9)
    for number, (step, post_id, text) in enumerate(steps):
        take(home, step, post_id, text, number=number)
    grown = built(home)
    rows = home.rows()
    home.store.remove(POSTS_PATH)
    # The build before has put back and swept away what there was
    assert built(home) == (grown and dataclasses.replace(grown, requeued=0, swept=0))
    assert home.rows().equals(rows)


def take(home: Home, step: str, post_id: int, text: str, *, number: int) -> None:
    """Takes one step of what may happen to a home."""
    with Ledger.of(home.store, refetch_missing=True) as ledger:
        known = {row.post.post_id: row for row in ledger.rows(["demo"])}
    row = known.get(post_id)
    if step == "read":
        rating = {"g": "general", "q": "questionable"}[text]
        tags = ("solo", f"{text}_tag")
        home.note(home.make_post(post_id, rating=rating, tags_general=tags, score=number))
    elif step == "keep" and row and row.state == "pending":
        home.keep(post_id)
    elif step == "refuse" and row and row.state == "pending":
        with Ledger.of(home.store, refetch_missing=True) as ledger:
            ledger.refuse(row.post, "too_large")
    elif step == "take down":
        listed = home.store.read_bytes("takedown.txt") if home.store.exists("takedown.txt") else b""
        home.store.write_bytes("takedown.txt", listed + f"post demo/{post_id}\n".encode())
    elif step == "lose" and row and row.media:
        home.store.remove(blob_path(row.media.sha256, "png"))
    elif step == "exclude":
        home.site = dataclasses.replace(load_sites()["demo"], excluded_tags=(text,))
    elif step == "build":
        built(home)


def built(home: Home) -> PostsTable | None:
    """Builds the table; None if no post is left to keep."""
    try:
        return home.build()
    except EmptyStageError:
        return None
