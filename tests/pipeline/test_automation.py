"""The chain under automation, from new posts to a new champion, with no hand.

Dagster and MLflow are on PostgreSQL here where a server is installed; everywhere else on SQLite.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from pipeline.settings import PROJECT
from tests.pipeline.automatic_home import AutomaticHome, automatic_home
from tests.pipeline.conftest import POST_COUNT, Demo, omokage_here
from tests.pipeline.postgres import PASSWORD, commands, missing, postgres

pytestmark = pytest.mark.slow

FEW, MORE = POST_COUNT, POST_COUNT + 50
# Seconds of training draw worse than none do: after 3,000 pictures this network is at a distance of
# 1519, after the first batch at 1016. So the first champion is the weak one (it learns no labels,
# which the gate looks at too), and after a change of this file, which is read at each tick, the
# next generator wins clearly.
WEAK = """\
crawl/demo: {tags: ""}
faces: {mode: fast}
labels: {count: 8}
manifest: {eval_frac: 0.15}
generator:
  preset: smoke
  overrides:
    {total_kimg: "3", tick_kimg: "1", snapshot_kimg: "4", lr_g: "5e-4", lr_d: "1e-3",
     g_label_weight: "0", d_label_weight: "0",
     device: cpu, threads: "1"}
evaluation: {fakes: 64, repeats: 2, flips: 1}
"""
BETTER = WEAK.replace('total_kimg: "3"', 'total_kimg: "0.008"')
TOO_FEW_TO_JUDGE_BY = BETTER.replace("eval_frac: 0.15", "eval_frac: 0.02")
STORAGE = "\nstorage:\n  postgres:\n    postgres_url: {env: DAGSTER_POSTGRES_URL}\n"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of MLflow's on PostgreSQL, where Dagster's are too; "" where no server is."""
    if missing():
        yield ""
        return
    with postgres("dagster", "mlflow") as (of_dagster, of_mlflow):
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", of_dagster)
        (tmp_path / "home/dagster").mkdir(parents=True)
        ours = (PROJECT / "dagster.yaml").read_text()
        (tmp_path / "home/dagster/dagster.yaml").write_text(ours + STORAGE)
        yield of_mlflow


def test_new_posts_become_a_champion_and_no_new_posts_train_nothing(
    demo: Demo, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = demo.home / "board" / "drawn"
    shutil.copytree(drawn, tmp_path / "home/board/drawn", copy_function=os.link)
    config = tmp_path / "automatic.yaml"
    config.write_text(WEAK)
    given = {"OMOKAGE_AUTO_CONFIG": str(config), "OMOKAGE_COMPUTE": "threads:1"}
    with automatic_home(
        tmp_path / "home", monkeypatch, posts=FEW, given=given, database=database
    ) as automatic:
        first_posts_make_the_first_champion(automatic)
        no_new_posts_train_nothing(automatic)
        config.write_text(BETTER)
        new_posts_make_another_champion(automatic)
        config.write_text(TOO_FEW_TO_JUDGE_BY)
        a_failed_blocking_check_is_not_passed(automatic)
        assert automatic.champion() == 2
        assert len(automatic.trainings()) == 2  # one a manifest that was new, and no other
        if database:
            storage = automatic.instance.event_log_storage
            assert type(storage).__name__ == "PostgresEventLogStorage"
            shown = "\n".join(commands())
            assert "mlflow server" in shown
            assert PASSWORD not in shown
    if database:
        commands_use_the_database_itself(tmp_path / "home", database)
        files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
        assert [path for path in files if path.name == "MLmodel"]
        assert not [path for path in files if path.suffix == ".db"]
        assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def commands_use_the_database_itself(home: Path, database: str) -> None:
    """The server has ended; what moves a champion needs none."""
    variables = {"MLFLOW_TRACKING_URI": database, "DAGSTER_HOME": str(home / "dagster")}
    for words, said in [
        (("champions",), "1 → 2"),
        (("promote", "2"), "nothing changed: "),
        (("status",), "@champion is version 2"),
    ]:
        ended = omokage_here(*words, "--home", str(home), **variables)
        assert said in ended.output, (words, ended.output, ended.exception)


def first_posts_make_the_first_champion(automatic: AutomaticHome) -> None:
    assert "There is no manifest yet" in skip_reason(automatic)
    automatic.sensor_tick("report_failures")  # which begins to look
    refreshed(automatic)
    (training,), _ = automatic.sensor_tick("train_when_grown")
    assert training.success
    (run,) = automatic.trainings()
    assert run.tags["omokage/manifest"] == automatic.digest()
    assert run.tags["omokage/reason"].startswith("there is no generator yet")
    assert automatic.champion() == 1


def no_new_posts_train_nothing(automatic: AutomaticHome) -> None:
    before, digest = automatic.trainings(), automatic.digest()
    assert "learnt from this very manifest" in skip_reason(automatic)
    refreshed(automatic)
    assert automatic.digest() == digest
    assert "learnt from this very manifest" in skip_reason(automatic)
    assert automatic.trainings() == before


def new_posts_make_another_champion(automatic: AutomaticHome) -> None:
    before = automatic.digest()
    automatic.serve(MORE)
    refreshed(automatic)
    assert automatic.digest() != before
    (training,), _ = automatic.sensor_tick("train_when_grown")
    assert training.success
    assert automatic.store.read_json("generators/current.json")["manifest"] == automatic.digest()
    reason = automatic.trainings()[0].tags["omokage/reason"]
    assert "were learnt from" in reason
    assert reason.endswith("10 % wanted")
    assert automatic.champion() == 2
    (version, first) = automatic.tracking.versions({})
    decision = version.tags["omokage.decision"]
    assert re.search(r"version 2 has \S+ at \d+ px \S+, champion version 1 has \S+: gain", decision)
    gain, needed = map(float, re.findall(r"gain (\S+), more than (\S+) needed", decision)[0])
    assert gain > needed
    previous = automatic.tracking.holder("previous")
    assert previous is not None
    assert previous.version == first.version
    assert "learnt from this very manifest" in skip_reason(automatic)
    assert len(automatic.trainings()) == 2


def a_failed_blocking_check_is_not_passed(automatic: AutomaticHome) -> None:
    (refresh,) = automatic.schedule_tick("refresh_demo_schedule")
    assert not refresh.success
    said = skip_reason(automatic)
    assert 'The blocking check manifest_rows of manifest failed: "' in said
    assert "rows in the eval split (limit 32)" in said
    assert len(automatic.trainings()) == 2
    automatic.sensor_tick("report_failures")
    (report,) = (automatic.home / "reports/failures").glob(f"*-{refresh.run_id[:8]}.md")
    text = report.read_text()
    assert "**manifest_rows** of manifest (blocking):" in text
    assert "started by the schedule `refresh_demo_schedule`" in text
    assert f"http://127.0.0.1:3000/runs/{refresh.run_id}" in text


def refreshed(automatic: AutomaticHome) -> dg.ExecuteInProcessResult:
    (refresh,) = automatic.schedule_tick("refresh_demo_schedule")
    assert refresh.success
    return refresh


def skip_reason(automatic: AutomaticHome) -> str:
    """Why the sensor asks for no training; fails if it asks for one."""
    runs, reason = automatic.sensor_tick("train_when_grown")
    assert not runs
    return reason
