"""Champions move by a journal: whatever is killed, repeated or done at once, one of them stands."""

import dataclasses
import functools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from mlflow.entities.model_registry import ModelVersion
from PIL import Image

from assets.evaluation import evaluate
from assets.resources import ChildProcess, StoreResource, TrackingResource
from dataset.errors import RegistryError
from dataset.store import Store
from models.registry.client import TrackingClient
from models.registry.evaluations import WEIGHTS, Measuring, Terms
from models.registry.promotion import (
    CHALLENGER,
    CHAMPION,
    DECISION,
    PREVIOUS,
    ROLLED_BACK,
    Outcome,
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
from pipeline.automation.alias_sensor import champion_moved
from pipeline.cli import cli
from pipeline.processes import free_port, running, wait_until_answering
from pipeline.promotion_jobs import champion_sheet_job, promote_job, rollback_job
from pipeline.settings import read_settings
from pipeline.up import mlflow_server
from tests.models.conftest import write_manifest
from tests.models.small_generators import small_generator, write_generator

ROOT = Path(__file__).resolve().parents[2]


def evaluation(distance: float, **changes: Any) -> dict[str, Any]:
    """An evaluation.json with what the gate reads."""
    return {
        "generator_sha256": "a" * 64,
        "config_digest": "c" * 64,
        "manifest_digest": "m" * 64,
        "protocol_digest": "p" * 64,
        "protocol": {"fakes": 64},
        "metric": "fid",
        "fid": distance,
        "sigma": 0.1,
        "label_ap": 0.7,
        "label_ap_sigma": 0.001,
        "recall": 0.4,
        "recall_sigma": 0.001,
        "memory_ratio": 1.0,
        "copied_frac": 0.01,
        **changes,
    }


@dataclass(frozen=True)
class Desk:
    """One registered model of the module's MLflow store, and the folder of its lock."""

    tracking: TrackingClient
    lock: Path
    run_id: str
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    measured: list[str] = field(default_factory=list)  # versions, in the order of the asking

    def add(
        self, distance: float, *, folder: str = "", source: str = "file:///model", **changes: Any
    ) -> str:
        """Registers a version with its evaluation; returns its number."""
        tags = {"omokage.metric": "fid", "omokage.fid": f"{distance:.4f}"}
        if folder:
            tags["omokage.folder"] = folder
        made = self.tracking.register(
            source, run_id=self.run_id, tags=tags, description="", model_page=""
        )
        self.evaluations[str(made.version)] = evaluation(distance, **changes)
        return str(made.version)

    def crown(self, version: str) -> None:
        """Writes what a promotion leaves behind, in one go."""
        before, number = self.aliases().get(CHAMPION, ""), len(self.moves()) + 1
        move = Promotion(number, before, version, "gate", "won", "2026-11-21T00:00:00", "done")
        self.tracking.tag_model(move.tag, move.to_json())
        self.tracking.set_alias(CHAMPION, version)
        if before:
            self.tracking.set_alias(PREVIOUS, before)

    def measure(self, version: ModelVersion) -> Mapping[str, Any]:
        self.measured.append(str(version.version))
        return self.evaluations[str(version.version)]

    def promote(self, version: str, **options: Any) -> Outcome:
        return promote(self.tracking, self.lock, version, measure=self.measure, **options)

    def rollback(self, reason: str = "green skin") -> Outcome:
        return rollback(self.tracking, self.lock, reason=reason)

    def aliases(self) -> dict[str, str]:
        return self.tracking.aliases()

    def tags(self, version: str) -> dict[str, str]:
        return dict(wanted_version(self.tracking, version).tags)

    def moves(self) -> list[tuple[str, str, str, str]]:
        journal = champions(self.tracking)
        return [(move.source, move.to, move.by, move.state) for move in journal[::-1]]

    def everything(self) -> Any:
        """All that the registry holds of the model."""
        versions = self.tracking.versions({})
        tags = {str(v.version): (dict(v.tags), v.description) for v in versions}
        return self.aliases(), self.tracking.model_tags(), tags

    def task(self, what: str, *, version: str = "", kill_after: int = 0) -> dict[str, Any]:
        return {
            "what": what,
            "version": version,
            "kill_after": kill_after,
            "uri": self.tracking.uri,
            "model": self.tracking.model,
            "lock": str(self.lock),
            "evaluations": self.evaluations,
        }


class Registry:
    """The module's MLflow store; each desk is a registered model of its own in it."""

    def __init__(self, home: Path) -> None:
        self.home, self._made = home, 0
        self.uri = f"sqlite:///{home / 'mlflow.db'}"
        artifacts = (home / "artifacts").as_uri()
        first = TrackingClient(uri=self.uri, artifacts=artifacts)
        self.run_id = first.run_for("generator", name="generator", tags={})

    def desk(self, *distances: float) -> Desk:
        """A model with a version for each distance, the first of which is champion."""
        self._made += 1
        tracking = TrackingClient(uri=self.uri, model=f"avatars-{self._made}")
        desk = Desk(tracking, self.home / "locks", self.run_id)
        for distance in distances:
            desk.add(distance)
        if distances:
            desk.crown("1")
        return desk


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("registry"))


