"""The pool `gpu` has a slot for each GPU, unless the user has said otherwise."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import torch

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
