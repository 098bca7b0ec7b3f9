"""Two nodes of Ray on this machine give the table of local processes, also if one is killed."""

import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dataset import crops, tables
from dataset.compute import parse_compute
from dataset.cropping import FaceSettings
from dataset.crops import BATCH, CROPS_PATH, Cropper
from dataset.engines import engine_of, map_batches
from dataset.errors import ComputeError, StoreError
from dataset.faces import FacesTable, crop_faces
from dataset.schemas import FACES_PATH
from dataset.store import Store
from tests.dataset.home import Home, png, portrait
from tests.ray_nodes import Nodes, started_nodes
from tests.waiting import wait_for

ray = pytest.importorskip("ray", reason="the package ray is absent: pip install omokage[ray]")
authentication_test_utils = pytest.importorskip("ray._private.authentication_test_utils")
pytestmark = pytest.mark.slow

PICTURES = 2_048
SETTINGS = FaceSettings(min_side_px=32)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as environment:
        # Its own: by default the nodes share a file in the user's home, with all others.
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        authentication_test_utils.reset_auth_token_state()
        with started_nodes(dict(os.environ)) as made:
            yield made


@pytest.fixture
def cluster(nodes: Nodes) -> Iterator[Nodes]:
    """Connects to the two nodes."""
    nodes.complete()
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    try:
        wait_for(lambda: ray.cluster_resources().get("CPU") == 2)
        yield nodes
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home of drawn portraits; what is cut out of them is removed by each test."""
    home = Home(Store(str(tmp_path_factory.mktemp("pictures"))))
    for seed in range(PICTURES):
        home.add(png(portrait(seed, side=128)))
    home.write()
    return home


def cropped_on(compute: str, home: Home, settings: FaceSettings = SETTINGS) -> FacesTable:
    with engine_of(parse_compute(compute, workers=2)) as engine:
        return crop_faces(home.store, settings, engine)


def emptied(home: Home) -> Home:
    for path in (CROPS_PATH, FACES_PATH):
        home.store.remove(path)
    return home


def rows(store: Store, path: str, key: str) -> pa.Table:
    columns = tables.schema_of(store, path).names
    parts = tables.scan(store, path, columns=columns, rows=PICTURES)
    return pa.Table.from_batches(parts).sort_by(key)


@pytest.fixture(scope="module")
def by_processes(pictures: Home) -> tuple[FacesTable, pa.Table, pa.Table]:
    """What processes of this machine make of the pictures: counts, faces and crops."""
    made = cropped_on("processes:2", emptied(pictures))
    assert made.rows >= PICTURES * 0.9
    return made, rows(pictures.store, FACES_PATH, "face_id"), crop_rows(pictures)


def crop_rows(home: Home) -> pa.Table:
    return rows(home.store, CROPS_PATH, "sha256").sort_by(
        [("sha256", "ascending"), ("x", "ascending")]
    )


def test_two_nodes_give_the_table_of_processes(
    cluster: Nodes, pictures: Home, by_processes: tuple[FacesTable, pa.Table, pa.Table]
) -> None:
    made = cropped_on(f"ray:{cluster.address}", emptied(pictures))
    wanted, faces, cut = by_processes
    assert made == wanted
    assert rows(pictures.store, FACES_PATH, "face_id").equals(faces)
    assert crop_rows(pictures).equals(cut)


def test_killed_node_loses_nothing_and_repeats_nothing(
    cluster: Nodes, pictures: Home, by_processes: tuple[FacesTable, pa.Table, pa.Table]
) -> None:
    emptied(pictures)
    killed_at: list[int] = []

    done = 0

    def kill_in_the_middle(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        nonlocal done
        for batch in batches:
            done += pc.count_distinct(batch["sha256"]).as_py()
            if done > PICTURES // 3 and not killed_at:
                killed_at.append(done)
                cluster.kill_other()
            yield batch

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            crops, "map_batches", lambda *arguments: kill_in_the_middle(map_batches(*arguments))
        )
        made = cropped_on(f"ray:{cluster.address}", pictures)
    wanted, faces, cut = by_processes
    assert killed_at
    assert killed_at[0] < PICTURES
    assert made == wanted
    assert rows(pictures.store, FACES_PATH, "face_id").equals(faces)
    assert crop_rows(pictures).equals(cut)


class Placed:
    """Tells by which process it is called, and takes its time."""

    def __init__(self, settings: None) -> None:
        self._made = time.time_ns()

    def __call__(self, keys: pa.Table) -> pa.Table:
        time.sleep(0.1)
        pid, made = os.getpid(), self._made
        return keys.append_column("pid", [[pid] * keys.num_rows]).append_column(
            "made", [[made] * keys.num_rows]
        )


def batches_of(names: list[str]) -> list[pa.Table]:
    return [pa.table({"name": [name]}) for name in names]


def test_each_cpu_has_an_actor_which_makes_its_worker_once(cluster: Nodes) -> None:
    names = [str(number) for number in range(60)]
    with engine_of(parse_compute("ray", workers=1)) as engine:
        made = pa.concat_tables(map_batches(engine, Placed, None, batches_of(names)))
    assert sorted(made["name"].to_pylist()) == sorted(names)
    assert len(made["pid"].unique()) == len(made["made"].unique()) == 2


class Poisoned(Cropper):
    """Kills its process over the pictures that the file in the store names."""

    def __call__(self, keys: pa.Table) -> pa.Table:
        poison = self._store.read_bytes("poison").decode()
        if poison in keys["sha256"].to_pylist():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(keys)


def test_picture_that_kills_every_worker_is_named_and_what_was_done_stands(
    cluster: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(Store(str(tmp_path)))
    sha256s = sorted(home.add(png(portrait(seed, side=128))) for seed in range(3 * BATCH))
    home.write()
    home.store.write_bytes("poison", sha256s[0].encode())
    monkeypatch.setattr(crops, "Cropper", Poisoned)
    with pytest.raises(ComputeError, match=f"a worker died .*blobs/../../{sha256s[0]}"):
        cropped_on("ray", home)
    stored = tables.scan(home.store, CROPS_PATH, columns=["sha256"], rows=PICTURES)
    done = {row["sha256"] for part in stored for row in part.to_pylist()}
    assert done <= set(sha256s[BATCH:])  # what waited for the actor that died is not among them
    monkeypatch.undo()
    made = cropped_on("ray", home)
    assert (made.pictures, made.pictures_reused) == (3 * BATCH, len(done))


def test_cluster_that_does_not_answer_is_named() -> None:
    with (
        pytest.raises(ComputeError, match=r"no Ray cluster could be joined at 127\.0\.0\.1:9"),
        engine_of(parse_compute("ray:127.0.0.1:9", workers=1)),
    ):
        pass


class Failing(Cropper):
    def __call__(self, keys: pa.Table) -> pa.Table:
        raise StoreError("crops: the disk is full")


def test_what_a_worker_raises_ends_the_stage(
    cluster: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(Store(str(tmp_path)))
    home.add(png(portrait(0, side=128)))
    home.write()
    monkeypatch.setattr(crops, "Cropper", Failing)
    with pytest.raises(StoreError, match="the disk is full"):
        cropped_on("ray", home)
