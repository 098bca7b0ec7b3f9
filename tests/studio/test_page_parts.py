"""What the page keeps in mind: pills and wishes, steps of a finishing, files and their names."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from dataset.errors import UsageError
from pipeline.cli import cli
from studio.__main__ import main as serve_studio
from studio.edits import Edits
from studio.groups import label_groups
from studio.limits import UPLOAD_MAX_BYTES
from studio.page import pills
from studio.page.bench import STEPS_MAX, Bench, Look, bench_of
from studio.page.files import Files, temporary_files
from studio.page.names import file_name, stem_of
from studio.page.pills import ANY, NONE
from studio.page.serve import Address, serve
from studio.recipe import Recipe
from studio.source import ModelSource
from studio.studio import Studio

GROUPS = label_groups(["long_hair", "pink_hair", "blue_hair", "animal_ears", "hair_ornament"])
HAIR = next(group for group in GROUPS if group.name == "hair_colour")
RECIPE = Recipe("avatar-generator/3", 17, ("pink_hair",))
LARGE, TURNED, DARK = Look(4), Look(4, edits=Edits(rotate=45)), Look(edits=Edits(brightness=0.5))


def test_pills_leave_out_the_word_that_a_group_shares() -> None:
    assert pills.choices(HAIR) == [
        ("any", ANY), ("none", NONE), ("pink", "pink_hair"), ("blue", "blue_hair"),
    ]  # fmt: skip
    (length,) = [group for group in GROUPS if group.name == "hair_length"]
    assert pills.spoken("long_hair", length) == "long hair", "alone it has nothing to share"


def test_any_leaves_a_group_out_and_none_asks_for_none_of_it() -> None:
    picked: dict[str, pills.Picked] = {
        "hair_colour": "pink_hair",
        "hair_length": ANY,
        "on_the_head": [NONE],
    }
    assert pills.wish_of(GROUPS, picked).chosen == {
        "hair_colour": ("pink_hair",),
        "on_the_head": (),
    }
    assert pills.wish_of(GROUPS, {}).chosen == {}


def test_picks_ask_for_exactly_the_labels_they_were_made_from() -> None:
    labels = ("pink_hair", "animal_ears", "hair_ornament")
    chosen = pills.wish_of(GROUPS, pills.picks_of(GROUPS, labels)).chosen
    assert chosen["hair_length"] == ()
    assert {label for group in chosen.values() for label in group} == set(labels)


def test_a_pick_that_the_next_model_does_not_know_becomes_any() -> None:
    assert pills.kept("green_hair", HAIR) == ANY
    assert pills.kept("blue_hair", HAIR) == "blue_hair"


def test_steps_are_undone_redone_and_forgotten_by_the_next_change() -> None:
    bench = bench_of(RECIPE).changed(LARGE, now=0).changed(TURNED, now=5)
    assert bench.undone().look == LARGE
    assert bench.undone().undone().undone().look == Look()
    assert bench.undone().redone() == bench.redone().redone().undone().redone()
    other = bench.undone().changed(DARK, now=9)
    assert other.look == DARK
    assert not other.can_redo
    assert bench.reset(now=20).look == Look()
    assert bench.reset(now=20).undone().look == TURNED


def test_a_slider_that_is_dragged_is_one_step() -> None:
    bench = bench_of(RECIPE)
    for number in range(40):
        bench = bench.changed(Look(edits=Edits(rotate=number + 1)), now=number / 20)
    assert bench.look.edits.rotate == 40
    assert bench.undone().look == Look()
    later = bench.changed(Look(edits=Edits(rotate=90)), now=60)
    assert later.undone().look.edits.rotate == 40


def test_steps_do_not_grow_without_end() -> None:
    bench = bench_of(RECIPE)
    for number in range(2 * STEPS_MAX):
        bench = bench.changed(Look(edits=Edits(hue=number % 180 + 1)), now=10 * number)
    assert len(bench.steps) == STEPS_MAX


def test_a_finished_recipe_lies_on_the_bench_as_one_step_that_can_be_undone() -> None:
    recipe = Recipe("avatar-generator/3", 17, upscale=2, denoise=1, edits=Edits(hue=20))
    bench = bench_of(recipe)
    assert bench.finished() == recipe
    assert bench.undone().finished() == Recipe("avatar-generator/3", 17)
    assert Bench().is_empty


def test_the_same_content_is_one_file_and_all_are_gone_at_the_end() -> None:
    with temporary_files() as files:
        first, second = files.keep(b"one", "a.png"), files.keep(b"one", "a.png")
        assert first == second
        assert files.sent({"path": first, "orig_name": "mine.png"}) == (b"one", "mine.png")
        assert files.folder.stat().st_mode & 0o077 == 0, "nobody else reads them"
    assert not files.folder.exists()


def test_nothing_but_what_was_uploaded_is_read(tmp_path: Path) -> None:
    files = Files(tmp_path / "files")
    files.folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (files.folder / "link").symlink_to(tmp_path / "secret")
    (files.folder / "large").write_bytes(b"0" * (UPLOAD_MAX_BYTES + 1))
    for path in ("/etc/passwd", f"{files.folder}/../secret", f"{files.folder}/link", "http://x/"):
        with pytest.raises(UsageError, match="no other path and no address"):
            files.sent({"path": path})
    with pytest.raises(UsageError, match="at most 10,485,760"):
        files.sent(str(files.folder / "large"))
    for nothing in (None, {}, {"path": 3}):
        with pytest.raises(UsageError, match="no picture was uploaded"):
            files.sent(nothing)


@pytest.mark.parametrize(
    ("name", "stem"), [("../../a b.png", "a-b"), ("C:\\x\\ö.jpg", "picture"), ("", "picture")]
)
def test_names_of_downloads_are_plain(name: str, stem: str) -> None:
    assert stem_of(name) == stem
    assert file_name(RECIPE) == "avatar-generator-3-seed-17.png"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (Address(user="mio"), "a user is given, and a password in $OMOKAGE_STUDIO_PASSWORD is not"),
        (
            Address(password="sesame"),
            "is given, and a user (--user or $OMOKAGE_STUDIO_USER) is not",
        ),
    ],
)
def test_a_user_without_a_password_is_refused_before_anything_is_served(
    address: Address, told: str
) -> None:
    with pytest.raises(UsageError) as refused:
        serve(Studio(ModelSource("/nowhere", tracking_uri="")), address)
    assert told in str(refused.value)


def test_a_port_that_is_taken_is_told_with_the_option_that_moves_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} cannot be had: .* --port"):
            serve(Studio(ModelSource("/nowhere", tracking_uri="")), Address(port=port))


def test_only_loopback_knows_which_names_it_may_be_called_by() -> None:
    assert Address().hosts == {"127.0.0.1", "localhost", "[::1]"}
    assert Address(host="0.0.0.0").hosts == frozenset()
    assert Address(host="::1", port=80).url == "http://[::1]:80"


def test_two_models_at_once_are_refused() -> None:
    asked = CliRunner().invoke(cli, ["studio", "--uri", "models:/a/1", "--generator", "there"])
    assert isinstance(asked.exception, UsageError)
    assert "exclude each other" in str(asked.exception)


def test_a_folder_without_a_generator_is_told_before_anything_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve_studio(["--uri", str(tmp_path)]) == UsageError.exit_code
    assert f"omokage: {tmp_path} holds no generator" in capsys.readouterr().err
