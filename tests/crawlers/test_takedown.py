"""What is taken down leaves blob, crop and rows in the next build, and nothing brings it back."""

import hashlib
import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from crawlers.cursor import Cursor
from crawlers.export import export_posts
from crawlers.ledger import Ledger
from crawlers.sites import load_sites
from dataset.crops import CROPS_PATH
from dataset.errors import EmptyStageError, StoreError
from dataset.labels import LabelSettings, choose_labels
from dataset.manifest import build_manifest
from dataset.media import check_media
from dataset.schemas import FACES, POSTS, read_table
from dataset.store import Store, blob_path
from demo.collection import md5_of
from demo.painter import draw
from tests.crawlers.conftest import MakePost
from tests.dataset.home import cropped, png, portrait, portrait_tags, rows_of

SITES = ["demo", "demo_moebooru"]
COUNT = 8
SEEDS = (2, 5)  # drawings of one character each


class Crawled:
    """A home as crawls leave it: a ledger and blobs."""

    def __init__(self, folder: Path, make: MakePost) -> None:
        self.store = Store(folder)
        self._make = make
        self.blobs: list[str] = []
        with Ledger.of(self.store) as ledger:
            for site in SITES:
                ledger.admit(load_sites()[site])

    def keep(
        self,
        number: int,
        body: bytes,
        *,
        ext: str = "png",
        board: str = "demo",
        tags: tuple[str, ...] = (),
    ) -> str:
        """Settles a post as kept; returns the path of its blob."""
        media = check_media(body, md5=md5_of(body), ext=ext)
        post = self._make(
            number,
            board=board,
            md5=md5_of(body),
            ext=ext,
            tags_general=tags or tuple(portrait_tags(number)),
            tags_artist=(f"painter_{number}",),
        )
        path = blob_path(media.sha256, media.ext)
        with Ledger.of(self.store) as ledger:
            ledger.note_page(board, "q", posts=[post], cursor=Cursor(1, number))
            self.store.write_bytes(path, body)
            ledger.keep(post, media)
        return path

    def take_down(self, line: str) -> None:
        self.store.write_bytes("takedown.txt", line.encode())

    def build(self) -> set[tuple[str, int]]:
        """Builds posts, faces, labels and manifest; returns the posts that the manifest is of."""
        export_posts(self.store, SITES)
        cropped(self.store)
        choose_labels(self.store, LabelSettings())
        made = build_manifest(self.store, eval_frac=0.4)
        return {(row["board"], row["post_id"]) for row in rows_of(self.store, made)}

    def traces_of(self, blob: str) -> list[str]:
        """Every file and row that still has to do with a blob."""
        sha256 = Path(blob).stem
        found = [path for path in self.store.files("blobs") if sha256 in path]
        for path, schema in (("posts.lance", POSTS), ("faces.lance", FACES)):
            rows = read_table(self.store, path, declared=schema).to_pylist()
            found += [path for row in rows if row["sha256"] == sha256]
        for path in (CROPS_PATH, "faces.lance"):
            files = [file for file in self.store.state.local(path).rglob("*") if file.is_file()]
            found += [path for file in files if sha256.encode() in file.read_bytes()]
        return found


@pytest.fixture
def crawled(tmp_path: Path, make_post: MakePost) -> Crawled:
    home = Crawled(tmp_path, make_post)
    home.blobs = [home.keep(number, png(portrait(number))) for number in range(1, COUNT + 1)]
    # The third picture was posted on another board, too.
    home.keep(30, png(portrait(3)), board="demo_moebooru")
    return home


def body_of(number: int) -> bytes:
    return png(portrait(number))


@pytest.mark.parametrize(
    "line",
    [
        "post demo/3",
        "post demo_moebooru/30",
        "artist painter_3",
        f"md5 {hashlib.md5(png(portrait(3)), usedforsecurity=False).hexdigest()}",
    ],
)
def test_every_kind_of_entry_removes_blob_crop_and_rows(crawled: Crawled, line: str) -> None:
    blob = crawled.blobs[2]
    assert ("demo", 3) in crawled.build()
    assert len(crawled.traces_of(blob)) >= 5
    crawled.take_down(line)
    left = crawled.build()
    assert left == {("demo", number) for number in range(1, COUNT + 1) if number != 3}
    assert crawled.traces_of(blob) == []
    # Neither a crawl that had begun before, nor a lost list, brings it back.
    crawled.take_down("")
    with Ledger.of(crawled.store) as ledger:
        assert ledger.is_taken_down(md5_of(body_of(3)))
        assert ledger.blob_of(md5_of(body_of(3))) is None
    crawled.keep(3, body_of(3))
    crawled.keep(30, body_of(3), board="demo_moebooru")
    assert crawled.build() == left
    assert crawled.traces_of(blob) == []


def test_an_older_ledger_put_back_after_a_takedown_is_no_lost_volume(
    tmp_path: Path, make_post: MakePost
) -> None:
    home = Crawled(tmp_path / "home", make_post)
    for number in range(1, 31):
        home.keep(number, png(Image.new("RGB", (8, 8), (number, 0, 0))), tags=("solo",))
    shutil.copy(home.store.state.local("ledger.sqlite"), tmp_path)
    home.take_down("".join(f"artist painter_{number}\n" for number in range(1, 26)))
    assert export_posts(home.store, SITES).kept == 5
    for path in home.store.state.local("").glob("ledger.sqlite*"):
        path.unlink()
    shutil.copy(tmp_path / "ledger.sqlite", home.store.state.local("ledger.sqlite"))
    made = export_posts(home.store, SITES)
    assert (made.kept, made.refused["takedown"], made.requeued) == (5, 25, 0)
    home.take_down("".join(f"artist painter_{number}\n" for number in range(1, 31)))
    with pytest.raises(EmptyStageError, match=r"all 30 posts of .* were taken down"):
        export_posts(home.store, SITES)


@pytest.mark.parametrize("after", ["remove", "take_down_blob", "refuse"])
def test_a_takedown_killed_in_the_middle_is_finished_by_the_next_build(
    crawled: Crawled, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    crawled.build()
    crawled.take_down("artist painter_3\nartist painter_5\n")
    owner = Store if after == "remove" else Ledger
    whole = getattr(owner, after)

    def cut(*arguments: object) -> None:
        whole(*arguments)
        raise StoreError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(owner, after, cut)
        with pytest.raises(StoreError, match="killed here"):
            export_posts(crawled.store, SITES)
    left = crawled.build()
    assert left == {("demo", number) for number in range(1, COUNT + 1) if number not in (3, 5)}
    assert crawled.traces_of(crawled.blobs[2]) == crawled.traces_of(crawled.blobs[4]) == []


def test_the_same_drawing_in_other_files_on_three_boards_gives_one_face(
    tmp_path: Path,
    make_post: MakePost,
) -> None:
    crawled = Crawled(tmp_path, make_post)
    drawn, another = draw(SEEDS[0]), draw(SEEDS[1])
    image = drawn.image.convert("RGB")
    small = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)
    jpeg, smaller = io.BytesIO(), io.BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    small.save(smaller, "PNG")
    crawled.keep(1, png(image), tags=drawn.tags)
    crawled.keep(2, jpeg.getvalue(), ext="jpg", board="demo_moebooru", tags=drawn.tags)
    crawled.keep(3, smaller.getvalue(), tags=drawn.tags)
    crawled.keep(4, png(another.image.convert("RGB")), tags=another.tags)
    made = export_posts(crawled.store, SITES)
    assert (made.rows, made.kept, len(crawled.store.files("blobs"))) == (4, 4, 4)
    cropped(crawled.store)
    faces = read_table(crawled.store, "faces.lance", declared=FACES).to_pylist()
    reasons = {(row["board"], row["post_id"]): row["drop_reason"] for row in faces}
    assert reasons == {
        ("demo", 1): None,
        ("demo", 3): "near_duplicate",
        ("demo", 4): None,
        ("demo_moebooru", 2): "near_duplicate",
    }
