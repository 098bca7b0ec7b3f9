"""Two nodes of Ray on this machine give the table of local processes, also if one is killed."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
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

ray = pytest.importorskip("ray", reason="the package ray is absent: pip install omokage[ray]")
authentication_test_utils = pytest.importorskip("ray._private.authentication_test_utils")
pytestmark = pytest.mark.slow

PICTURES = 2_048
SETTINGS = FaceSettings(min_side_px=32)
START_WITHIN_S = 300
STARTS = 3  # a node gives up after 30 s, whatever the variables below say
VARIABLES = {  # a busy machine misses Ray's own limits; a worker would give way to all else
    "RAY_raylet_start_wait_time_s": str(START_WITHIN_S),
    "RAY_worker_register_timeout_seconds": str(START_WITHIN_S),
    "RAY_worker_niceness": "0",
}


class Nodes:
    """A cluster of `ray start`s: a head and one more, a CPU each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        port, *others = free_ports(3)
        self.address = f"127.0.0.1:{port}"
        self._other: subprocess.Popen[bytes] | None = None
        options = ("--port", "--dashboard-port", "--ray-client-server-port")
        ports = zip(options, (port, *others), strict=True)
        self._head = self._started(
            "--head", "--include-dashboard=false", f"--temp-dir={folder}",
            *(f"{option}={port}" for option, port in ports),
        )  # fmt: skip

    def complete(self) -> None:
        """Starts the second node unless it is there."""
        if self._other is None:
            self._other = self._started(f"--address={self.address}")

    def kill_other(self) -> None:
        """Kills all processes of the second node."""
        assert self._other is not None
        end(self._other)
        self._other = None

    def end(self) -> None:
        for node in (self._other, self._head):
            if node is not None:
                end(node)

    def _started(self, *options: str) -> subprocess.Popen[bytes]:
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1",
            "--node-ip-address=127.0.0.1", "--object-store-memory=200000000",
            "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0",
            "--disable-usage-stats", *options,
        ]  # fmt: skip
        path = self._folder / f"{options[0].strip('-').partition('=')[0]}.log"
        for _ in range(STARTS):
            with path.open("wb") as log:
                node = subprocess.Popen(
                    command, env={**os.environ, **VARIABLES}, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            while node.poll() is None and b"runtime started" not in path.read_bytes():
                time.sleep(0.1)
            if node.poll() is None:
                return node
            end(node)
        raise AssertionError(path.read_text()[-2000:])


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def wait_for(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + START_WITHIN_S
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.1)


def end(node: subprocess.Popen[bytes]) -> None:
    """Kills a node with all its processes: those of its session."""
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == node.pid:
                os.kill(pid, signal.SIGKILL)
    node.wait()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    # Not in pytest's folder: Ray's sockets are below, whose paths have 107 characters at most.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as environment,
    ):
        # Its own: by default the nodes share a file in the user's home, with all others.
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        authentication_test_utils.reset_auth_token_state()
        made = Nodes(Path(folder))
        try:
            yield made
        finally:
            made.end()


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
            crops, "map_batches", lambda *asked: kill_in_the_middle(map_batches(*asked))
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
