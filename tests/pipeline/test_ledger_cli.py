"""`omokage ledger`: counts of refusals, all about a post, and refusals taken back."""

import datetime as dt
from pathlib import Path

import pytest
from click.testing import CliRunner

from crawlers.cursor import Cursor
from crawlers.ledger import Ledger
from crawlers.post import Post
from crawlers.sites import load_sites
from dataset.errors import CrawlError, EmptyStageError, OmokageError, UsageError
from dataset.media import Media
from dataset.store import Store, blob_path
from pipeline.cli import cli

MOMENT = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
REASONS = {1: None, 2: "host", 3: "host", 4: "tag_comic", 5: "takedown", 6: "not_asked_for"}
BLOB = Media("ab" * 32, "png", 8, 8, 5)


def made_post(board: str, number: int) -> Post:
    return Post(
        board=board, post_id=number, md5=f"{number:032x}", ext="png", width=8, height=8,
        rating="general", tags_general=("1girl", "solo"), tags_character=(), tags_copyright=(),
        tags_artist=("someone",), tags_meta=(), source=None, score=1, created_at=MOMENT,
        updated_at=MOMENT, fetched_at=MOMENT, file_url=f"https://files.example/{number}.png",
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with refusals of a board that two sites show, and of an import."""
    with Ledger.of(Store(tmp_path)) as ledger:
        ledger.admit(load_sites()["danbooru_donmai"])
        posts = [made_post("danbooru", number) for number in REASONS]
        ledger.note_page("danbooru", "rating:g 1girl", posts=posts, cursor=Cursor(1, 6))
        for post, reason in zip(posts, REASONS.values(), strict=True):
            if reason is None:
                ledger.keep(post, BLOB)
            else:
                ledger.refuse(post, reason, cause="media_hosts" if reason == "host" else None)
        ledger.admit_import("mine", "folder")
        ledger.note_import("mine", [made_post("mine", 7), made_post("mine", 8)])
        ledger.refuse(made_post("mine", 7), "corrupt")
        ledger.refuse(made_post("mine", 8), "host")
    Store(tmp_path).write_bytes(blob_path(BLOB.sha256, BLOB.ext), b"bytes")
    return tmp_path


def ran(home: Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["ledger", *arguments, "--home", str(home)])
    assert result.exit_code == 0, result.output
    return result.output


def failed(home: Path, *arguments: str, kind: type[OmokageError] = UsageError) -> str:
    result = CliRunner().invoke(cli, ["ledger", *arguments, "--home", str(home)])
    assert isinstance(result.exception, kind), result.output
    return str(result.exception)


def states(home: Path, board: str = "danbooru") -> dict[int, str]:
    with Ledger.of(Store(home)) as ledger:
        return {row.post.post_id: row.state for row in ledger.rows([board])}


def test_refusals_are_counted_by_board_with_what_brings_them_back(home: Path) -> None:
    assert ran(home, "refusals") == (
        "danbooru: 5 posts refused\n"
        "  host                             2  taken once media_hosts of the site has its host\n"
        "  not_asked_for                    1  taken by any search that lists it and whose words "
        "it has\n"
        "  tag_comic                        1  taken once the tag is no longer excluded\n"
        "  takedown                         1  stays so\n"
        "mine: 2 posts refused\n"
        "  corrupt                          1  tried again by a release that takes more\n"
        "  host                             1  taken once media_hosts of the site has its host\n"
    )
    assert ran(home, "refusals", "--board", "safebooru_donmai") == "".join(
        ran(home, "refusals").splitlines(keepends=True)[:5]
    )


def test_a_requeue_makes_the_posts_of_a_reason_wait_on_all_boards_or_one(home: Path) -> None:
    said = ran(home, "requeue", "--reason", "host", "--dry-run")
    assert said == (
        "danbooru: 2 would be pending again; the next crawl settles them: "
        "omokage crawl --site safebooru_donmai\n"
        "mine: 1 would be pending again; the next `omokage import` of this set settles them\n"
    )
    assert set(states(home).values()) == {"kept", "refused"}
    assert "2 pending again" in ran(home, "requeue", "--reason", "host", "--board", "danbooru")
    waiting = [number for number, state in states(home).items() if state == "pending"]
    assert waiting == [2, 3]
    assert states(home, "mine") == {7: "refused", 8: "refused"}
    assert ran(home, "requeue", "--reason", "host").startswith("mine: 1 pending again")


def test_all_about_a_post_is_shown(home: Path) -> None:
    (home / "takedown.txt").write_text("post safebooru_donmai/3\n")
    lines = dict(line.split(None, 1) for line in ran(home, "show", "danbooru/2").splitlines())
    wanted = {
        "post": "danbooru/2",
        "state": "refused",
        "reason": "host",
        "cause": "media_hosts",
        "search": "rating:g 1girl",
        "rating": "general",
        "tags": "1girl solo someone",
        "file": "https://files.example/2.png",
        "md5": f"{2:032x}",
        "blob": "-",
        "takedown": "not on the list",
    }
    assert wanted.items() <= lines.items()
    causes = [ran(home, "show", post).split("cause")[1].splitlines()[0].strip()
              for post in ("danbooru/4", "danbooru/5", "mine/7")]  # fmt: skip
    assert causes == ["the tag is excluded", "the post itself",
                      "not known: an earlier release refused it"]  # fmt: skip
    assert "takedown     on the list" in ran(home, "show", "safebooru_donmai/3")
    said = ran(home, "show", "danbooru/1")
    path = blob_path(BLOB.sha256, BLOB.ext)
    assert "state        kept" in said
    assert f"{path}\n" in said
    (home / path).write_bytes(b"cut")
    assert f"{path}, which is NOT there" in ran(home, "show", "danbooru/1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["refusals", "--board", "danboru"], 'no board "danboru"; did you mean "danbooru"?'),
        (["refusals", "--board", "konachan"], 'no board "konachan"; there are: danbooru, mine'),
        (["requeue", "--reason", "hots"], 'is refused for that; did you mean "host"?'),
        (["requeue", "--reason", "x"], "there are: corrupt, host, not_asked_for, tag_comic"),
        (["requeue", "--reason", "corrupt", "--board", "danbooru"],
         "no post of danbooru is refused for that; there are: host, not_asked_for, tag_comic"),
        (["requeue", "--reason", "takedown"], "what was taken down stays so"),
        (["requeue", "--reason", "not_asked_for"], "crawl with --tags that they have"),
        (["requeue", "--reason", "gone_on_board"], "the board does not list them"),
        (["show", "danbooru"], "names no post; a board and a number wanted"),
        (["show", "danbooru/99"], "the ledger has never seen this post of danbooru"),
        (["show", "nowhere/1"], 'nowhere/1: the ledger has no board "nowhere"'),
    ],
)  # fmt: skip
def test_mistakes_are_named_and_change_nothing(home: Path, arguments: list[str], said: str) -> None:
    before = states(home)
    assert said in failed(home, *arguments)
    assert states(home) == before


def test_a_home_without_a_ledger_gets_none(tmp_path: Path) -> None:
    assert "crawl a site first" in failed(tmp_path, "refusals", kind=EmptyStageError)
    assert not list(tmp_path.iterdir())


def test_no_post_is_requeued_under_a_crawl(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.commands.ledger._LOCK_TIMEOUT_S", 0.1)
    with Ledger.of(Store(home)) as crawling:
        crawling.lock("mine")
        said = failed(home, "requeue", "--reason", "host", kind=CrawlError)
    assert "another crawl of mine is at work" in said
    assert set(states(home).values()) == {"kept", "refused"}
