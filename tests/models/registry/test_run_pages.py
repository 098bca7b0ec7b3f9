"""A training's MLflow page names its training set once, and says what it is in Markdown."""

import dataclasses
import json
from pathlib import Path

import pytest

from dataset.errors import RegistryError
from dataset.manifest import Manifest, load_manifest
from dataset.store import Store
from models.presets import preset
from models.registry.client import TrackingClient
from models.registry.pages import CURVES, NOTE, describe, run_url, training_note
from tests.models.homes import LABELS, write_manifest

FEATURES = ("energy_distance", "pair_score")  # of a D on frozen features alone


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pages")
    write_manifest(root)
    return root


@pytest.fixture(scope="module")
def tracking(home: Path) -> TrackingClient:
    return TrackingClient(
        uri=f"sqlite:///{home / 'mlflow.db'}",
        artifacts=(home / "artifacts").as_uri(),
        dagster_url="http://dagster.test",
        mlflow_url="http://mlflow.test",
    )


@pytest.fixture(scope="module")
def manifest(home: Path) -> Manifest:
    return load_manifest(Store(home), None)


def note_of(tracking: TrackingClient, manifest: Manifest, name: str) -> str:
    return training_note(
        tracking,
        manifest,
        dataclasses.asdict(preset(name, [])),
        folder="generators/x",
        reason="from scratch",
        dagster_run="0123456789abcdef",
    )


@pytest.mark.ci
def test_the_training_set_is_the_runs_dataset_once_however_often_it_resumes(
    tracking: TrackingClient, home: Path, manifest: Manifest
) -> None:
    run_id = tracking.run_for("key", name="one", tags={})
    for note in ("first", "second"):
        describe(tracking, run_id, store=Store(home), manifest=manifest, note=note)
    run = tracking.client().get_run(run_id)
    assert run.inputs is not None
    (found,) = run.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training"}
    assert (found.dataset.name, found.dataset.digest) == ("manifest", manifest.digest[:36])
    assert json.loads(found.dataset.source) == {"uri": Store(home).url(manifest.folder)}
    columns = json.loads(found.dataset.schema or "")["mlflow_colspec"]
    assert {"type": "boolean", "name": LABELS[0], "required": True} in columns
    profile = json.loads(found.dataset.profile or "")
    assert (profile["train_rows"], profile["eval_rows"]) == (40, 24)
    assert run.data.tags[NOTE] == "second"


def test_a_note_that_a_person_wrote_onto_the_experiment_stays(
    tracking: TrackingClient, home: Path, manifest: Manifest
) -> None:
    run_id, client = tracking.run_for("key", name="one", tags={}), tracking.client()
    describe(tracking, run_id, store=Store(home), manifest=manifest, note="n")
    experiment = tracking.experiment_id()
    assert "`@champion`" in client.get_experiment(experiment).tags[NOTE]
    client.set_experiment_tag(experiment, NOTE, "mine")
    describe(tracking, run_id, store=Store(home), manifest=manifest, note="n")
    assert client.get_experiment(experiment).tags[NOTE] == "mine"


def test_the_note_says_what_was_made_from_what_and_links_to_dagster(
    tracking: TrackingClient, manifest: Manifest
) -> None:
    note = note_of(tracking, manifest, "dcgan64")
    assert "**dcgan64** generator of 64 px faces, trained from scratch" in note
    assert f"40 faces with {len(LABELS)} labels (manifest `{manifest.digest[:12]}`)" in note
    assert "[01234567](http://dagster.test/runs/0123456789abcdef)" in note


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("dcgan64", {"r2_penalty", "path_penalty", "slope_penalty", *FEATURES}),
        ("srresnet", {"r1_penalty", "r2_penalty", "path_penalty", *FEATURES}),
        ("stylegan2", {"r2_penalty", "slope_penalty", *FEATURES}),
        ("omokage", {"r1_penalty", "r2_penalty", "path_penalty", "slope_penalty"}),
    ],
)
def test_only_curves_that_there_are_get_explained(
    tracking: TrackingClient, manifest: Manifest, name: str, absent: set[str]
) -> None:
    note = note_of(tracking, manifest, name)
    assert {curve for curve in CURVES if f"`train/{curve}`" not in note} == absent


def test_a_runs_address_is_the_one_of_its_page(tracking: TrackingClient) -> None:
    run_id = tracking.run_for("key", name="one", tags={})
    expected = f"http://mlflow.test/#/experiments/{tracking.experiment_id()}/runs/{run_id}"
    assert run_url(tracking, run_id) == f"{expected}?workflowType=machine_learning"


def test_an_unknown_run_is_refused_with_the_servers_address(
    tracking: TrackingClient, home: Path, manifest: Manifest
) -> None:
    with pytest.raises(RegistryError, match=r"sqlite:///.* description of run nothere"):
        describe(tracking, "nothere", store=Store(home), manifest=manifest, note="n")
