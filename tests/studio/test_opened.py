"""A folder or a version opens as a model that says who it is; faults come in plain words."""

import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from dataset.errors import OmokageError, RegistryError, TrainingError, UsageError
from models.families.base import GeneratorNet
from models.io.generators import generator_digest
from models.labels import label_rows
from models.registry.program import log_generator
from models.sampling.directions import DIRECTIONS, Direction, Directions
from models.sampling.draw import Pictures, draw, latents, map_latents
from studio.model_source import OpenModel, open_folder, open_registered
from tests.models.small_generators import (
    NAMES,
    TYPICAL,
    small_generator,
    write_checkpoint,
    write_generator,
)
from tests.studio.champions import NAME, Champions, generator

MADE = re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC")


@pytest.fixture(scope="module")
def champions(empty_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Champions:
    """Version 1 has its weights, 2 is from before models carried them."""
    made = Champions(tmp_path_factory.mktemp("registry"), empty_registry)
    made.register(generator(1))
    made.register(generator(2), weights=False)
    made.crown("1")
    return made


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that temporary files come into."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def faces(network: GeneratorNet) -> Pictures:
    labels = label_rows([["blue_hair"], ["blonde_hair", "blue_eyes"]], NAMES)
    return draw(network, labels, [3, 4], psi=0.7)


def refusal(error: type[OmokageError], champions: Champions, uri: str) -> str:
    with pytest.raises(error) as refused:
        open_registered(uri, tracking_uri=champions.uri)
    reported = str(refused.value)
    assert str(champions.home) not in reported
    assert tempfile.gettempdir() not in reported
    return reported


def test_a_folder_opens_with_its_name_and_a_key_of_its_weights(tmp_path: Path) -> None:
    network = small_generator("stylegan2")
    opened = open_folder(write_generator(tmp_path / "faces-of-may", network))
    digest = generator_digest(network)
    assert (opened.name, opened.version, opened.limits) == ("faces-of-may", "", "")
    assert (opened.key, opened.digest) == (f"sha256:{digest[:16]}", digest)
    assert MADE.fullmatch(opened.trained)
    assert opened.labels == NAMES == opened.spec.labels
    assert np.array_equal(opened.typical, label_rows(TYPICAL, NAMES))
    assert not opened.generator.training
    assert not any(one.requires_grad for one in opened.generator.parameters())
    assert np.array_equal(faces(opened.generator), faces(network))


def test_parts_of_a_training_bear_its_name(tmp_path: Path) -> None:
    network = small_generator("dcgan64")
    finished = write_generator(tmp_path / "one/generator", network)
    write_checkpoint(tmp_path / "two/checkpoints/0000000040", network, typical_labels=TYPICAL)
    checkpoint = str(tmp_path / "two/checkpoints/0000000040")
    names = {
        open_folder(folder).name: open_folder(folder).digest
        for folder in (finished, str(tmp_path / "one"), checkpoint, str(tmp_path / "two"))
    }
    assert names == dict.fromkeys(("one", "two at 0000000040", "two"), generator_digest(network))


def test_what_is_no_generator_or_no_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no generator"):
        open_folder(str(tmp_path))
    folder = write_generator(tmp_path / "one", small_generator("dcgan64"))
    with pytest.raises(UsageError, match='device is "cuda:99"'):
        open_folder(folder, device="cuda:99")
    (tmp_path / "one/generator.safetensors").write_bytes(b"cut")
    with pytest.raises(TrainingError, match=r"one/generator\.safetensors is no whole"):
        open_folder(folder)


def test_a_version_opens_whole_and_leaves_no_file(champions: Champions, temporary: Path) -> None:
    opened = open_registered(f"models:/{NAME}@champion", tracking_uri=champions.uri)
    assert list(temporary.iterdir()) == []
    assert (opened.name, opened.version) == ("avatar-generator version 1", "1")
    assert (opened.key, opened.limits) == ("avatar-generator/1", "")
    assert opened.digest == generator_digest(generator(1))
    assert MADE.fullmatch(opened.trained)
    assert np.array_equal(opened.typical, label_rows(TYPICAL, NAMES))
    assert np.array_equal(faces(opened.generator), faces(generator(1)))
    w = map_latents(opened.generator, latents([3], opened.spec.z_dim), opened.typical[:1])
    assert w.shape == (1, opened.spec.w_layers, opened.spec.w_dim)


def test_a_version_without_weights_draws_the_same_and_says_what_it_lacks(
    champions: Champions,
) -> None:
    opened = open_registered(f"models:/{NAME}/2", tracking_uri=champions.uri)
    assert opened.limits == (
        "avatar-generator version 2 was registered without its weights, so it draws from seeds "
        "and labels alone"
    )
    assert not opened.spec.can_w
    assert np.array_equal(faces(opened.generator), faces(generator(2)))
    again = open_registered(f"models:/{NAME}/2", tracking_uri=champions.uri)
    assert again.digest == opened.digest


def test_the_files_of_a_version_open_as_a_folder(champions: Champions, tmp_path: Path) -> None:
    for version, can_w in (("1", True), ("2", False)):
        folder = tmp_path / f"version{version}"
        shutil.copytree(champions.files(version), folder)
        opened: OpenModel = open_folder(str(folder))
        assert (opened.name, opened.version) == (f"version{version}", "")
        assert opened.key == f"sha256:{opened.digest[:16]}"
        assert opened.spec.can_w == can_w
        assert np.array_equal(faces(opened.generator), faces(generator(int(version))))


@pytest.mark.ci
def test_a_logged_generator_opens_whole_by_its_run_its_id_and_its_version(
    champions: Champions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    network = generator(3, "dcgan64")
    folder = write_generator(tmp_path / "trained", network)
    found = Direction("smile", np.ones((1, 100), np.float32), 0.5, 0.1)
    directions = Directions((found,), generator_digest(network))
    (tmp_path / "trained" / DIRECTIONS).write_bytes(directions.to_bytes())
    client = champions.client
    experiment = client.create_experiment("faces", (tmp_path / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    # Both calls in the block go by MLflow's global address, which lies in the environment too.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", champions.uri)
    before = mlflow.get_tracking_uri()
    try:
        logged = log_generator(folder, run_id=run_id, tracking_uri=champions.uri)
        model_id = logged.removeprefix("models:/")
        made = client.create_model_version(NAME, logged, run_id=run_id, model_id=model_id)
    finally:
        mlflow.set_tracking_uri(before)
    version = made.version

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody there
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    try:
        for uri in (f"runs:/{run_id}/generator", logged):
            opened = open_registered(uri, tracking_uri=champions.uri)
            assert (opened.name, opened.version) == (uri, "")
            assert opened.digest == generator_digest(network)
        opened = open_registered(f"models:/{NAME}/{version}", tracking_uri=champions.uri)
    finally:
        mlflow.set_tracking_uri(before)
    assert opened.key == f"{NAME}/{version}"
    assert opened.digest == generator_digest(network)
    for one in (opened, open_folder(folder)):
        assert one.directions is not None
        assert one.directions.names == ("smile",)

    # The program of a family without W can do all that the family can.
    (weights,) = (tmp_path / "artifacts").rglob("generator.safetensors")
    weights.unlink()
    opened = open_registered(f"models:/{NAME}/{version}", tracking_uri=champions.uri)
    assert opened.limits == ""
    assert np.array_equal(faces(opened.generator), faces(network))


def test_damaged_and_missing_files_of_a_version_are_told_without_a_path(
    champions: Champions, temporary: Path
) -> None:
    version = champions.register(generator(4))
    files = champions.files(version) / "artifacts"
    weights = files / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    reported = refusal(RegistryError, champions, f"models:/{NAME}/{version}")
    start = f"avatar-generator version {version} cannot be opened: "
    assert reported.startswith(f"{start}generator.safetensors is no whole safetensors file")
    (files / "spec.json").write_text('{"family": "none"}')
    assert "resolution_px is missing" in refusal(
        RegistryError, champions, f"models:/{NAME}/{version}"
    )
    (files / "spec.json").unlink()
    reported = refusal(RegistryError, champions, f"models:/{NAME}/{version}")
    assert reported == f"{start}artifacts is no whole model: spec.json is missing"
    shutil.rmtree(files.parent)
    reported = refusal(RegistryError, champions, f"models:/{NAME}/{version}")
    assert reported.startswith(
        f"The files of avatar-generator version {version} could not be fetched"
    )
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "error", "reported"),
    [
        (f"models:/{NAME}/77", RegistryError, "There is no version 77 of avatar-generator in"),
        (f"models:/{NAME}@best", RegistryError, "There is no best yet: no version of avatar-gen"),
        ("models:/other@champion", RegistryError, "There is no champion yet: no version of other"),
        (f"runs:/{'0' * 32}/generator", RegistryError, "is not in the registry"),
        (f"models:/m-{'0' * 32}", RegistryError, "is not in the registry"),
        (f"models:/{NAME}", UsageError, "is no model URI; models:/NAME@ALIAS"),
        (f"models:/{NAME}/Production", UsageError, "is no model URI"),
        ("models:/a/../../b", UsageError, "is no model URI"),
        ("file:///etc", UsageError, "is no model URI"),
    ],
)
def test_what_the_registry_does_not_have_is_told(
    champions: Champions, uri: str, error: type[OmokageError], reported: str
) -> None:
    assert reported in refusal(error, champions, uri)


def test_a_registry_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"There is no champion yet: .* `make demo` makes"):
        open_registered("models:/a@champion", tracking_uri=f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []
