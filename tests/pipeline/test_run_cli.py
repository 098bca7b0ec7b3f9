"""`omokage run` builds what was imported, on the home's own Dagster instance, and resumes."""

import dataclasses
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import numpy as np
import psutil
import pytest
from click.testing import Result
from PIL import Image

from crawlers.ledger import Ledger
from crawlers.sites import load_sites
from dataset.crops import CROPS_PATH
from dataset.errors import ConfigError, EmptyStageError, OmokageError, UsageError
from dataset.schemas import row_count
from dataset.store import Store
from pipeline.settings import PROJECT, STAGES
from tests.pipeline.conftest import Demo, omokage_here
from tests.pipeline.fork_server import WarmOmokage
from tests.pipeline.test_training_sensor import add_run
from tests.waiting import wait_for

HAIR, EYES = ("blonde hair", "blue hair", "red hair", "black hair"), ("blue eyes", "red eyes")
COUNT = 320  # 256 to train on and 32 to judge by are the least
CONFIG = "manifest: {eval_frac: 0.15}\ngenerator: {preset: smoke}\n"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, warm: WarmOmokage) -> Path:
    """A folder with a home into which face crops were imported, and a configuration."""
    folder = tmp_path_factory.mktemp("run")
    faces = folder / "faces"
    faces.mkdir()
    rows = ["file,hair,eyes"]
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(faces / f"{number}.png")
        rows.append(f"{number}.png,{HAIR[number % 4]},{EYES[number % 2]}")
    (faces / "tags.csv").write_text("\n".join(rows))
    (folder / "mine.yaml").write_text(CONFIG)
    home = str(folder / "home")
    words = ["import", "folder", str(faces), "--cropped", "--rating", "general", "--home", home]
    ended = warm.run(words)
    assert ended.returncode == 0, ended.stderr
    assert re.search(rf"^Next: .* run --home {home} builds", ended.stderr, re.MULTILINE)
    said = warm.run(["status", "--home", home]).stdout
    assert f"{COUNT} posts kept, {COUNT} of them not in the table of posts yet: " in said
    assert re.search(rf"^posts +none yet: .* run --home {home}$", said, re.MULTILINE)
    return folder


@pytest.fixture
def home(imported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(imported / "home", tmp_path / "home"))


def arguments(imported: Path, home: Path, until: str = "manifest") -> list[str]:
    config = str(imported / "mine.yaml")
    return ["run", "--home", str(home), "--until", until, "--config", config]


@pytest.mark.ci
def test_interrupted_it_ends_its_workers_goes_on_and_then_does_nothing_again(
    imported: Path, home: Path, warm: WarmOmokage
) -> None:
    interrupt_in("faces", warm, arguments(imported, home))
    assert (home / "posts.lance").exists()

    first = warm.run(arguments(imported, home))
    assert first.returncode == 0, first.stderr
    built = re.findall(r"^✔ (\S+)", first.stderr, re.MULTILINE)
    assert built == ["posts", "faces", "labels", "machine_labels", "manifest"]
    assert f"ledger     {COUNT} posts kept\n" in first.stdout
    assert f"posts      {COUNT} rows" in first.stdout
    assert re.search(r"^Go on: .* run --home ", first.stdout, re.MULTILINE)
    failed = re.findall(r"^  ! [a-z_]+: .*", first.stderr, re.MULTILINE)
    assert failed
    assert "\n".join(["Checks that failed:", *failed]) in first.stdout
    made = files_of(home)
    assert row_count(Store(str(home)), CROPS_PATH) == COUNT

    again = warm.run(arguments(imported, home))
    assert again.returncode == 0, again.stderr
    assert re.search(r"^✔ faces .*reused: nothing had changed", again.stderr, re.MULTILINE)
    assert files_of(home) == made
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:  # what `up` shows
        runs = instance.get_runs()
    assert [(run.job_name, run.status.value) for run in runs] == [
        ("everything", "SUCCESS"), ("everything", "SUCCESS"), ("everything", "FAILURE"),
    ]  # fmt: skip


