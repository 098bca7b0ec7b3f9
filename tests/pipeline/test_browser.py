"""The servers as a person meets them: the Dagster and MLflow UIs in a headless Chromium."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page

from tests.chromium import headless_chromium
from tests.pipeline.conftest import Demo
from tests.pipeline.up_servers import POLL_S, Servers, started
from tests.waiting import wait_for

pytestmark = pytest.mark.browser

# More than the demo's: new ones to crawl, and by the default settings enough to train and judge.
SERVED = 480
STAGES = ("crawl/demo", "posts", "faces", "labels", "manifest", "generator", "evaluation")


RETRY = """mutation($parent: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $parent, strategy: ALL_STEPS}) {
    ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}
  }
}"""
LINEAGE = """{assetNodeOrError(assetKey: {path: ["manifest"]}) {... on AssetNode {
  assetMaterializations(limit: 1) {metadataEntries {... on TableColumnLineageMetadataEntry {
    lineage {columnName columnDeps {columnName assetKey {path}}}
  }}}
}}}"""


@pytest.fixture(scope="module")
def servers(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    home = tmp_path_factory.mktemp("up") / "home"
    shutil.copytree(demo.home, home)  # what is done here must not change what others look at
    with started(demo, home, posts=SERVED) as servers:
        yield servers


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with headless_chromium() as browser:
        page = browser.new_page(viewport={"width": 1700, "height": 950})
        page.set_default_timeout(300_000)
        yield page


def test_the_graph_reads_left_to_right(servers: Servers, page: Page) -> None:
    page.goto(f"{servers.dagster}/asset-groups")
    places = {}
    for group in ("crawl", "dataset", "training", "evaluation", "registry"):
        node = page.locator("svg").get_by_text(group, exact=True).first
        node.wait_for()
        box = node.bounding_box()
        assert box is not None
        places[group] = box["x"]
    assert list(places.values()) == sorted(places.values())


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_materialisation_shows_counts_digest_and_duration(
    servers: Servers, page: Page, stage: str
) -> None:
    page.goto(f"{servers.dagster}/assets/{stage}?view=events")
    page.get_by_text("Materialized in run").first.wait_for()
    shown = page.inner_text("body")
    if stage not in ("labels", "generator", "evaluation"):
        assert re.search(r"row_count|kept", shown)
    assert "seconds" in shown
    assert "digest" in shown or stage == "crawl/demo"
    if stage not in ("labels", "manifest"):
        page.get_by_text("[Show Markdown]").first.click()
        picture = page.locator('img[src^="data:image/"]').first
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") > 64


@pytest.mark.slow
def test_materialize_all_works_from_the_browser_and_can_be_cancelled(
    servers: Servers, page: Page, demo: Demo
) -> None:
    """The default run trains for minutes: it is followed into training, then cancelled."""
    page.goto(f"{servers.dagster}/asset-groups")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_text(re.compile("Launched run", re.IGNORECASE)).first.wait_for()
    page.goto(f"{servers.dagster}/runs")
    page.locator('a[href*="/runs/"]').first.wait_for()
    wait_for(
        lambda: servers.running("models.train"), "the run never came to training", poll_s=POLL_S
    )
    terminate(servers, page, "models.train")
    assert servers.status(servers.newest_run()) == "CANCELED"
    assert servers.running("models.train") is None


@pytest.mark.slow
def test_a_cancelled_training_goes_on_in_its_mlflow_run_with_each_step_once(
    servers: Servers, page: Page
) -> None:
    overrides = {"total_kimg": "4", "snapshot_kimg": "0.2", "device": "cpu"}
    config = {"preset": "dcgan64-smoke", "overrides": overrides}
    known = set(servers.home.glob("generators/*/progress.jsonl"))
    cancelled = materialise(servers, page, "generator", config)
    wait_for(
        lambda: set(servers.home.glob("generators/*/progress.jsonl")) - known, "it never began"
    )
    terminate(servers, page, "models.train")
    (run,) = runs_of(servers, cancelled)
    assert run.info.status == "KILLED"
    before = steps_of(servers, run.info.run_id)
    assert before[-1] < 4000

    page.goto("about:blank")  # Dagster's page would go on following runs
    again = servers.ask(RETRY, parent=cancelled)["run"]["runId"]
    assert servers.wait_until_it_ended(again) == "SUCCESS"
    (run,) = runs_of(servers, again)
    assert run.info.status == "FINISHED"
    steps = steps_of(servers, run.info.run_id)
    assert steps[: len(before)] == before, "it went on in the same run"
    assert steps[-1] == 4000
    assert len(set(steps)) == len(steps)
    assert len(run.inputs.dataset_inputs) == 1


def materialise(servers: Servers, page: Page, asset: str, config: dict[str, Any]) -> str:
    """Fills in the launchpad of an asset's page and starts the run; returns the run's id."""
    before = servers.newest_run()
    open_launchpad(servers, page, asset)
    content = json.dumps({"ops": {asset: {"config": config}}})  # is YAML too
    page.evaluate(
        "content => document.querySelector('.CodeMirror').CodeMirror.setValue(content)", content
    )
    start = page.get_by_role("dialog").get_by_role("button", name="Materialize")
    wait_for(start.is_enabled, "the launchpad refuses the configuration")
    start.click()
    wait_for(lambda: servers.newest_run() != before, "no run was started", poll_s=POLL_S)
    return servers.newest_run()


def open_launchpad(servers: Servers, page: Page, asset: str) -> None:
    page.goto(f"{servers.dagster}/assets/{asset}")
    page.get_by_role("button", name="Materialize").first.click(modifiers=["Shift"])
    page.get_by_text("Launchpad (configure assets)").wait_for()
    page.locator(".CodeMirror-line", has_text="config:").first.wait_for()


def terminate(servers: Servers, page: Page, module: str) -> None:
    """Terminates the newest run on its page; no process and no held slot may be left of it."""
    run_id, child = servers.newest_run(), servers.running(module)
    assert child is not None
    family = [child, *child.children(recursive=True)]
    page.goto(f"{servers.dagster}/runs/{run_id}")
    page.get_by_role("button", name="Terminate").first.click()
    page.get_by_role("button", name=re.compile("^Terminate 1 run$")).click()
    _, alive = psutil.wait_procs(family, timeout=600)
    assert alive == []
    wait_for(
        lambda: servers.status(run_id) == "CANCELED", "the run was never cancelled", poll_s=POLL_S
    )
    page.get_by_text(re.compile("^Canceled$", re.IGNORECASE)).first.wait_for()
    wait_for(lambda: servers.held_slots() == 0, "a slot of the pool gpu is held", poll_s=POLL_S)


def runs_of(servers: Servers, dagster_run: str) -> list[Any]:
    """The MLflow runs of trainings that a Dagster run worked on last."""
    found = servers.mlflow_client().search_runs(
        ["1"], f"tags.`omokage.dagster_run` = '{dagster_run}'"
    )
    return list(found)


def steps_of(servers: Servers, run_id: str) -> list[int]:
    history = servers.mlflow_client().get_metric_history(run_id, "train/d_loss")
    return sorted(metric.step for metric in history)


@pytest.mark.slow
def test_the_launchpad_explains_each_field(servers: Servers, page: Page) -> None:
    open_launchpad(servers, page, "generator")
    start = page.get_by_role("dialog").get_by_role("button", name="Materialize")
    wait_for(start.is_enabled, "the defaults are refused")
    page.locator(".CodeMirror-line", has_text="preset").first.click()
    hint = page.get_by_text(re.compile("draws nothing worth seeing")).first
    hint.wait_for()
    assert "draws nothing worth seeing" in hint.inner_text()
    assert start.is_enabled(), "reading a field's text changes nothing"


@pytest.mark.slow
def test_tables_show_their_columns_and_lineage_and_checks_what_they_found(
    servers: Servers, page: Page
) -> None:
    page.goto(f"{servers.dagster}/assets/manifest")
    page.get_by_text("train or eval, by the blob's sha256").first.wait_for()
    assert "non-nullable" in page.inner_text("body")
    lineage = servers.ask(LINEAGE)["assetMaterializations"][0]["metadataEntries"]
    (found,) = [entry["lineage"] for entry in lineage if entry.get("lineage")]
    split = next(entry["columnDeps"] for entry in found if entry["columnName"] == "split")
    assert split == [{"columnName": "sha256", "assetKey": {"path": ["faces"]}}]
    page.goto(f"{servers.dagster}/assets/posts/?view=checks")
    for name in ("posts_kept", "posts_are_safe", "ledger_and_files_agree"):
        page.get_by_text(name).first.wait_for()


@pytest.mark.slow
def test_an_mlflow_run_shows_its_note_dataset_curves_and_grids(
    servers: Servers, page: Page
) -> None:
    versions = servers.mlflow_client().search_model_versions("name = 'avatar-generator'")
    version = max(versions, key=lambda version: int(version.version))
    where = f"{servers.mlflow}/#/experiments/1/runs/{version.run_id}"
    page.goto(f"{where}?workflowType=machine_learning")
    page.get_by_text("Learns from").first.wait_for()
    page.get_by_text(re.compile(r"^manifest \([0-9a-f]+\)")).first.wait_for()
    page.goto(f"{where}/model-metrics")
    search = page.get_by_placeholder("Search metric charts")  # those out of sight are not drawn
    for words, curves in (("loss", ("d_loss", "g_loss")), ("fd_", ("fd_efficientnet_lite0",))):
        search.fill(words)
        for curve in curves:
            page.get_by_text(curve, exact=True).first.wait_for()
            assert curve in page.inner_text("body")
    page.goto(f"{where}/artifacts")
    page.get_by_text("images", exact=True).first.click()
    page.get_by_text(re.compile(r"^samples.*\.png$")).first.click()
    picture = page.locator('img[src*="samples"], img[src^="blob:"]').first
    picture.wait_for()
    wait_for(lambda: picture.evaluate("image => image.naturalWidth") > 64, "an empty picture")


def test_mlflow_shows_the_run_and_the_champion(servers: Servers, page: Page) -> None:
    page.goto(f"{servers.mlflow}/#/models/avatar-generator")
    page.get_by_text("champion").first.wait_for()
    assert "Draws anime faces from labels" in page.inner_text("body")
    page.goto(f"{servers.mlflow}/#/models/avatar-generator/versions/1")
    page.get_by_text("omokage.fd_efficientnet_lite0").first.wait_for()


def test_nothing_listens_beyond_loopback(servers: Servers) -> None:
    for process in psutil.Process(servers.process.pid).children(recursive=True):
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1"), (
                    Path(process.exe()),
                    connection,
                )


def test_the_studio_draws_with_the_champion(servers: Servers, page: Page) -> None:
    page.goto(servers.studio)
    page.get_by_text("avatar-generator version 1").wait_for()
    page.locator("#draw").click()
    page.wait_for_function("document.querySelectorAll('#grid img').length === 8")
    widths = page.locator("#grid img").evaluate_all(
        "all => Promise.all(all.map((one) => one.decode().then(() => one.naturalWidth)))"
    )
    assert widths == [64] * 8, "as many pictures as the page asks for, of the champion's side"
