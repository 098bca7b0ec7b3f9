"""What the page keeps in mind: pills and choices, steps of a finishing, files and their names."""

import dataclasses
import os
import socket
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from click.testing import CliRunner

from dataset.errors import UsageError
from pipeline.cli import cli
from studio.__main__ import main as serve_studio
from studio.draw import label_groups
from studio.edits import Edits
from studio.model_source import ModelSource
from studio.recipe import Recipe
from studio.service import Studio
from studio.validation import UPLOAD_MAX_BYTES
from studio.web import draw_tab, keep_tab, label_controls
from studio.web.files import Files, file_name, stem_of, temporary_files
from studio.web.label_controls import ANY, NONE
from studio.web.listener import listener
from studio.web.page_state import (
    STEPS_MAX,
    Drawn,
    EditHistory,
    Finishing,
    Page,
    PageState,
    history_of,
)
from studio.web.serve import Address, serve

if TYPE_CHECKING:
    from studio.web.app import Parts

GROUPS = label_groups(["long_hair", "pink_hair", "blue_hair", "animal_ears", "hair_ornament"])
HAIR = next(group for group in GROUPS if group.name == "hair_colour")
RECIPE = Recipe("avatar-generator/3", 17, ("pink_hair",))
LARGE, TURNED, DARK = (
    Finishing(4),
    Finishing(4, edits=Edits(rotate=45)),
    Finishing(edits=Edits(brightness=0.5)),
)


def drawn_of(seed: int) -> Drawn:
    return Drawn(dataclasses.replace(RECIPE, seed=seed), f"{seed}.png", 64)


def test_pills_leave_out_the_word_that_a_group_shares() -> None:
    assert label_controls.options(HAIR) == [
        ("any", ANY), ("none", NONE), ("pink", "pink_hair"), ("blue", "blue_hair"),
    ]  # fmt: skip
    (length,) = [group for group in GROUPS if group.name == "hair_length"]
    assert label_controls.spoken("long_hair", length) == "long hair", (
        "alone it has nothing to share"
    )


def test_any_leaves_a_group_out_and_none_asks_for_none_of_it() -> None:
    picked: dict[str, label_controls.Picked] = {
        "hair_colour": "pink_hair",
        "hair_length": ANY,
        "on_the_head": [NONE],
    }
    assert label_controls.choice_of(GROUPS, picked).chosen == {
        "hair_colour": ("pink_hair",),
        "on_the_head": (),
    }
    assert label_controls.choice_of(GROUPS, {}).chosen == {}


def test_picks_ask_for_exactly_the_labels_they_were_made_from() -> None:
    labels = ("pink_hair", "animal_ears", "hair_ornament")
    chosen = label_controls.choice_of(GROUPS, label_controls.picks_of(GROUPS, labels)).chosen
    assert chosen["hair_length"] == ()
    assert {label for group in chosen.values() for label in group} == set(labels)


def test_a_pick_that_the_next_model_does_not_know_becomes_any() -> None:
    assert label_controls.valid_pick("green_hair", HAIR) == ANY
    assert label_controls.valid_pick("blue_hair", HAIR) == "blue_hair"


def test_steps_are_undone_redone_and_forgotten_by_the_next_change() -> None:
    history = history_of(RECIPE).changed(LARGE, now=0).changed(TURNED, now=5)
    assert history.undone().finishing == LARGE
    assert history.undone().undone().undone().finishing == Finishing()
    assert history.undone().redone() == history.redone().redone().undone().redone()
    other = history.undone().changed(DARK, now=9)
    assert other.finishing == DARK
    assert not other.can_redo
    assert history.reset(now=20).finishing == Finishing()
    assert history.reset(now=20).undone().finishing == TURNED


def test_a_slider_that_is_dragged_is_one_step() -> None:
    history = history_of(RECIPE)
    for number in range(40):
        history = history.changed(Finishing(edits=Edits(rotate=number + 1)), now=number / 20)
    assert history.finishing.edits.rotate == 40
    assert history.undone().finishing == Finishing()
    later = history.changed(Finishing(edits=Edits(rotate=90)), now=60)
    assert later.undone().finishing.edits.rotate == 40


def test_steps_do_not_grow_without_end() -> None:
    history = history_of(RECIPE)
    for number in range(2 * STEPS_MAX):
        history = history.changed(Finishing(edits=Edits(hue=number % 180 + 1)), now=10 * number)
    assert len(history.steps) == STEPS_MAX


def test_a_finished_recipe_lies_on_the_bench_as_one_step_that_can_be_undone() -> None:
    recipe = Recipe("avatar-generator/3", 17, upscale=2, denoise=1, edits=Edits(hue=20))
    history = history_of(recipe)
    assert history.finished() == recipe
    assert history.undone().finished() == Recipe("avatar-generator/3", 17)
    assert EditHistory().is_empty