def interrupt_in(stage: str, omokage: WarmOmokage, words: list[str]) -> None:
    """Starts a command and sends Ctrl-C when the stage has workers; all of them must end."""
    running = omokage.start(words, in_own_session=True)
    said = []
    for line in running.stderr:
        said.append(line)
        if line.startswith(f"▶ {stage}"):
            break
    process = psutil.Process(running.pid)
    wait_for(lambda: process.children(recursive=True))
    children = process.children(recursive=True)
    running.send_signal(signal.SIGINT)
    pressed = time.monotonic()
    for line in running.stderr:
        said.append(line)
        # The interpreter drops what a signal raises inside a finalizer: a person presses again.
        if line.startswith(f"{stage} ") and time.monotonic() > pressed + 2:
            running.send_signal(signal.SIGINT)
            pressed = time.monotonic()
    assert running.completed().returncode == 130, "".join(said)
    assert "The same command goes on where this ended." in "".join(said)
    assert psutil.wait_procs(children, timeout=60)[1] == []


def files_of(home: Path) -> dict[str, int]:
    """When each file of the crops and manifests was written."""
    names = [*Store(home).files(CROPS_PATH), *Store(home).files("manifest")]
    return {name: (home / name).stat().st_mtime_ns for name in names if "current" not in name}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("facse: {cropped: true}", 'mine.yaml has faults:\n  unknown stage "facse"; did you mean'),
        ("faces: {min_side: 1}", 'faces: unknown key "min_side"; did you mean "min_side_px"?'),
        ("faces: {min_side_px: small}", "faces: min_side_px is 'small'"),
        ("generator: {preset: omokge}", 'generator: unknown preset "omokge"; did you mean "omok'),
        ("generator: {overrides: {batsh: '8'}}", "mine.yaml has faults:\n  generator: "),
        ("faces: [", "mine.yaml is not YAML"),
    ],
)
def test_a_wrong_configuration_is_refused_before_anything_is_built(
    home: Path, tmp_path: Path, text: str, said: str
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    ended = omokage_here("run", "--home", str(home), "--config", str(mine))
    assert isinstance(ended.exception, ConfigError)
    assert said in str(ended.exception)
    assert not (home / "posts.lance").exists()


def test_an_unknown_stage_lists_those_that_there_are(tmp_path: Path) -> None:
    ended = omokage_here("run", "--home", str(tmp_path), "--until", "train")
    assert ended.exit_code == 2
    assert all(f"'{stage}'" in ended.output for stage in STAGES)


def test_without_a_post_or_a_site_it_says_what_makes_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(
        EmptyStageError, match=r"no posts yet\. .* import folder PATH --home .* --site"
    ):
        raise_of(omokage_here("run", "--home", str(home)))
    with pytest.raises(UsageError, match="OMOKAGE_SITES names no site"):
        raise_of(omokage_here("run", "--home", str(home), "--until", "crawl"))
    assert not home.exists()


def raise_of(ended: Result) -> None:
    assert ended.exception is not None
    raise ended.exception


def test_status_counts_what_is_pending(home: Path) -> None:
    with Ledger.of(Store(home)) as ledger:
        media = next(ledger.rows(["faces"])).media
        assert media is not None
        ledger.requeue([media.sha256], "blob_missing")
    said = omokage_here("status", "--home", str(home)).output
    assert f"ledger     {COUNT - 1} posts kept, {COUNT - 1} of them not in the table of" in said
    assert "; 1 pending: crawl or import again\n" in said


@pytest.mark.parametrize(
    ("enabled", "known", "crawls"),
    [
        (None, ("danbooru_donmai", "safebooru_donmai"), []),
        ("demo,konachan", ("demo", "konachan"), [["crawl", "demo"], ["crawl", "konachan"]]),
    ],
)
def test_only_the_sites_of_the_settings_are_crawled_and_boards_of_the_ledger_are_built(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *,
    enabled: str | None, known: tuple[str, ...], crawls: list[list[str]],
) -> None:  # fmt: skip
    with Ledger.of(Store(home)) as ledger:
        ledger.admit(load_sites()["safebooru_donmai"])
    started: list[Any] = []

    def run_job(*given: Any) -> SimpleNamespace:
        started.append(given)
        return SimpleNamespace(get_asset_check_evaluations=list)

    monkeypatch.setattr("pipeline.demo.run_job", run_job)
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        f"crawl: {{limit: 5}}\ncrawl/{known[0]}: {{tags: solo}}\nfaces: {{crop_px: 64}}"
    )
    words = ("run", "--home", str(home), "--until", "posts", "--config", str(mine))
    ended = omokage_here(*words, OMOKAGE_SITES=enabled)
    assert ended.exit_code == 0, ended.exception
    ((settings, job, ops, assets),) = started
    assert (set(settings.sites), job) == (set(known), "everything")
    assert assets == [*crawls, "posts"]
    assert ops == ({
        "crawl__demo": {"config": {"limit": 5, "tags": "solo"}},
        "crawl__konachan": {"config": {"limit": 5}},
    } if enabled else {})  # fmt: skip


