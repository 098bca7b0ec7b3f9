"""Pools: what waits for what, and the slots of `gpu`. Runs that a killed machine has left."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import torch
from dagster._core.events import EngineEventData
from dagster._core.storage.event_log import SqlEventLogStorage

from assets.resources import StoreResource
from dataset.errors import UsageError
from pipeline.instance import (
    DEMO_TAGS,
    GPU_POOL,
    end_dead_runs,
    only_servers_of,
    patch_waiting_for_pools,
    prepare_home,
    provide_gpu_slots,
)
from pipeline.settings import PROJECT, read_settings
from tests.pipeline.test_training_sensor import add_run
from tests.waiting import CAP_S, wait_for


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


@pytest.mark.ci
def test_boards_are_crawled_and_a_generator_trained_while_tables_have_one_writer(
    tmp_path: Path,
) -> None:
    """Three runs of one instance, each in a process of its own, with the pools of the assets."""
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    forks = multiprocessing.get_context("fork")  # threads of Dagster wait for each other for ever
    at_once, writing, refreshed = forks.Barrier(3), forks.Event(), forks.Semaphore(0)

    @dg.op(pool="board_one")
    def crawl_one() -> None:
        at_once.wait(CAP_S)

    @dg.op(pool="board_two")
    def crawl_two() -> None:
        at_once.wait(CAP_S)
        assert writing.wait(CAP_S)  # SQLite gives the slot to both of two that come at one moment

    @dg.op(pool="home", ins={"after": dg.In(dg.Nothing)})
    def write(context: dg.OpExecutionContext) -> None:
        if not writing.is_set():
            writing.set()
            storage = context.instance.event_log_storage
            wait_for(lambda: len(storage.get_concurrency_info("home").pending_steps) == 2)

    @dg.op(pool="gpu")
    def train() -> None:
        at_once.wait(CAP_S)
        assert all(refreshed.acquire(timeout=CAP_S) for _ in range(2))

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
        patch_waiting_for_pools()
        with dg.DagsterInstance.from_config(str(tmp_path)) as made:
            assert job.execute_in_process(instance=made).success
        refreshed.release()

    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        made.get_run_ids()  # the databases are laid out before there are three who would
        jobs = (refresh_one, refresh_two, training)
        runs = [forks.Process(target=run, args=[job]) for job in jobs]
        for one in runs:
            one.start()
        wait_for(
            lambda: not any(one.is_alive() for one in runs) or any(one.exitcode for one in runs)
        )
        for one in runs:
            one.kill()  # those that wait for one that failed
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


def test_a_step_that_queues_while_the_slot_is_being_freed_gets_it(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_waiting_for_pools()
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    storage.set_concurrency_slots("racing", 1)
    assert storage.claim_concurrency_slot("racing", "first", "write").is_claimed
    queue = storage.add_pending_step  # called after it was seen that no slot is free

    def freed_before(*arguments: Any, **options: Any) -> None:
        storage.free_concurrency_slot_for_step("first", "write")
        queue(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "add_pending_step", freed_before)
        assert not storage.claim_concurrency_slot("racing", "second", "write").is_claimed
    assert storage.claim_concurrency_slot("racing", "second", "write").is_claimed
    assert not storage.claim_concurrency_slot("racing", "third", "write").is_claimed
    assert not storage.claim_concurrency_slot("racing", "third", "write").is_assigned


@pytest.mark.ci
def test_a_run_that_waits_for_a_slot_takes_no_processor_and_can_be_cancelled(
    tmp_path: Path,
) -> None:
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)

    @dg.op(pool="gpu")
    def train() -> None:
        raise AssertionError("the slot is not free")

    @dg.job
    def training() -> None:
        train()

    def run() -> None:
        patch_waiting_for_pools()
        with dg.DagsterInstance.from_config(str(tmp_path)) as its:
            training.execute_in_process(instance=its, raise_on_error=False)

    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        made.event_log_storage.set_concurrency_slots("gpu", 1)
        assert made.event_log_storage.claim_concurrency_slot("gpu", "other", "train").is_claimed
        waiting = multiprocessing.get_context("fork").Process(target=run)
        waiting.start()
        assert waiting.pid is not None
        its = psutil.Process(waiting.pid)
        storage = made.event_log_storage
        wait_for(lambda: len(storage.get_concurrency_info("gpu").pending_steps) == 2)
        before = its.cpu_times()
        time.sleep(3)
        used_s = sum(its.cpu_times()[:2]) - sum(before[:2])
        (run_of,) = made.get_runs()
        made.report_run_canceling(run_of)  # as the page of a run does, before the signal
        its.send_signal(signal.SIGINT)
        waiting.join(60)
        assert [run.status.value for run in made.get_runs()] == ["CANCELED"]
        assert len(storage.get_concurrency_info("gpu").pending_steps) == 1
    assert used_s < 0.6


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


STARTED, CANCELING = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING


def at_work(
    made: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    *,
    pid: int | None = None,
    tags: dict[str, str] | None = None,
) -> str:
    """A run with a slot of the pool `home`, whose log names a process; returns its id."""
    run_id = add_run(made, "refresh_demo", status, tags=tags)
    run = made.get_run_by_id(run_id)
    made.report_engine_event("begun", run, EngineEventData.in_process(pid) if pid else None)
    made.event_log_storage.set_concurrency_slots("home", 9)
    assert made.event_log_storage.claim_concurrency_slot("home", run_id, "posts").is_claimed
    return run_id


def test_runs_whose_process_is_dead_are_ended_and_free_their_slots(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = multiprocessing.get_context("fork").Process()
    ended.start()
    ended.join()
    runs = {
        "without_a_process": at_work(instance, STARTED),
        "dead": at_work(instance, STARTED, pid=ended.pid),
        "being_cancelled": at_work(instance, CANCELING, pid=ended.pid),
        "alive": at_work(instance, STARTED, pid=os.getpid()),
        "of_a_demo": at_work(instance, STARTED, pid=ended.pid, tags=DEMO_TAGS),
    }

    def states() -> dict[str, str]:
        found = {run.run_id: run.status.value for run in instance.get_runs()}
        return {name: found[run_id] for name, run_id in runs.items()}

    def holders() -> set[str]:
        slots = instance.event_log_storage.get_concurrency_info("home").claimed_slots
        return {name for name, run_id in runs.items() if run_id in {s.run_id for s in slots}}

    end_dead_runs(instance, of_demos=False)
    assert states() == {
        "without_a_process": "FAILURE", "dead": "FAILURE", "being_cancelled": "CANCELED",
        "alive": "STARTED", "of_a_demo": "STARTED",
    }  # fmt: skip
    assert holders() == {"alive", "of_a_demo"}
    # The number of a dead process, which another one has got since
    monkeypatch.setattr(psutil.Process, "create_time", lambda _process: time.time())
    end_dead_runs(instance, of_demos=False)
    end_dead_runs(instance, of_demos=True)
    assert (states()["alive"], states()["of_a_demo"]) == ("FAILURE", "FAILURE")
    assert holders() == set()


def test_servers_of_a_home_are_up_once_and_end_dead_runs_before(tmp_path: Path) -> None:
    settings = read_settings({"OMOKAGE_HOME": str(tmp_path)})
    prepare_home(settings)
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as made:
        at_work(made, STARTED)
        with only_servers_of(settings):
            assert [run.status.value for run in made.get_runs()] == ["FAILURE"]
            at_work(made, STARTED)
            with (
                pytest.raises(UsageError, match="`omokage up` is at work"),
                only_servers_of(settings),
            ):
                pass
            assert [run.status.value for run in made.get_runs()] == ["STARTED", "FAILURE"]
