"""Jobs, sensor and commands promote, roll back and draw the sheet of a new champion."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from PIL import Image

from assets.evaluation import evaluate
from assets.resources import ChildProcess, StoreResource, TrackingResource
from dataset.errors import RegistryError
from dataset.store import Store
from models.registry.promotion import (
    CHAMPION,
    PREVIOUS,
    promote,
    promote_anyway,
    wanted_version,
)
from models.registry.versions import WEIGHTS, Measuring, Terms, on_todays_terms
from pipeline.automation.sensors import champion_moved
from pipeline.cli import cli
from pipeline.jobs import champion_sheet_job, promote_job, rollback_job
from pipeline.settings import read_settings
from tests.models.homes import write_manifest
from tests.models.registry.desks import Desk, Registry, evaluation
from tests.models.small_generators import small_generator, write_generator
from tests.pipeline.conftest import omokage_here


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("registry"))


class OneEvaluation(ChildProcess):
    """Stands for the child that measures; notes each call."""

    def run(self, context: Any, arguments: Sequence[str], **_named: Any) -> dict[str, Any]:
        CHILD_CALLS.append(list(arguments))
        return evaluation(100.0, manifest_digest="n" * 64, generator_sha256="b" * 64)


CHILD_CALLS: list[list[str]] = []


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
    CHILD_CALLS.clear()
    promote_anyway(desk.tracking, desk.lock, "1", reason="the first")
    outcome = promote(desk.tracking, desk.lock, "2", measure=measuring)
    assert outcome.moved
    assert len(CHILD_CALLS) == 1  # only the incumbent: the candidate's number was there
    assert "generators/one" in CHILD_CALLS[0]
    assert newer["manifest_digest"] in CHILD_CALLS[0]
    # Folders that went on, or are not here, are not what was registered
    assert measuring(second) == newer
    desk.tracking.tag_version(first, {WEIGHTS: "e" * 64})
    with pytest.raises(RegistryError, match="its training went on"):
        measuring(wanted_version(desk.tracking, "1"))
    # Another home measures what the registry keeps
    other = Store(tmp_path / "other")
    Measuring(asking, other, desk.tracking, Terms.of(newer))(first)
    measured = CHILD_CALLS[-1][CHILD_CALLS[-1].index("--generator") + 1]
    assert not measured.startswith(str(tmp_path))
    assert Path(measured).is_absolute()


@pytest.mark.parametrize(
    ("judged", "options", "protocol"),
    [
        ({}, {"extractor": "efficientnet_lite2"}, {"extractor": "efficientnet_lite2"}),
        ({}, {"repeats": 5}, {"extractor": "inception", "repeats": 5}),
        ({"kid_se": None}, {}, {"extractor": "inception", "repeats": 4}),  # None: taken away
        ({"spread": None}, {}, {"extractor": "inception", "repeats": 4}),
    ],
    ids=["another extractor", "more sets", "an older protocol", "no spread"],
)
def test_both_are_measured_again_where_the_last_evaluation_does_not_do(
    registry: Registry,
    tmp_path: Path,
    judged: dict[str, Any],
    options: dict[str, Any],
    protocol: dict[str, Any],
) -> None:
    manifest = write_manifest(tmp_path, train=2, evaluated=2)
    desk = registry.desk()
    for number in ("1", "2"):
        folder = f"generators/{number}"
        desk.add(100.0, folder=folder)
        write_generator(tmp_path / folder / "generator", small_generator("dcgan64"))
        last = evaluation(100.0, manifest_digest=manifest)
        written(tmp_path, folder, {k: v for k, v in last.items() if k not in judged})
    calls: list[dict[str, Any]] = []

    def asking(**named: Any) -> dict[str, Any]:
        calls.append(named)
        kid = 100.0 - 10 * int(named["generator"][-1])
        digest = ("p" if "spread" in judged else "q") * 64  # the spread is of the same protocol
        return evaluation(kid, manifest_digest=manifest, protocol_digest=digest)

    store = Store(tmp_path)
    measure = on_todays_terms(
        asking, store, desk.tracking, wanted_version(desk.tracking, "2"), options=options
    )
    promote_anyway(desk.tracking, desk.lock, "1", reason="the first")
    assert promote(desk.tracking, desk.lock, "2", measure=measure).moved
    assert [call["generator"] for call in calls] == ["generators/2", "generators/1"]
    assert all(call["protocol"].items() >= protocol.items() for call in calls)


def test_a_protocol_that_is_another_by_now_is_not_mixed_with_the_old_one(
    registry: Registry, tmp_path: Path
) -> None:
    desk = registry.desk()
    desk.add(100.0, folder="generators/one")
    write_generator(tmp_path / "generators/one/generator", small_generator("dcgan64"))
    terms = Terms.of(evaluation(90.0, protocol_digest="o" * 64))
    measuring = Measuring(lambda **_: evaluation(100.0), Store(tmp_path), desk.tracking, terms)
    with pytest.raises(RegistryError, match=r"it is pppppppppppp by now\. Materialise evaluation"):
        measuring(wanted_version(desk.tracking, "1"))


@dataclass(frozen=True)
class RegisteredHome:
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
def registered(registry: Registry, tmp_path: Path) -> RegisteredHome:
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
    return RegisteredHome(tmp_path, desk)


def test_the_jobs_promote_and_roll_back_and_draw_the_sheet(registered: RegisteredHome) -> None:
    done = promote_job.execute_in_process(resources=registered.resources)
    assert done.success
    assert registered.desk.aliases() == {CHAMPION: "2", PREVIOUS: "1"}
    facts = metadata(done, "ask_the_gate")
    assert facts["moved"].value is True
    assert "gain 10, " in facts["reason"].value
    assert facts["version_page"].value.endswith("/versions/2")
    second = registered.sheet()
    before = registered.desk.everything()
    again = promote_job.execute_in_process(resources=registered.resources)
    assert metadata(again, "ask_the_gate")["moved"].value is False
    assert registered.desk.everything() == before

    back = {"ops": {"roll_back": {"config": {"reason": "green skin"}}}}
    done = rollback_job.execute_in_process(resources=registered.resources, run_config=back)
    assert "green skin" in metadata(done, "roll_back")["reason"].value
    assert registered.desk.aliases() == {CHAMPION: "1"}
    assert registered.sheet() != second

    forced = {"ops": {"ask_the_gate": {"config": {"version": "2", "force": True}}}}
    failed = promote_job.execute_in_process(
        resources=registered.resources, run_config=forced, raise_on_error=False
    )
    assert not failed.success  # no reason was given


def metadata(result: dg.ExecuteInProcessResult, op: str) -> Mapping[str, Any]:
    (event,) = [e for e in result.all_events if e.is_successful_output and e.step_key == op]
    return event.step_output_data.metadata


def test_the_sensor_asks_for_one_sheet_of_a_persons_choice(registered: RegisteredHome) -> None:
    def tick(cursor: str | None) -> dg.SensorResult:
        context = dg.build_sensor_context(
            cursor=cursor, resources={k: registered.resources[k] for k in ("store", "tracking")}
        )
        found = champion_moved(context)
        assert isinstance(found, dg.SensorResult)
        return found

    quiet = tick(None)
    assert not quiet.run_requests
    registered.desk.tracking.set_alias(CHAMPION, "2")
    ticked = tick(quiet.cursor)
    assert ticked.run_requests is not None
    (request,) = ticked.run_requests
    assert request.run_key == "2"
    assert registered.desk.aliases()[PREVIOUS] == "1"
    assert not tick(ticked.cursor).run_requests

    done = champion_sheet_job.execute_in_process(
        resources=registered.resources, run_config=request.run_config
    )
    assert metadata(done, "draw_sheet")["version"].value == "2"
    with Image.open(registered.home / "champion.png") as sheet:
        assert sheet.width >= 64
    names = [
        f.path for f in registered.desk.tracking.client().list_artifacts(registered.desk.run_id)
    ]
    assert "labels.png" in names


def test_the_sensor_waits_for_a_registry(tmp_path: Path) -> None:
    tracking = TrackingResource(uri=f"sqlite:///{tmp_path}/none.db")
    context = dg.build_sensor_context(
        resources={"store": StoreResource(root=str(tmp_path)), "tracking": tracking}
    )
    assert isinstance(champion_moved(context), dg.SkipReason)
    assert not (tmp_path / "none.db").exists()


def test_the_commands_promote_list_and_roll_back(
    registry: Registry, registered: RegisteredHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    monkeypatch.setattr(
        "pipeline.commands.promotion.tracking_client", lambda _settings: registered.desk.tracking
    )
    for name, value in read_settings(home=str(registered.home)).environment().items():
        monkeypatch.setenv(name, value)  # the commands set them; this takes them back

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli, [*arguments, "--home", str(registered.home)])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    assert "version 2 is champion: version 2 has kid at 64 px 90, " in run("promote")
    assert (registered.home / "champion.png").exists()
    before = registered.desk.everything()
    assert run("promote").startswith("nothing changed: ")
    assert registered.desk.everything() == before
    marks = run("champions").splitlines()[2:]
    assert re.fullmatch(r"high-water marks on manifest \w{12} by protocol p{12}", marks[0])
    assert [line.split() for line in marks[1:4]] == [
        ["kid", "at", "64", "px", "90", "±", "0.5", "version", "2"],
        ["label", "AP", "0.7", "±", "0.0005", "version", "1"],
        ["recall", "0.4", "±", "0.0005", "version", "1"],
    ]
    assert "version 1 is champion" in run("rollback", "--reason", "green skin")
    assert run("rollback").startswith("nothing changed: there is nothing to go back to")
    assert "version 2 is champion: sure" in run("promote", "2", "--force", "--reason", "sure")
    *lines, marks_line = run("champions").splitlines()
    assert marks_line.startswith("no high-water marks: they begin with the champion's numbers")
    assert [line.split()[2:6] for line in lines] == [
        ["1", "→", "2", "promote"],
        ["2", "→", "1", "rollback"],
        ["1", "→", "2", "gate"],
        ["(none)", "→", "1", "promote"],
    ]
    assert "fid 90.0000" in lines[0]
    newest, _, by_the_gate, _ = map(json.loads, run("champions", "--json").splitlines())
    assert newest["marks"] == []
    assert by_the_gate["marks"][0] == {
        "name": "kid at 64 px",
        "value": 90.0,
        "standard_error": 0.5,
        "version": "2",
    }
    assert (newest["number"], newest["to"], newest["reason"]) == (4, "2", "sure")
    refused = CliRunner().invoke(cli, ["promote", "2", "--force", "--home", str(registered.home)])
    assert "--force and --reason TEXT go together" in str(refused.exception)


def test_a_server_that_is_down_is_told_at_once_to_a_person(tmp_path: Path) -> None:
    variables = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "OMOKAGE_HOME": str(tmp_path)}
    ended = omokage_here("rollback", MLFLOW_HTTP_REQUEST_MAX_RETRIES=None, **variables)
    assert isinstance(ended.exception, RegistryError)
    assert "MLflow at http://127.0.0.1:9 did not answer" in str(ended.exception)
    assert "Max retries exceeded" in str(ended.exception)