@pytest.mark.ci
def test_where_blobs_are_lost_for_good_it_takes_the_word_that_the_error_names(
    home: Path, tmp_path: Path
) -> None:
    shutil.rmtree(home / "blobs")
    mine = tmp_path / "mine.yaml"
    mine.write_text("posts: {refetch_missing: true}")
    words = ("run", "--home", str(home), "--until", "posts")
    with pytest.raises(OmokageError, match="build posts with refetch_missing: true"):
        raise_of(omokage_here(*words))
    with pytest.raises(OmokageError, match=f"not_fetched: {COUNT}\nThe next crawl or import"):
        raise_of(omokage_here(*words, "--config", str(mine)))
    assert f"{COUNT:,} pending" in omokage_here("status", "--home", str(home)).output


@pytest.mark.parametrize(("pools", "builds"), [({"home", "board_demo"}, False), ({"gpu"}, True)])
@pytest.mark.ci
def test_it_does_not_build_beside_a_run_that_builds_but_beside_a_training(
    home: Path, pools: set[str], *, builds: bool
) -> None:
    (home / "dagster").mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home / "dagster")
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        run = add_run(instance, "refresh_demo", dg.DagsterRunStatus.STARTED, pools=pools)
    words = ("run", "--home", str(home), "--until", "posts")
    if builds:
        assert omokage_here(*words).exit_code == 0
    else:
        with pytest.raises(UsageError, match=rf"refresh_demo \(run {run[:8]}, running, .* at work"):
            raise_of(omokage_here(*words))
    assert (home / "posts.lance").exists() is builds


def test_a_board_of_no_known_site_is_not_left_out_silently(home: Path) -> None:
    site = dataclasses.replace(load_sites()["demo"], name="mine", board="mine")
    with Ledger.of(Store(home)) as ledger:
        ledger.admit(site)
    with pytest.raises(ConfigError, match=r"posts of mine, which no site .*OMOKAGE_SITES_FILE"):
        raise_of(omokage_here("run", "--home", str(home)))


@pytest.mark.slow
def test_on_the_home_of_a_demo_nothing_is_crawled_or_trained_again(
    demo: Demo, warm: WarmOmokage, tmp_path: Path
) -> None:
    generators = demo.home / "generators"
    names = {path.name for path in generators.iterdir()}
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"{demo.config.read_text()}faces: {{mode: fast}}\n")  # the demo's own
    ended = warm.run(["run", "--home", str(demo.home), "--config", str(mine)])
    assert ended.returncode == 0, ended.stderr
    assert "crawl" not in ended.stderr
    assert re.search(r"^✔ posts .*row count [1-9]", ended.stderr, re.MULTILINE)
    for stage in ("faces", "generator", "evaluation", "champion"):
        line = rf"^✔ {stage} .*reused: nothing had changed"
        assert re.search(line, ended.stderr, re.MULTILINE), ended.stderr
    assert {path.name for path in generators.iterdir()} == names
