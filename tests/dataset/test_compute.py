"""The crop work gives the same table on every executor; wrong choices are refused."""

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from dataset import crops, tables
from dataset.compute import Compute, executor_of, parse_compute
from dataset.cropping import FaceSettings
from dataset.crops import CROPS_PATH, Cropper
from dataset.engines import engine_of
from dataset.errors import ComputeError, ConfigError, StoreError
from dataset.faces import FacesTable, crop_faces
from dataset.store import Store
from tests.dataset.home import Home, png, portrait

SETTINGS = FaceSettings(cropped=True)
COUNT = 24


def fill(home: Home) -> list[str]:
    blobs = [home.add(png(portrait(seed, side=96))) for seed in range(COUNT)]
    home.write()
    return blobs


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("processes", Compute("processes", workers=3)),
        ("processes:2", Compute("processes", workers=2)),
        ("threads:4", Compute("threads", workers=4)),
        ("distributed:tcp://host:8786", Compute("distributed", address="tcp://host:8786")),
        ("distributed:host:8786", Compute("distributed", address="host:8786")),
        ("ray", Compute("ray", workers=3)),
        ("ray:host:6379", Compute("ray", workers=3, address="host:6379")),
        ("my.module:make", Compute("", module="my.module", function="make")),
    ],
)
def test_choices_are_read(text: str, wanted: Compute) -> None:
    assert parse_compute(text, workers=3) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("processes:0", '"processes:0": a whole number of workers from 1 to 256 wanted'),
        ("threads:", '"threads:": a whole number of workers'),
        ("thread", '"thread" is no compute; did you mean "threads"'),
        ("distributed", "the scheduler's address wanted, such as distributed:tcp://host:8786"),
        ("ray:host", '"ray:host": ray, or the address of a cluster such as ray:host:6379, wanted'),
        ("ray:ray://host:10001", "the address of a cluster such as ray:host:6379"),
        ("my module:make", '"my module:make" is no compute'),
        ("", '"" is no compute'),
    ],
)
def test_wrong_choices_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_compute(text, workers=3)


def make_executor() -> Executor:
    return ThreadPoolExecutor(2)


def make_text() -> str:
    return "no executor"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            f"{__name__}:make_executer",
            'has no function make_executer; did you mean "make_executor"',
        ),
        (f"{__name__}:make_text", "returned a str; a concurrent.futures.Executor wanted"),
        ("not_there.at_all:make", "no module not_there to import; is its folder on PYTHONPATH"),
    ],
)
def test_functions_that_give_no_executor_are_refused(function: str, said: str) -> None:
    with (
        pytest.raises(ConfigError, match=said),
        executor_of(parse_compute(function, workers=1)),
    ):
        pass


@pytest.mark.parametrize("package", ["distributed", "ray"])
def test_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(ConfigError, match=f"needs the package {package}, which is not installed"),
        engine_of(parse_compute(f"{package}:127.0.0.1:9", workers=1)),
    ):
        pass


def test_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataset.compute.CONNECT_WITHIN_S", 0.3)
    with (
        pytest.raises(ComputeError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"),
        executor_of(parse_compute("distributed:tcp://127.0.0.1:9", workers=1)),
    ):
        pass


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="the package distributed is absent")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
        host="127.0.0.1", silence_logs=50,
    ) as made:  # fmt: skip
        yield f"distributed:{made.scheduler_address}"


def made_on(compute: str, home: Home) -> FacesTable:
    with executor_of(parse_compute(compute, workers=2)) as executor:
        return crop_faces(home.store, SETTINGS, executor)


@pytest.mark.slow
def test_cluster_gives_the_table_of_processes_and_threads(
    cluster: str, home: Home, tmp_path: Path
) -> None:
    fill(home)
    by_cluster = made_on(cluster, home)
    assert by_cluster.kept == COUNT
    for number, compute in enumerate(("processes:2", "threads:2", f"{__name__}:make_executor")):
        other = Home(Store(str(tmp_path / str(number))))
        fill(other)
        assert made_on(compute, other) == by_cluster
    again = made_on(cluster, home)
    assert (again.pictures_reused, again.digest) == (again.pictures, by_cluster.digest)


class Failing(Cropper):
    """Fails for the pictures that begin as the home's file says."""

    def __call__(self, keys: pa.Table) -> pa.Table:
        if keys["sha256"][0].as_py()[0] == self._store.read_bytes("fails").decode():
            raise StoreError("crops: the disk is full")
        return super().__call__(keys)


def test_batch_that_fails_on_the_cluster_is_run_again_alone(
    cluster: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = sorted(fill(home))[-1]
    home.store.write_bytes("fails", last[0].encode())
    monkeypatch.setattr(crops, "BATCH", 1)
    monkeypatch.setattr(crops, "Cropper", Failing)
    with pytest.raises(StoreError, match="the disk is full"):
        made_on(cluster, home)
    done = tables.count(home.store, CROPS_PATH)
    assert 0 < done < COUNT
    home.store.write_bytes("fails", b"none")
    made = made_on(cluster, home)
    assert made.kept == COUNT
    assert made.pictures_reused == done


class Killing(Cropper):
    """Kills its worker the first time."""

    def __call__(self, keys: pa.Table) -> pa.Table:
        if not self._store.exists("killed"):
            self._store.write_bytes("killed", b"")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(keys)


@pytest.mark.parametrize("on_cluster", [True, False], ids=["cluster", "processes"])
@pytest.mark.ci
def test_killed_worker_loses_nothing(
    on_cluster: bool, request: pytest.FixtureRequest, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = request.getfixturevalue("cluster") if on_cluster else "processes:2"
    fill(home)
    monkeypatch.setattr(crops, "Cropper", Killing)
    made = made_on(compute, home)
    assert home.store.exists("killed")
    assert (made.kept, made.unreadable) == (COUNT, [])


class AlwaysKilling(Cropper):
    def __call__(self, keys: pa.Table) -> pa.Table:
        if keys["sha256"][0].as_py()[0] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(keys)


@pytest.mark.slow
def test_picture_that_kills_every_worker_is_named(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(200):
        sha256 = home.add(png(portrait(seed % 5, side=64)) + bytes([seed]))
        if sha256[0] == "0":
            break
    home.add(png(portrait(1, side=70)))
    home.write()
    monkeypatch.setattr(crops, "Cropper", AlwaysKilling)
    with pytest.raises(ComputeError, match=f"blobs/{sha256[:2]}/.*Fewer workers"):
        made_on("processes:1", home)
