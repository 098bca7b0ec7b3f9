"""The job `compare` on drawn heads: its report, its runs, its faults, what is not done twice."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from assets.comparison import COMPARISON, FOLDER
from assets.reporting import MAX_BYTES
from assets.resources import ChildProcess
from models import evaluate, train
from models.comparison.report import GRIDS_BYTES
from pipeline.build import build_defs
from pipeline.cli import cli
from pipeline.settings import Settings, read_settings
from tests.assets.workshop import interrupting_when
from tests.models.homes import write_manifest

pytestmark = pytest.mark.slow

DIVERGES = {"loss": "wgan-gp", "lr_d": "1", "beta1": "0", "beta2": "0", "adam_eps": "0"}
ENTRANTS = {
    "small": {"preset": "dcgan64-smoke"},
    "nan": {"preset": "dcgan64-smoke", "overrides": DIVERGES},
    "coloured": {"preset": "omokage-smoke"},  # its training sees the features of Lite0
}
CONFIG: dict[str, Any] = {
    "entrants": ENTRANTS,
    "kimg": 0.08,
    "overrides": {"device": "cpu", "threads": "1", "tick_kimg": "0.04", "snapshot_kimg": "0.04"},
    "score_pictures": 8,
    "fakes": 8,
    "repeats": 1,
}
INTERRUPTS = (KeyboardInterrupt, dg.DagsterExecutionInterruptedError)


class WorksHere(ChildProcess):
    """Trains and measures in this process, which takes a second each; notes the modules it ran."""

    trains_here: bool = True

    def run(
        self,
        context: Any,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        processes: int = 1,
    ) -> dict[str, Any]:
        CALLED.append(arguments[1])
        trains = arguments[1] == "models.train"
        if trains and not self.trains_here:
            return super().run(context, arguments, environment=environment)
        output, faults = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (environment or {}).items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(faults):
                words = [*arguments[2:], *([] if trains else FEW)]
                code = (train if trains else evaluate).main(words)
        if code:
            said = faults.getvalue().rpartition("error: ")[2]
            raise dg.Failure(description=said, metadata={"exit_code": code})
        return dict(json.loads(output.getvalue().splitlines()[-1]))


CALLED: list[str] = []  # by the comparison that ran last
FEW = ("--flips", "1", "--psis", "1")


class Place:
    """A home with a manifest, and the job run on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings: Settings = read_settings({"OMOKAGE_HOME": str(home)})

    def compare(self, *, trains_here: bool = True, **changes: Any) -> dg.ExecuteInProcessResult:
        child = WorksHere(environment={"OMP_NUM_THREADS": "1"}, trains_here=trains_here)
        CALLED.clear()
        defs = build_defs(settings=self.settings, resource_overrides={"child": child})
        return defs.resolve_job_def("compare").execute_in_process(
            run_config={"ops": {"plan": {"config": CONFIG | changes}}},
            raise_on_error=False,
        )

    @property
    def folder(self) -> Path:
        """Of the comparison that was planned last."""
        plans = sorted(self.home.glob(f"{FOLDER}/*/plan.json"), key=lambda one: one.stat().st_mtime)
        return plans[-1].parent

    def results(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "results.json").read_text()))

    def runs(self) -> dict[str, Run]:
        client = MlflowClient(self.settings.tracking_uri)
        of_it = f"tags.`omokage.comparison` = '{self.folder.name}'"
        return {run.info.run_name: run for run in client.search_runs(["1"], of_it)}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A home with one comparison, which the tests read and do not change."""
    made = Place(tmp_path_factory.mktemp("compare"))
    write_manifest(made.home)
    return made


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A home of the test's own."""
    write_manifest(tmp_path)
    return Place(tmp_path)


@pytest.fixture(scope="module")
def done(shared: Place) -> dg.ExecuteInProcessResult:
    result = shared.compare()
    assert result.success
    return result


def test_a_failing_entrant_is_told_and_does_not_lose_the_others(
    shared: Place, done: dg.ExecuteInProcessResult
) -> None:
    assert done.output_for_node("report") == shared.folder.name
    entrants = shared.results()["entrants"]
    assert shared.results()["best"] == entrants[0]["name"]
    assert {one["name"] for one in entrants[:2]} == {"small", "coloured"}
    assert entrants[0]["distance"] <= entrants[1]["distance"]
    assert (entrants[2]["name"], entrants[2]["state"]) == ("nan", "failed")
    assert "is nan; the last checkpoint is from before it" in entrants[2]["fault"]
    for one in entrants[:2]:
        assert [point["images_seen"] for point in one["curve"]] == [40, 80]
        assert one["images_seen"] == 80
        assert 0 < one["curve"][0]["minutes"] < one["curve"][-1]["minutes"]


