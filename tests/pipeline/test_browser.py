"""The servers as a person meets them: the Dagster and MLflow UIs in a headless Chromium."""

import contextlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, sync_playwright

from pipeline.processes import free_port
from tests.pipeline.conftest import POST_COUNT, Demo, clean_environment

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
STAGES = ("crawl/demo", "posts", "faces", "labels", "manifest", "generator", "evaluation")


@dataclass(frozen=True)
class Servers:
    """What `omokage up` has started."""

    process: subprocess.Popen[str]
    dagster: str
    mlflow: str


@pytest.fixture(scope="module")
def servers(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    home = tmp_path_factory.mktemp("up") / "home"
    shutil.copytree(demo.home, home)  # what is done here must not change what others look at
    ports = {name: free_port() for name in ("dagster", "mlflow", "board")}
    options = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
    process = subprocess.Popen(
        demo.command("up", "--home", str(home), "--posts", str(POST_COUNT), *options),
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            break
    assert process.poll() is None
    started = psutil.Process(process.pid).children(recursive=True)
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    yield Servers(process, urls["dagster"], urls["mlflow"])
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == [], "one Ctrl-C ends all that was started"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        page = browser.new_page(viewport={"width": 1700, "height": 950})
        page.set_default_timeout(30_000)
        yield page
        browser.close()


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
        picture = page.locator('img[src^="data:image/jpeg"]').first
        picture.wait_for()
        assert picture.evaluate("image => image.naturalWidth") > 64


def test_materialize_all_works_from_the_browser_and_can_be_cancelled(
    servers: Servers, page: Page, demo: Demo
) -> None:
    """The default run trains for minutes: it is followed into training, then cancelled."""
    page.goto(f"{servers.dagster}/asset-groups")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_text(re.compile("Launched run", re.IGNORECASE)).first.wait_for()
    page.goto(f"{servers.dagster}/runs")
    page.locator('a[href*="/runs/"]').first.wait_for()
    trainer = trainer_of(servers.process.pid)
    run_id = page.locator('a[href^="/runs/"]').filter(has_text=re.compile(r"^[0-9a-f]{8}$")).first
    run_id.click()
    page.get_by_role("button", name="Terminate").first.click()
    page.get_by_role("button", name=re.compile("^Terminate 1 run$")).click()
    psutil.wait_procs([trainer], timeout=60)
    assert not trainer.is_running()
    page.get_by_text(re.compile("^Canceled$", re.IGNORECASE)).first.wait_for(timeout=60_000)


def trainer_of(pid: int) -> psutil.Process:
    """Waits until the run has come to training; returns the trainer's process."""
    for _ in range(300):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended
                if "models.train" in " ".join(process.cmdline()):
                    return process
        time.sleep(0.3)
    raise AssertionError("the run never came to training")


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