class Mover:
    """Runs tasks in processes that may be killed; see tests/models/registry/mover.py."""

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
    assert "gain 10.00" in desk.tags("2")[DECISION]


@pytest.mark.parametrize(
    ("distance", "changes", "reason"),
    [(99.0, {}, "more than 2.00 wanted"), (90.0, {"label_ap": 0.5}, "label AP is worse")],
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


def test_asked_twice_nothing_changes_and_nothing_is_measured(registry: Registry) -> None:
    desk = registry.desk(100.0, 90.0)
    desk.promote("2")
    before = desk.everything()
    desk.measured.clear()
    again = desk.promote("2")
    assert not again.moved
    assert again.reason == desk.tags("2")[DECISION]
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
    assert "champion version 2 has 90.00" in outcome.reason
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


@pytest.mark.parametrize("what", ENDS)
def test_killed_after_any_write_the_next_call_makes_it_whole(
    registry: Registry, mover: Mover, what: str
) -> None:
    asked = "promote" if what == "stay" else what
    killed = 0
    while True:
        desk = prepared(registry, what)
        codes = mover.run(desk.task(asked, version="3", kill_after=killed + 1))
        if codes == [0]:
            break
        assert codes == [-signal.SIGKILL]
        killed += 1
        assert CHAMPION in desk.aliases()  # applications have one at every moment
        settle(desk.tracking, desk.lock)
        if what == "stay":  # nothing was to move: it is asked again, and decided again
            desk.promote("3")
            assert "champion version 2 has 90.00" in desk.tags("3")[DECISION]
        # The intent was written first, so it is carried out.
        assert (desk.aliases(), desk.moves()[-1]) == ENDS[what]
        assert all(state == "done" for *_, state in desk.moves())
        before = desk.everything()
        assert settle(desk.tracking, desk.lock) == []
        assert desk.everything() == before
    assert (desk.aliases(), desk.moves()[-1]) == ENDS[what]
    assert killed >= FEWEST_WRITES[what]


def test_promotions_at_once_come_one_after_the_other(registry: Registry, mover: Mover) -> None:
    desk = registry.desk(100.0, 90.0, 80.0, 70.0)
    tasks = [desk.task("promote", version=version) for version in ("2", "3", "4")]
    assert mover.run(*tasks, desk.task("rollback")) == [0, 0, 0, 0]
    moves = desk.moves()
    # Each move begins where the one before it ended, and the aliases are where the last one says
    assert [move[0] for move in moves[1:]] == [move[1] for move in moves[:-1]]
    assert desk.aliases()[CHAMPION] == moves[-1][1]
    assert all(state == "done" for *_, state in moves)


def test_who_waits_too_long_is_told_for_what(registry: Registry) -> None:
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


class OneEvaluation(ChildProcess):
    """Stands for the child that measures; counts what it is asked for."""

    def run(self, context: Any, arguments: Sequence[str], **_named: Any) -> dict[str, Any]:
        ASKED.append(list(arguments))
        return evaluation(100.0, manifest_digest="n" * 64, generator_sha256="b" * 64)


ASKED: list[list[str]] = []


def written(home: Path, folder: str, measured: Mapping[str, Any]) -> None:
    name = f"{measured['manifest_digest'][:12]}-{measured['protocol_digest'][:12]}"
    Store(home).write_json(f"{folder}/evaluation/{name}/evaluation.json", measured)


def test_an_incumbent_on_another_digest_is_measured_again(
    registry: Registry, tmp_path: Path
) -> None:
    desk = registry.desk()
    for number, distance in (("one", 100.0), ("two", 90.0)):
        desk.add(distance, folder=f"generators/{number}")
        write_generator(tmp_path / "generators" / number / "generator", small_generator("dcgan64"))
    written(tmp_path, "generators/one", evaluation(100.0))
    newer = evaluation(90.0, manifest_digest="n" * 64)
    written(tmp_path, "generators/two", newer)
    child = OneEvaluation()
    asking = functools.partial(evaluate, dg.build_asset_context(), child)
    first, second = (wanted_version(desk.tracking, number) for number in ("1", "2"))
    measuring = Measuring(asking, Store(tmp_path), desk.tracking, Terms.of(newer))
    ASKED.clear()
    promote_anyway(desk.tracking, desk.lock, "1", reason="the first")
    outcome = promote(desk.tracking, desk.lock, "2", measure=measuring)
    assert outcome.moved
    assert len(ASKED) == 1  # only the incumbent: the candidate's number was there
    assert "generators/one" in ASKED[0]
    assert newer["manifest_digest"] in ASKED[0]
    # Folders that went on, or are not here, are not what was registered
    assert measuring(second) == newer
    desk.tracking.tag_version(first, {WEIGHTS: "e" * 64})
    with pytest.raises(RegistryError, match="its training went on"):
        measuring(wanted_version(desk.tracking, "1"))
    # Another home measures what the registry keeps
    other = Store(tmp_path / "other")
    Measuring(asking, other, desk.tracking, Terms.of(newer))(first)
    measured = ASKED[-1][ASKED[-1].index("--generator") + 1]
    assert not measured.startswith(str(tmp_path))
    assert Path(measured).is_absolute()


@dataclass(frozen=True)
class House:
    """A home with two generators that are registered and judged on its manifest."""

    home: Path
    desk: Desk

    @property
    def resources(self) -> dict[str, Any]:
        return {
            "store": StoreResource(root=str(self.home)),
            "tracking": TrackingResource(**dataclasses.asdict(self.desk.tracking)),
            "child": OneEvaluation(),
        }

    def sheet(self) -> bytes:
        return (self.home / "champion.png").read_bytes()


@pytest.fixture
def house(registry: Registry, tmp_path: Path) -> House:
    manifest = write_manifest(tmp_path, train=2, evaluated=2)
    desk = registry.desk()
    for number, labels in (("1", ("blonde_hair", "blue_hair")), ("2", ("blue_eyes",))):
        folder, distance = f"generators/{number}", 110.0 - 10 * int(number)
        desk.add(distance, folder=folder)
        network = small_generator("dcgan64", labels=labels)
        place = tmp_path / folder / "generator"
        write_generator(place, network)
        (place / "typical_labels.json").write_text(json.dumps([list(labels)]))
        written(tmp_path, folder, evaluation(distance, manifest_digest=manifest))
    promote_anyway(desk.tracking, tmp_path, "1", reason="the first")
    return House(tmp_path, desk)


def test_the_jobs_promote_and_roll_back_and_draw_the_sheet(house: House) -> None:
    done = promote_job.execute_in_process(resources=house.resources)
    assert done.success
    assert house.desk.aliases() == {CHAMPION: "2", PREVIOUS: "1"}
    told = metadata(done, "ask_the_gate")
    assert told["moved"].value is True
    assert "gain 10.00" in told["reason"].value
    assert told["version_page"].value.endswith("/versions/2")
    second = house.sheet()
    before = house.desk.everything()
    again = promote_job.execute_in_process(resources=house.resources)
    assert metadata(again, "ask_the_gate")["moved"].value is False
    assert house.desk.everything() == before

    back = {"ops": {"roll_back": {"config": {"reason": "green skin"}}}}
    done = rollback_job.execute_in_process(resources=house.resources, run_config=back)
    assert "green skin" in metadata(done, "roll_back")["reason"].value
    assert house.desk.aliases() == {CHAMPION: "1"}
    assert house.sheet() != second

    forced = {"ops": {"ask_the_gate": {"config": {"version": "2", "force": True}}}}
    failed = promote_job.execute_in_process(
        resources=house.resources, run_config=forced, raise_on_error=False
    )
    assert not failed.success  # no reason was given


def metadata(result: dg.ExecuteInProcessResult, op: str) -> Mapping[str, Any]:
    (event,) = [e for e in result.all_events if e.is_successful_output and e.step_key == op]
    return event.step_output_data.metadata


def test_the_sensor_asks_for_one_sheet_of_a_persons_choice(house: House) -> None:
    def tick(cursor: str | None) -> dg.SensorResult:
        context = dg.build_sensor_context(
            cursor=cursor, resources={k: house.resources[k] for k in ("store", "tracking")}
        )
        found = champion_moved(context)
        assert isinstance(found, dg.SensorResult)
        return found

    quiet = tick(None)
    assert not quiet.run_requests
    house.desk.tracking.set_alias(CHAMPION, "2")
    asked = tick(quiet.cursor)
    assert asked.run_requests is not None
    (request,) = asked.run_requests
    assert request.run_key == "2"
    assert house.desk.aliases()[PREVIOUS] == "1"
    assert not tick(asked.cursor).run_requests

    done = champion_sheet_job.execute_in_process(
        resources=house.resources, run_config=request.run_config
    )
    assert metadata(done, "draw_sheet")["version"].value == "2"
    with Image.open(house.home / "champion.png") as sheet:
        assert sheet.width >= 64
    names = [f.path for f in house.desk.tracking.client().list_artifacts(house.desk.run_id)]
    assert "labels.png" in names


def test_the_sensor_waits_for_a_registry(tmp_path: Path) -> None:
    tracking = TrackingResource(uri=f"sqlite:///{tmp_path}/none.db")
    context = dg.build_sensor_context(
        resources={"store": StoreResource(root=str(tmp_path)), "tracking": tracking}
    )
    assert isinstance(champion_moved(context), dg.SkipReason)
    assert not (tmp_path / "none.db").exists()


def test_the_commands_promote_list_and_roll_back(
    registry: Registry, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    monkeypatch.setattr("assets.resources.TrackingResource.__init__", _named(house.desk))
    for name, value in read_settings(home=str(house.home)).environment().items():
        monkeypatch.setenv(name, value)  # the commands set them; this takes them back

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--home", str(house.home)])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    assert "version 2 is champion: version 2 has distance 90.00" in run("promote")
    assert (house.home / "champion.png").exists()
    before = house.desk.everything()
    assert run("promote").startswith("nothing changed: ")
    assert house.desk.everything() == before
    assert "version 1 is champion" in run("rollback", "--reason", "green skin")
    assert run("rollback").startswith("nothing changed: there is nothing to go back to")
    assert "version 2 is champion: sure" in run("promote", "2", "--force", "--reason", "sure")
    lines = run("champions").splitlines()
    assert [line.split()[2:6] for line in lines] == [
        ["1", "→", "2", "promote"],
        ["2", "→", "1", "rollback"],
        ["1", "→", "2", "gate"],
        ["(none)", "→", "1", "promote"],
    ]
    assert "fid 90.0000" in lines[0]
    newest = json.loads(run("champions", "--json").splitlines()[0])
    assert (newest["number"], newest["to"], newest["reason"]) == (4, "2", "sure")
    refused = CliRunner().invoke(cli, ["promote", "2", "--force", "--home", str(house.home)])
    assert "--force and --reason TEXT go together" in str(refused.exception)


def _named(desk: Desk) -> Any:
    """The resource as the commands make it, on the desk's registered model."""
    made = TrackingResource.__init__

    def begin(self: TrackingResource, **fields: Any) -> None:
        made(self, **{**fields, "model": desk.tracking.model})

    return begin


def test_a_server_moves_its_champions_alike(tmp_path: Path) -> None:
    settings = read_settings({"OMOKAGE_HOME": str(tmp_path)})
    (tmp_path / "mlflow").mkdir()
    port = free_port()
    server = mlflow_server(settings, port=port)
    uri = f"http://127.0.0.1:{port}"
    with running([server]):
        wait_until_answering(server, uri, timeout_s=180)
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
