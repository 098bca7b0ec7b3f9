"""Pools: what waits for what, and the slots of `gpu` by the GPUs of the machine."""

import multiprocessing
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import torch

from assets.resources import StoreResource
from pipeline.instance import GPU_POOL, provide_gpu_slots
from pipeline.settings import PROJECT


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    folder = tmp_path_factory.mktemp("dagster")
    shutil.copy(PROJECT / "dagster.yaml", folder)
    with dg.DagsterInstance.from_config(str(folder)) as made:
        yield made


def gpus(patch: pytest.MonkeyPatch, count: int) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: count > 0)
    patch.setattr(torch.cuda, "device_count", lambda: count)


def slots(instance: dg.DagsterInstance) -> int:
    return instance.event_log_storage.get_concurrency_info(GPU_POOL).slot_count


def test_slots_follow_the_gpus_until_the_user_sets_a_limit(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count, wanted in [(0, 1), (4, 4), (2, 2)]:
        gpus(monkeypatch, count)
        assert provide_gpu_slots(instance) == slots(instance) == wanted
    instance.event_log_storage.set_concurrency_slots(GPU_POOL, 3)  # as the UI and the CLI do
    assert provide_gpu_slots(instance) == slots(instance) == 3


def test_a_limit_that_dagster_took_from_its_default_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    gpus(monkeypatch, 2)
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        made.event_log_storage.initialize_concurrency_limit_to_default(GPU_POOL)
        assert slots(made) == 1
        assert provide_gpu_slots(made) == slots(made) == 2


def test_boards_are_crawled_and_a_generator_trained_while_tables_have_one_writer(
    tmp_path: Path,
) -> None:
    """Three runs of one instance, each in a process of its own, with the pools of the assets."""
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    forks = multiprocessing.get_context("fork")  # threads of Dagster wait for each other for ever
    at_once, refreshed = forks.Barrier(3), forks.Semaphore(0)

    @dg.op(pool="board_one")
    def crawl_one() -> None:
        at_once.wait(60)

    @dg.op(pool="board_two")
    def crawl_two() -> None:
        at_once.wait(60)
        time.sleep(0.5)  # Dagster hands the slot to both of two that come at the same moment

    @dg.op(pool="home", ins={"after": dg.In(dg.Nothing)})
    def write() -> None:
        time.sleep(1.0)

    @dg.op(pool="gpu")
    def train() -> None:
        at_once.wait(60)
        assert all(refreshed.acquire(timeout=60) for _ in range(2))

    @dg.job
    def refresh_one() -> None:
        write(crawl_one())

    @dg.job
    def refresh_two() -> None:
        write(crawl_two())

    @dg.job
    def training() -> None:
        train()

    def run(job: dg.JobDefinition) -> None:
        with dg.DagsterInstance.from_config(str(tmp_path)) as made:
            assert job.execute_in_process(instance=made).success
        refreshed.release()

    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        made.get_run_ids()  # the databases are laid out before there are three who would
        jobs = (refresh_one, refresh_two, training)
        runs = [forks.Process(target=run, args=[job]) for job in jobs]
        for one in runs:
            one.start()
        for one in runs:
            one.join(90)
        assert [one.exitcode for one in runs] == [0, 0, 0]
        logs = {run.job_name: made.all_logs(run.run_id) for run in made.get_runs()}
    began, ended = (
        {
            (job, entry.step_key): entry.timestamp
            for job, log in logs.items()
            for entry in log
            if entry.dagster_event and entry.dagster_event.event_type_value == kind
        }
        for kind in ("STEP_START", "STEP_SUCCESS")
    )
    first, second = (("refresh_one", "write"), ("refresh_two", "write"))
    assert ended[first] <= began[second]
    assert ended[second] <= ended["training", "train"]
    messages = [entry.message for log in logs.values() for entry in log]
    waits = [message for message in messages if "blocked by" in message]
    assert waits == ["Step blocked by limit for pool home"]


def test_two_stages_that_got_the_same_slot_write_one_after_the_other(tmp_path: Path) -> None:
    store, inside = StoreResource(root=str(tmp_path)), []

    def write() -> None:
        with store.exclusive():
            inside.append("begun")
            time.sleep(0.1)
            inside.append("ended")

    stages = [threading.Thread(target=write) for _ in range(2)]
    for one in stages:
        one.start()
    for one in stages:
        one.join()
    assert inside == ["begun", "ended"] * 2
