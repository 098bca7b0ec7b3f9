"""The source follows the champion under way, keeps models for links, and outlives its registry."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dataset.errors import RegistryError, UsageError
from models.io.generators import generator_digest
from models.sampling.draw import Pictures, draw
from studio.model_source import ModelSource, OpenModel
from tests.models.small_generators import write_generator
from tests.studio.champions import NAME, Champions, generator
from tests.waiting import wait_for


@pytest.fixture
def champions(empty_registry: Path, tmp_path: Path) -> Champions:
    """A registry of three versions of which 1 is the champion."""
    made = Champions(tmp_path / "registry", empty_registry)
    for number in (1, 2, 3):
        assert made.register(generator(number)) == str(number)
    made.crown("1")
    return made


def source(uri: str, *, keep: int = 3, look_every_s: float = 0.0) -> ModelSource:
    return ModelSource(tracking_uri=uri, look_every_s=look_every_s, keep=keep)


def faces(model: OpenModel) -> Pictures:
    return draw(model.generator, model.typical[:2], [3, 4], psi=0.7)


@contextlib.contextmanager
def hanging_server() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://user:secret@127.0.0.1:{server.getsockname()[1]}"


def test_the_alias_moves_while_four_threads_draw(champions: Champions) -> None:
    wanted = {str(number): faces_of(number) for number in (1, 2, 3)}
    models = source(champions.uri, look_every_s=0.01)
    faults: list[BaseException] = []
    seen: list[str] = []
    ended = threading.Event()

    def draws() -> None:
        try:
            while not ended.is_set():
                model = models.current()
                assert np.array_equal(faces(model), wanted[model.version])
                assert model.name == f"{NAME} version {model.version}"
                seen.append(model.version)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=draws) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in ("2", "3", "1", "2"):
        # The threads look every 10 ms; after a move, a thread's next look finds it.
        wait_for(lambda: len(seen) > 8)
        champions.crown(version)
        seen.clear()
        wait_for(lambda version=version: version in seen or faults)  # type: ignore[misc]
    ended.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert models.notice() == ""


def test_others_draw_with_the_old_version_while_one_loads_the_new(
    champions: Champions, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = source(champions.uri)
    models.current()
    champions.crown("2")
    loads, go_on = threading.Event(), threading.Event()
    opened = sys.modules["studio.model_source"].open_found

    def slowly(*given: object, **more: object) -> OpenModel:
        loads.set()
        assert go_on.wait(600)
        model: OpenModel = opened(*given, **more)
        return model

    monkeypatch.setattr("studio.model_source.open_found", slowly)
    first: list[OpenModel] = []
    thread = threading.Thread(target=lambda: first.append(models.current()))
    thread.start()
    assert loads.wait(600)
    assert models.current().version == "1"
    go_on.set()
    thread.join()
    assert [model.version for model in first] == ["2"]
    assert models.current() is first[0]


def test_the_registry_is_asked_no_more_often_than_told(champions: Champions) -> None:
    models = source(champions.uri, look_every_s=60)
    assert models.current().version == "1"
    champions.crown("2")
    assert models.current().version == "1"


def test_no_champion_yet_and_then_one(empty_registry: Path, tmp_path: Path) -> None:
    nobody = ModelSource(tracking_uri=f"sqlite:///{tmp_path}/none.db", look_every_s=0)
    with pytest.raises(RegistryError, match="There is no champion yet"):
        nobody.current()
    champions = Champions(tmp_path / "registry", empty_registry)
    models = source(champions.uri)
    for _ in range(2):
        with pytest.raises(RegistryError, match="There is no champion yet: no version of avatar"):
            models.current()
    champions.crown(champions.register(generator(1)))
    assert models.current().version == "1"
    champions.client.delete_registered_model_alias(NAME, "champion")
    assert models.current().version == "1"
    assert models.notice() == (
        "No version is the champion any more. Drawing goes on with avatar-generator version 1."
    )
    champions.crown("1")
    assert models.current().version == "1"
    assert models.notice() == ""


def test_a_damaged_new_champion_leaves_the_old_one_in_place(champions: Champions) -> None:
    models = source(champions.uri)
    models.current()
    (champions.files("2") / "artifacts/generator.safetensors").write_bytes(b"cut")
    champions.crown("2")
    assert models.current().version == "1"
    assert models.notice().startswith("avatar-generator version 2 cannot be opened: generator.saf")
    assert models.notice().endswith("Drawing goes on with avatar-generator version 1.")
    assert str(champions.home) not in models.notice()
    with pytest.raises(RegistryError, match="version 2 cannot be opened"):
        models.of(f"{NAME}/2")


def test_a_link_gets_its_version_and_the_latest_used_are_kept(champions: Champions) -> None:
    models = source(champions.uri, keep=2)
    first = models.current()
    assert models.of(f"{NAME}/1") is first
    second = models.of(f"{NAME}/2")
    assert (second.version, second.digest) == ("2", generator_digest(generator(2)))
    assert models.of(f"{NAME}/2") is second
    models.of(f"{NAME}/3")
    assert models.of(f"{NAME}/2") is not second  # 3 had taken its place
    assert models.of(f"{NAME}/1") is first  # the current one always stays
    assert models.current() is first


def test_four_threads_with_the_same_link_fetch_it_once(champions: Champions) -> None:
    models = source(champions.uri)
    found: list[OpenModel] = []
    threads = [
        threading.Thread(target=lambda: found.append(models.of(f"{NAME}/3"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({id(model) for model in found}) == 1


def test_models_that_are_no_longer_current_are_let_go(champions: Champions) -> None:
    models = source(champions.uri, keep=2)
    alive = []
    for version in ("1", "2", "3"):
        champions.crown(version)
        alive.append(weakref.ref(models.current().generator))
    gc.collect()
    assert [one() is None for one in alive] == [True, False, False]


@pytest.mark.parametrize(
    ("key", "reported"),
    [
        (f"{NAME}/7", "made by version 7 of avatar-generator, which the registry does not have."),
        ("other/1", "made by version 1 of other; this page draws with avatar-generator"),
        (f"sha256:{'0' * 16}", "made by a generator of a folder"),
        ("sha256:", "made by a generator of a folder"),
        (f"{NAME}@champion", 'The link names the model "avatar-generator@champion"; a version'),
        (f"{NAME}/../1", "made by version 1 of avatar-generator/..; this page"),
        ("", 'The link names the model ""'),
        (f"{NAME}/0", "a version such as avatar-generator/3"),
    ],
)
def test_a_link_to_what_cannot_be_had_says_why(
    shared: ModelSource, key: str, reported: str
) -> None:
    with pytest.raises(UsageError) as refused:
        shared.of(key)
    assert reported in str(refused.value)


@pytest.fixture(scope="module")
def shared(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    made = Champions(tmp_path_factory.mktemp("shared"), empty_registry)
    made.crown(made.register(generator(1)))
    return source(made.uri)


def test_a_folder_is_a_source_too(tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "faces", generator(1))
    models = ModelSource(folder, tracking_uri=f"sqlite:///{tmp_path}/none.db")
    model = models.current()
    assert models.current() is model
    assert models.of(model.key) is model
    assert models.of(f"sha256:{model.digest}") is model
    with pytest.raises(UsageError, match="version 3 of avatar-generator; this page draws with fac"):
        models.of(f"{NAME}/3")
    with pytest.raises(UsageError, match="Here is faces "):
        models.of(f"sha256:{'0' * 16}")


def test_settings_that_no_source_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keep is 0"):
        ModelSource(tracking_uri="sqlite://", keep=0)
    with pytest.raises(UsageError, match="is no model URI"):
        ModelSource(f"models:/{NAME}", tracking_uri="sqlite://")
    with pytest.raises(UsageError, match="holds no generator"):
        ModelSource(str(tmp_path), tracking_uri="sqlite://").current()


@pytest.mark.ci
def test_a_server_that_hangs_is_reported_to_all_who_wait() -> None:
    with hanging_server() as uri:
        models = source(uri, look_every_s=1.0)
        reported: list[str] = []

        def ask(call: Callable[[], object]) -> None:
            with pytest.raises(RegistryError) as refused:
                call()
            reported.append(str(refused.value))

        calls = [models.current] * 2 + [lambda: models.of(f"{NAME}/1")] * 2
        threads = [threading.Thread(target=ask, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (sentence,) = set(reported)
    assert len(reported) == 4
    port = uri.rpartition(":")[2]
    assert sentence == (
        f"The registry at http://127.0.0.1:{port} does not answer as it should. Does MLflow run, "
        "and is MLFLOW_TRACKING_URI right?"
    )


@pytest.mark.slow
def test_a_registry_that_stops_is_outlived_and_found_again(
    champions: Champions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.model_source.RETRY_S", 0.5)
    # A version whose files the server hands out; those of the others lie where everybody can read.
    folder = champions.files("2").name
    handed_out = champions.client.create_model_version(NAME, f"mlflow-artifacts:/{folder}")
    proxied = f"{NAME}/{handed_out.version}"
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    models = source(uri)
    with pytest.raises(RegistryError, match=f"registry at {uri} does not answer"):
        models.current()
    server = server_of(champions, port)
    try:
        wait_for(lambda: answers(uri))
        assert patiently(models.current).version == "1"
        assert models.notice() == ""
        assert patiently(lambda: models.of(proxied)).digest == generator_digest(generator(2))

        os.killpg(server.pid, signal.SIGSTOP)  # it hangs
        time.sleep(0.5)
        models.current()
        assert models.current().version == "1"  # at once: it is not requested again yet
        assert models.notice() == (
            f"The registry at {uri} does not answer as it should. Does MLflow run, and is "
            "MLFLOW_TRACKING_URI right? Drawing goes on with avatar-generator version 1."
        )
        os.killpg(server.pid, signal.SIGCONT)
        champions.crown("2")
        wait_for(lambda: models.current().version == "2")
        assert models.notice() == ""
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    # It has stopped for good.
    champions.crown("3")
    assert models.current().version == "2"
    assert "does not answer" in models.notice()
    assert models.of(f"{NAME}/1").version == "1"  # a kept one
    with pytest.raises(RegistryError, match="does not answer"):
        models.of(f"{NAME}/3")


def server_of(champions: Champions, port: int) -> "subprocess.Popen[bytes]":
    """Starts MLflow's own server over the registry, in a process group of its own."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--backend-store-uri", champions.uri]
    command += ["--artifacts-destination", (champions.home / "models").as_uri()]
    # Its queue of jobs, which nothing here asks for, doubles the time that it takes to start.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (champions.home / "server.log").open("wb") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env=environment
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def faces_of(number: int) -> Pictures:
    """The pictures of a version, drawn with the generator that it was made from."""
    network = generator(number)
    rows = np.asarray([[1, 0, 1], [0, 1, 0]], dtype=np.float32)
    return draw(network, rows, [3, 4], psi=0.7)


def patiently(call: Callable[[], OpenModel], *, timeout_s: float = 600.0) -> OpenModel:
    """Returns the model once the server, just started on a busy machine, answers in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with contextlib.suppress(RegistryError):
            return call()
    return call()