def test_the_same_content_is_one_file_and_all_are_gone_at_the_end() -> None:
    with temporary_files() as files:
        first, second = files.keep(b"one", "a.png"), files.keep(b"one", "a.png")
        assert first == second
        assert files.sent({"path": first, "orig_name": "mine.png"}) == (b"one", "mine.png")
        assert files.folder.stat().st_mode & 0o077 == 0, "nobody else reads them"
    assert not files.folder.exists()


def test_files_that_nobody_wanted_for_long_are_swept(tmp_path: Path) -> None:
    files = Files(tmp_path)
    old, young = Path(files.keep(b"old", "a.png")), Path(files.keep(b"young", "b.png"))
    for path in (old, old.parent):
        os.utime(path, (1, 1))
    files.sweep()
    assert not old.exists()
    os.utime(old.parent, (1, 1))  # its folder changed with it, and stays as long again
    files.sweep()
    assert not old.parent.exists()
    assert young.read_bytes() == b"young"
    assert Path(files.keep(b"old", "a.png")) == old


def test_two_listeners_at_once_undo_nothing_of_each_other() -> None:
    page = Page()

    @listener
    def show(state: Any, count: int) -> Generator[list[Any], PageState, None]:
        now = state.with_(taken=-1)
        for number in range(count):
            now = now.with_(shelf=tuple(drawn_of(seed) for seed in range(number + 1)))
            now = yield [now, number]

    @listener
    def step(state: Any) -> list[Any]:
        return [state.with_(exploration=state.exploration.stepped(RECIPE), taken=0), "done"]

    @listener
    def look(state: Any) -> int:
        return len(state.shelf)

    page.merge(page.now, page.now.with_(taken=5))
    showing = show(page, 3)
    assert next(showing) == [page, 0]
    assert page.now.taken == -1
    assert step(page) == [page, "done"]
    assert [number for _, number in showing] == [1, 2]
    assert look(page) == 3
    assert (page.now.taken, page.now.exploration.recipe) == (0, RECIPE)


def test_a_kept_seed_keeps_what_was_explored_of_it_whether_it_was_chosen_or_not() -> None:
    explored = dataclasses.replace(RECIPE, sliders=(("smile", 1.0),))
    state = PageState(shown=RECIPE.model, drawn=(Drawn(explored, "a.png", 64), drawn_of(18)))
    asked = draw_tab.DrawRequest(2, 17, 1.0, "const", True, [])
    assert draw_tab._kept_character(state, asked) == explored
    assert draw_tab._kept_character(state.with_(chosen=1), asked) == explored
    for other in (
        dataclasses.replace(asked, is_kept=False),
        dataclasses.replace(asked, seed=19),
    ):
        assert draw_tab._kept_character(state.with_(chosen=0), other) is None
    assert draw_tab._kept_character(state.with_(shown="a/4", chosen=0), asked) is None


def test_what_cannot_be_drawn_any_more_has_a_tile_to_take_it_off_the_shelf(tmp_path: Path) -> None:
    def on_page(recipe: Recipe) -> Drawn:
        if recipe.model == "gone/1":
            raise UsageError("gone/1 is not there")
        return Drawn(recipe, "drawn.png", 64)

    parts = cast(
        "Parts", SimpleNamespace(pictures=SimpleNamespace(on_page=on_page), files=Files(tmp_path))
    )
    gone, faults = dataclasses.replace(RECIPE, model="gone/1"), list[str]()
    tiles = list(keep_tab._tiles(parts, [RECIPE, gone, gone], faults))
    assert [one.recipe for one in tiles] == [RECIPE, gone, gone]
    assert tiles[0].path == "drawn.png"
    assert Path(tiles[1].path).read_bytes() == keep_tab.GREY
    assert faults == ["gone/1 is not there"]


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
    ("name", "stem"), [("../../a b.png", "a-b"), ("C:\\x\\桜 ö.jpg", "桜-ö"), ("", "picture")]
)
def test_names_of_downloads_are_plain(name: str, stem: str) -> None:
    assert stem_of(name) == stem
    assert file_name(RECIPE) == "avatar-generator-3-seed-17.png"


@pytest.mark.parametrize(
    ("address", "reported"),
    [
        (Address(user="mio"), "a user is given, and a password in $OMOKAGE_STUDIO_PASSWORD is not"),
        (
            Address(password="sesame"),
            "is given, and a user (--user or $OMOKAGE_STUDIO_USER) is not",
        ),
    ],
)
def test_a_user_without_a_password_is_refused_before_anything_is_served(
    address: Address, reported: str
) -> None:
    with pytest.raises(UsageError) as refused:
        serve(Studio(ModelSource("/nowhere", tracking_uri="")), address)
    assert reported in str(refused.value)


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
    requested = CliRunner().invoke(cli, ["studio", "--uri", "models:/a/1", "--generator", "there"])
    assert isinstance(requested.exception, UsageError)
    assert "exclude each other" in str(requested.exception)


def test_a_folder_without_a_generator_is_told_before_anything_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve_studio(["--uri", str(tmp_path)]) == UsageError.exit_code
    assert f"omokage: {tmp_path} holds no generator" in capsys.readouterr().err