def test_the_report_stands_with_its_pictures(
    shared: Place, done: dg.ExecuteInProcessResult
) -> None:
    text = (shared.folder / "report.md").read_text()
    assert "3 entrants, 0.08 kimg each on cpu" in text
    assert "**nan** failed: step" in text
    for name, least in (("curves.png", 600), ("grids.jpg", 640)):
        assert f"]({name})" in text
        with Image.open(shared.folder / name) as picture:
            assert picture.width >= least
    with Image.open(shared.folder / "grids.jpg") as grids:
        assert grids.height == 2 * 64  # a row for each that was measured
    assert (shared.folder / "grids.jpg").stat().st_size <= GRIDS_BYTES
    assert (shared.folder / "entrants" / "coloured" / "labels.png").exists()


def test_mlflow_has_a_run_with_the_report_and_one_below_it_for_each(
    shared: Place, done: dg.ExecuteInProcessResult
) -> None:
    runs, client = shared.runs(), MlflowClient(shared.settings.tracking_uri)
    parent = runs.pop("comparison of 3, 0.08 kimg each")
    assert set(runs) == set(ENTRANTS)
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert (parent.info.status, runs["nan"].info.status) == ("FINISHED", "FAILED")
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"report.md", "results.json", "curves.png", "grids.jpg"} <= files
    assert "| **small** |" in parent.data.tags["mlflow.note.content"]
    for name in ("small", "coloured"):
        metrics = runs[name].data.metrics
        assert metrics["train/images_seen"] == 80
        assert metrics["eval/fd_efficientnet_lite2"] > 0
        assert runs[name].info.status == "FINISHED"


def test_dagster_has_the_table_and_small_pictures(done: dg.ExecuteInProcessResult) -> None:
    (event,) = done.asset_materializations_for_node("report")
    assert event.asset_key == COMPARISON
    facts: dict[str, Any] = {name: one.value for name, one in event.metadata.items()}
    assert (facts["entrants"], facts["failed"]) == (3, 1)
    assert "| **nan** |" in facts["table"]
    for name in ("curves", "grids"):
        assert facts[name].startswith("![preview](data:image/jpeg;base64,")
        assert len(facts[name]) <= MAX_BYTES


def test_again_it_trains_nothing_and_on_more_fakes_it_only_measures(place: Place) -> None:
    few: dict[str, Any] = {"entrants": {name: ENTRANTS[name] for name in ("small", "nan")}}
    assert place.compare(**few).success
    before = (place.folder / "report.md").read_text()
    assert place.compare(**few).success
    assert CALLED == []
    assert (place.folder / "report.md").read_text() == before
    assert len(place.runs()) == 3

    assert place.compare(**few, fakes=10, psi=0.5).success
    assert CALLED.count("models.evaluate") == 1
    (measured,) = [one for one in place.results()["entrants"] if one["state"] != "failed"]
    assert (measured["fakes"], measured["psi"]) == (10, 0.5)
    assert measured["curve"]


def test_faults_of_the_plan_are_told_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    write_manifest(tmp_path, labels=("blonde_hair", "left_side_ponytail"))
    for changes, words in (
        ({"sets": ["familis"]}, 'unknown set "familis"; did you mean "families"?'),
        ({"minutes": 1.0}, "minutes is 1 and kimg is 0.08"),
        ({}, "small: flip is true, and left_side_ponytail tells left from right"),
    ):
        result = place.compare(**changes)
        (failed,) = [event for event in result.all_events if event.is_step_failure]
        assert failed.step_failure_data.user_failure_data is not None
        assert words in str(failed.step_failure_data.user_failure_data.description)
        assert CALLED == []
    assert not (tmp_path / FOLDER).exists()


def test_the_command_refuses_what_does_not_fit_by_exit_code(tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli, ["compare", "--home", str(tmp_path), "--entrant", "smoke"])
    assert '"smoke" is no name=preset,key=value' in str(shown.exception)
    shown = CliRunner().invoke(cli, ["compare", "--help"])
    assert "acgan64-small with the class loss weighted" in shown.output


def test_an_interrupted_comparison_goes_on_where_it_was(place: Place) -> None:
    longer: dict[str, Any] = {
        "entrants": {"one": ENTRANTS["small"], "two": {"preset": "acgan64-smoke"}},
        "kimg": 1.0,
        "overrides": CONFIG["overrides"] | {"snapshot_kimg": "0.25"},
        "score_pictures": 0,
    }
    ticks = f"{FOLDER}/*/entrants/one/progress.jsonl"
    with interrupting_when(lambda: any(place.home.glob(ticks))):
        result = place.compare(trains_here=False, **longer)
    assert not result.success
    assert place.runs()["one"].info.status == "KILLED"
    assert place.runs()["comparison of 2, 1 kimg each"].info.status == "KILLED"
    stopped_at = len((place.folder / "entrants/one/progress.jsonl").read_text().splitlines())
    assert 0 < stopped_at < 25
    before = {name: run.info.run_id for name, run in place.runs().items()}

    assert place.compare(**longer).success
    assert CALLED == ["models.train", "models.evaluate"] * 2
    after = {name: run.info.run_id for name, run in place.runs().items()}
    assert after.items() >= before.items()
    assert {run.info.status for run in place.runs().values()} == {"FINISHED"}
    seen = [one["images_seen"] for one in place.results()["entrants"]]
    assert seen == [1000, 1000]
