"""Champions move by a journal: whatever is killed, repeated or done at once, one of them stands."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersion

from dataset.errors import RegistryError
from dataset.store import Store
from models.registry.client import TrackingClient
from models.registry.promotion import (
    CHALLENGER,
    CHAMPION,
    DECISION,
    PREVIOUS,
    ROLLED_BACK,
    PromotionBusyError,
    champions,
    newest_version,
    notice,
    promote,
    promote_anyway,
    promotion_lock,
    rollback,
    settle,
    wanted_version,
)
from models.registry.promotion_log import PREFIX, Promotion, read_promotion_log
from models.registry.versions import grids_of_reals, mark_taken, remove_artifact
from pipeline.servers import free_port, running, wait_until_answering
from pipeline.settings import read_settings
from pipeline.up import mlflow_server
from tests.dataset.home import png, portrait
from tests.models.registry.desks import Desk, Registry

ROOT = Path(__file__).resolve().parents[3]
PNG = png(portrait(1))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("registry"))


class Mover:
    """Runs tasks in processes that may be killed; see mover.py."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, *tasks: dict[str, Any]) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(tasks) + "\n")
        self._process.stdin.flush()
        return list(json.loads(self._process.stdout.readline()))


@pytest.fixture(scope="module")
def mover() -> Iterator[Mover]:
    command = [sys.executable, "-m", "tests.models.registry.mover"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Mover(process)
        assert process.stdin is not None
        process.stdin.close()


def test_a_clear_win_moves_the_alias_and_says_why(registry: Registry) -> None:
    desk = registry.desk(100.0, 90.0)
    outcome = desk.promote("2")
    assert (outcome.moved, outcome.champion) == (True, "2")
    assert desk.aliases() == {CHAMPION: "2", PREVIOUS: "1"}
    assert desk.moves() == [("", "1", "gate", "done"), ("1", "2", "gate", "done")]
    assert "gain 10, " in desk.tags("2")[DECISION]


@pytest.mark.parametrize(
    ("distance", "changes", "reason"),
    [(99.0, {}, "more than 1.414 needed"), (90.0, {"label_ap": 0.5}, "label AP is worse")],
    ids=["within noise", "worse labels"],
)
def test_who_does_not_win_becomes_challenger_with_the_reason(
    registry: Registry, distance: float, changes: dict[str, Any], reason: str
) -> None:
    desk = registry.desk(100.0)
    version = desk.add(distance, **changes)
    assert not desk.promote(version).moved
    assert desk.aliases() == {CHAMPION: "1", CHALLENGER: "2"}
    assert reason in desk.tags("2")[DECISION]
    before = desk.everything()
    assert not desk.promote(version).moved
    assert desk.everything() == before


def test_a_challenger_that_wins_later_is_challenger_no_more(registry: Registry) -> None:
    desk = registry.desk(100.0, 99.0)
    desk.promote("2")
    assert desk.aliases()[CHALLENGER] == "2"
    promote_anyway(desk.tracking, desk.lock, "2", reason="prettier eyes")
    assert desk.aliases() == {CHAMPION: "2", PREVIOUS: "1"}
    assert desk.moves()[-1] == ("1", "2", "promote", "done")
    assert desk.tags("2")[DECISION] == "prettier eyes"


def test_promoted_twice_nothing_changes_and_nothing_is_measured(registry: Registry) -> None:
    desk = registry.desk(100.0, 90.0)
    desk.promote("2")
    before = desk.everything()
    desk.measured.clear()
    again = desk.promote("2")
    assert not again.moved
    assert again.reason == f"version 2 is the champion already ({desk.tags('2')[DECISION]})"
    assert not promote_anyway(desk.tracking, desk.lock, "2", reason="again").moved
    assert desk.everything() == before
    assert desk.measured == []


def test_rollback_restores_the_previous_once(registry: Registry) -> None:
    desk = registry.desk(100.0, 90.0)
    desk.promote("2")
    outcome = desk.rollback()
    assert (outcome.moved, outcome.champion) == (True, "1")
    assert desk.aliases() == {CHAMPION: "1"}
    assert "green skin" in desk.tags("2")[ROLLED_BACK]
    before = desk.everything()
    again = desk.rollback()
    assert not again.moved
    assert "nothing to go back to" in again.reason
    assert desk.everything() == before


def test_a_version_rolled_back_comes_back_by_force_only(registry: Registry) -> None:
    desk = registry.desk(100.0, 90.0)
    desk.promote("2")
    desk.rollback()
    before = desk.everything()
    outcome = desk.promote("2")
    assert not outcome.moved
    assert "omokage promote 2 --force --reason TEXT" in outcome.reason
    # The chain asks about the same generator again: what was decided stands
    evidence = desk.tags("2")["omokage.decided_on"]
    assert desk.promote("2", settled_on=evidence).reason == desk.tags("2")[DECISION]
    assert desk.everything() == before
    assert newest_version(desk.tracking) == "1"
    assert promote_anyway(desk.tracking, desk.lock, "2", reason="on purpose").moved
    assert desk.aliases() == {CHAMPION: "2", PREVIOUS: "1"}
    assert ROLLED_BACK not in desk.tags("2")


def test_small_steps_down_do_not_add_up_over_promotions(registry: Registry) -> None:
    desk = registry.desk()
    for kid, recall in ((100.0, 0.40), (90.0, 0.385), (80.0, 0.37), (80.0, 0.382)):
        desk.add(kid, recall=recall)
    assert [desk.promote(version).moved for version in "1234"] == [True, True, False, True]
    worse = "recall is worse: 0.37 against 0.4 of version 1, 0.03 worse, at most 0.02 allowed"
    assert worse in desk.tags("3")[DECISION]


def test_a_rollback_takes_back_the_marks_of_the_version_that_it_leaves(registry: Registry) -> None:
    desk = registry.desk()
    for kid, recall in ((100.0, 0.40), (90.0, 0.9), (80.0, 0.40)):
        desk.add(kid, recall=recall)
    assert [desk.promote(version).moved for version in "123"] == [True, True, False]
    desk.rollback("copies a poster")
    assert desk.promote("3").moved


def test_a_person_may_take_a_worse_champion_whose_numbers_are_then_the_marks(
    registry: Registry,
) -> None:
    desk = registry.desk()
    for kid, recall in ((100.0, 0.40), (120.0, 0.20), (110.0, 0.20)):
        desk.add(kid, recall=recall)
    assert [desk.promote(version).moved for version in "13"] == [True, False]
    promote_anyway(desk.tracking, desk.lock, "2", reason="prettier eyes")
    assert desk.promote("3").moved
    # A rollback of the choice brings the marks from before it back
    desk.tracking.set_alias(CHAMPION, "1")
    notice(desk.tracking, desk.lock)
    desk.rollback("not after all")
    desk.add(90.0, recall=0.15)
    assert "recall is worse: 0.15 against 0.2 of version" in desk.promote("4").reason


@pytest.mark.parametrize("held", ["1", [], {"2": {}}, {"2": 7}, {"2": {"kernel_metric": "kid"}}])
def test_numbers_in_the_log_that_are_none_are_named(registry: Registry, held: Any) -> None:
    desk = registry.desk(100.0)
    log = json.loads(desk.tracking.model_tags()[f"{PREFIX}0001"])
    assert "measured" not in log  # as older code wrote it, and it is read
    desk.tracking.tag_model(f"{PREFIX}0001", json.dumps({**log, "measured": held}))
    if held == []:
        assert champions(desk.tracking)[0].measured == ()
        return
    with pytest.raises(RegistryError, match=r"tag omokage\.move\.0001 .* measured"):
        champions(desk.tracking)


def test_an_unknown_version_is_refused_with_those_that_there_are(registry: Registry) -> None:
    desk = registry.desk(100.0, 90.0)
    for wrong in ("7", "one", ""):
        with pytest.raises(RegistryError, match=rf'no version "{wrong}"; there are 2, 1'):
            desk.promote(wrong)


def test_a_champion_who_comes_while_measuring_is_measured_too(registry: Registry) -> None:
    desk = registry.desk(100.0, 90.0, 95.0)

    def measure(version: ModelVersion) -> Mapping[str, Any]:
        if not desk.measured:  # another process wins meanwhile
            promote_anyway(desk.tracking, desk.lock, "2", reason="faster")
        return desk.measure(version)

    desk.measured.clear()
    outcome = promote(desk.tracking, desk.lock, "3", measure=measure)
    assert not outcome.moved
    assert "champion version 2 has 90:" in outcome.reason
    assert desk.measured == ["3", "1", "3", "2"]


def prepared(registry: Registry, what: str) -> Desk:
    desk = registry.desk(100.0, 90.0)
    if what != "notice":
        desk.crown("2")
    if what == "promote":
        desk.add(80.0)
        desk.tracking.set_alias(CHALLENGER, "3")
    if what == "stay":
        desk.add(120.0)
    if what == "notice":
        desk.tracking.set_alias(CHAMPION, "2")
    return desk


# What stands at the end: aliases, the last move
ENDS = {
    "promote": ({CHAMPION: "3", PREVIOUS: "2"}, ("2", "3", "gate", "done")),
    "stay": ({CHAMPION: "2", PREVIOUS: "1", CHALLENGER: "3"}, ("1", "2", "gate", "done")),
    "rollback": ({CHAMPION: "1"}, ("2", "1", "rollback", "done")),
    "notice": ({CHAMPION: "2", PREVIOUS: "1"}, ("1", "2", "person", "done")),
}
FEWEST_WRITES = {"promote": 7, "stay": 4, "rollback": 5, "notice": 5}


@pytest.mark.slow
@pytest.mark.parametrize("what", ENDS)
def test_killed_after_any_write_the_next_call_makes_it_whole(
    registry: Registry, mover: Mover, what: str
) -> None:
    task = "promote" if what == "stay" else what
    killed = 0
    while True:
        desk = prepared(registry, what)
        codes = mover.run(desk.task(task, version="3", kill_after=killed + 1))
        if codes == [0]:
            break
        assert codes == [-signal.SIGKILL]
        killed += 1
        assert CHAMPION in desk.aliases()  # applications have one at every moment
        settle(desk.tracking, desk.lock)
        if what == "stay":  # nothing was to move: the next call decides again
            desk.promote("3")
            assert "champion version 2 has 90:" in desk.tags("3")[DECISION]
        # The intent was written first, so it is carried out.
        assert (desk.aliases(), desk.moves()[-1]) == ENDS[what]
        assert all(state == "done" for *_, state in desk.moves())
        before = desk.everything()
        assert settle(desk.tracking, desk.lock) == []
        assert desk.everything() == before
    assert (desk.aliases(), desk.moves()[-1]) == ENDS[what]
    assert killed >= FEWEST_WRITES[what]


@pytest.mark.ci
def test_promotions_at_once_come_one_after_the_other(registry: Registry, mover: Mover) -> None:
    desk = registry.desk(100.0, 90.0, 80.0, 70.0)
    tasks = [desk.task("promote", version=version) for version in ("2", "3", "4")]
    assert mover.run(*tasks, desk.task("rollback")) == [0, 0, 0, 0]
    moves = desk.moves()
    # Each move begins where the one before it ended, and the aliases are where the last one says
    assert [move[0] for move in moves[1:]] == [move[1] for move in moves[:-1]]
    assert desk.aliases()[CHAMPION] == moves[-1][1]
    assert all(state == "done" for *_, state in moves)


def test_who_waits_too_long_sees_for_what(registry: Registry) -> None:
    desk = registry.desk(100.0)
    with (
        promotion_lock(desk.lock),
        pytest.raises(PromotionBusyError, match=r"at work and has held .*promotion\.lock for 0 s"),
    ):
        rollback(desk.tracking, desk.lock, patience_s=0.2)


@dataclass(frozen=True)
class Elsewhere(TrackingClient):
    """Another machine moves the champion just before our alias is set, without our lock."""

    over: bool = False  # it writes its move over ours

    def set_alias(self, alias: str, version: str) -> None:
        other = TrackingClient(uri=self.uri, model=self.model)
        ours = read_promotion_log(other.model_tags())[-1]
        if alias == CHAMPION and ours.to == version:
            number = ours.number + (0 if self.over else 1)
            theirs = Promotion(number, "1", "3", "promote", "there", "2026-11-21T00:00:00", "done")
            other.tag_model(theirs.tag, theirs.to_json())
            other.set_alias(CHAMPION, "3")
        super().set_alias(alias, version)


@pytest.mark.parametrize("over", [False, True], ids=["later number", "same number"])
def test_of_two_machines_the_later_number_wins(registry: Registry, over: bool) -> None:
    desk = registry.desk(100.0, 90.0, 80.0)
    tracking = Elsewhere(uri=desk.tracking.uri, model=desk.tracking.model, over=over)
    outcome = promote_anyway(tracking, desk.lock, "2", reason="here")
    last = champions(desk.tracking)[0]
    assert desk.aliases()[CHAMPION] == last.to == ("2" if over else "3")
    assert outcome.moved is over
    assert over or "another machine" in outcome.reason
    reasons = {move.reason for move in champions(desk.tracking)}
    assert {"here", "there"} <= reasons
    assert all(state == "done" for *_, state in desk.moves())


def test_a_persons_own_move_is_noticed_once(registry: Registry) -> None:
    desk = registry.desk(100.0, 90.0)
    assert notice(desk.tracking, desk.lock) is None
    desk.tracking.set_alias(CHAMPION, "2")
    move = notice(desk.tracking, desk.lock)
    assert move is not None
    assert (move.source, move.to, move.by) == ("1", "2", "person")
    assert desk.aliases() == {CHAMPION: "2", PREVIOUS: "1"}
    assert "by hand" in desk.tags("2")[DECISION]
    before = desk.everything()
    assert notice(desk.tracking, desk.lock) is None
    assert desk.everything() == before
    desk.tracking.drop_alias(CHAMPION)
    gone = notice(desk.tracking, desk.lock)
    assert gone is not None
    assert (gone.source, gone.to) == ("2", "")
    assert desk.rollback().champion == "2"


def test_a_registry_older_than_its_journal_is_taken_as_it_is(registry: Registry) -> None:
    desk = registry.desk()
    desk.add(100.0)
    desk.add(90.0)
    for alias, version in ((CHAMPION, "2"), (PREVIOUS, "1")):
        desk.tracking.set_alias(alias, version)
    desk.tracking.tag_version(wanted_version(desk.tracking, "2"), {DECISION: "won long ago"})
    assert notice(desk.tracking, desk.lock) is None
    assert desk.moves() == [("1", "2", "gate", "done")]
    assert desk.tags("2")[DECISION] == "won long ago"
    assert desk.rollback().champion == "1"


def test_a_move_that_is_none_is_named(registry: Registry) -> None:
    desk = registry.desk(100.0)
    desk.tracking.tag_model(f"{PREFIX}0002", '{"by": "nobody"}')
    with pytest.raises(RegistryError, match=r"tag omokage\.move\.0002 .* by is 'nobody'"):
        champions(desk.tracking)


@pytest.mark.slow
def test_a_server_moves_its_champions_alike(tmp_path: Path) -> None:
    settings = read_settings({"OMOKAGE_HOME": str(tmp_path)})
    (tmp_path / "mlflow").mkdir()
    port = free_port()
    server = mlflow_server(settings, port=port)
    uri = f"http://127.0.0.1:{port}"
    with running([server]):
        wait_until_answering(server, uri, timeout_s=600)
        tracking = TrackingClient(uri=uri)
        run_id = tracking.run_for("generator", name="generator", tags={})
        desk = Desk(tracking, tmp_path, run_id)
        artifacts = tracking.client().get_run(run_id).info.artifact_uri
        desk.add(100.0, source=f"{artifacts}/model")
        desk.add(90.0, source=f"{artifacts}/model")
        assert desk.promote("1").moved
        assert desk.promote("2").moved
        assert desk.aliases() == {CHAMPION: "2", PREVIOUS: "1"}
        assert desk.rollback().champion == "1"
        assert not desk.rollback().moved
        assert desk.aliases() == {CHAMPION: "1"}
        assert [move.by for move in champions(tracking)] == ["rollback", "gate", "gate"]
        # A takedown reaches the pictures of real faces that the server stores.
        tracking.run_for("generator", name="generator", tags={"omokage.manifest": "m"})
        tracking.log_picture_of_step(run_id, "eval_reals_grid", PNG, step=3)
        tracking.log_picture_of_step(run_id, "eval_fakes_grid", PNG, step=3)
        grids = grids_of_reals(Store(tmp_path), tracking, {"m"})
        assert len(grids) == 2  # as PNG, and compressed
        assert [remove_artifact(tracking, *one) for one in grids] == ["", ""]
        assert {path.split("+")[0] for path in tracking.pictures(run_id)} == {
            "images/eval_fakes_grid"
        }


def test_what_learnt_from_pictures_taken_down_becomes_champion_by_no_way(
    registry: Registry,
) -> None:
    desk = registry.desk(100.0, 50.0, 40.0)
    desk.crown("3")
    desk.measured.clear()
    for version in ("1", "2"):
        mark_taken(desk.tracking, wanted_version(desk.tracking, version), "demo/5")
        mark_taken(desk.tracking, wanted_version(desk.tracking, version), "demo/5, demo/7")
    before = desk.everything()
    forced = promote_anyway(desk.tracking, desk.lock, "2", reason="prettier")
    for outcome, number in ((desk.promote("2"), 2), (forced, 2), (desk.rollback(), 1)):
        assert (outcome.moved, outcome.champion) == (False, "3")
        said = f"version {number} learnt from pictures that were taken down (demo/5, demo/7), so it"
        assert outcome.reason.startswith(said)
    assert desk.measured == []
    assert desk.everything() == before
    page = wanted_version(desk.tracking, "2").description or ""
    assert page.count("Taken down") == 1
    assert "demo/5, demo/7. Train anew" in page
