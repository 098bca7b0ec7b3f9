"""A generator becomes one version with all that a stranger asks; a second time, nothing changes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import pytest

from assets.champion import champion
from assets.resources import ChildProcess, StoreResource, TrackingResource
from dataset.errors import RegistryError
from dataset.store import Store
from models.registry.client import TrackingClient
from models.registry.pages import champion_sheet, swap_sheet
from models.registry.promotion import CHAMPION, TAKEDOWN, rollback, wanted_version
from tests.models.small_generators import NAMES, small_generator, write_generator

FACTS = {"family": "dcgan64", "commit": "abc1234", "pictures": 1234, "images_seen": 40_000}
MEASURED = {
    "generator_sha256": "a" * 64,
    "config_digest": "c" * 64,
    "manifest_digest": "m" * 64,
    "protocol_digest": "p" * 64,
    "protocol": {"extractor": "inception", "fakes": 64, "repeats": 2},
    "metric": "fid",
    "fid": 42.5,
    "sigma": 0.5,
    "kernel_metric": "kid",
    "kid": 0.04321,
    "kid_se": 0.00123,
    "resolution_px": 64,
    "repeats": 2,
    "real_fd": 3.0,
    "label_ap": 0.61,
    "label_ap_sigma": 0.01,
    "recall": 0.4,
    "recall_sigma": 0.01,
    "coverage": 0.6,
    "spread": 0.95,
    "spread_sigma": 0.01,
    "spread_within_labels": 0.9,
    "memory_ratio": 1.1,
    "copied_frac": 0.0,
    "fakes": 64,
    "reference_rows": 24,
}


class Shop:
    """A home with one judged generator, and the asset that registers it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tracking = TrackingClient(
            uri=f"sqlite:///{home}/mlflow.db",
            artifacts=(home / "artifacts").as_uri(),
            dagster_url="http://dagster.example",
            mlflow_url="http://mlflow.example",
        )
        self.run_id = self.tracking.run_for("one", name="one", tags={})
        self.tracking.log_evaluation(self.run_id, MEASURED, step=40_000)
        write_generator(home / "generators/one/generator", small_generator("dcgan64"))
        store = Store(home)
        store.write_json("generators/one/generator/train.json", FACTS)
        store.write_json("generators/one/evaluation/m-p/evaluation.json", MEASURED)
        self.current = {
            "folder": "generators/one",
            "id": "one",
            "images_seen": 40_000,
            "manifest": "m" * 64,
            "mlflow_run": self.run_id,
            "evaluation": "generators/one/evaluation/m-p/evaluation.json",
        }
        store.write_json("generators/current.json", self.current)

    def materialise(self) -> tuple[str, dict[str, Any]]:
        result = dg.materialize(
            [champion],
            resources={
                "store": StoreResource(root=str(self.home)),
                "child": ChildProcess(),
                "tracking": TrackingResource(**dataclasses.asdict(self.tracking)),
            },
        )
        (event,) = result.asset_materializations_for_node("champion")
        return result.run_id, {name: value.value for name, value in event.metadata.items()}

    def everything(self) -> Any:
        model = self.tracking.registered()
        assert model is not None
        versions = [(v.version, v.tags, v.description) for v in self.tracking.versions({})]
        return model.aliases, model.tags, model.description, versions


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


def test_a_generator_becomes_a_version_that_explains_itself(tmp_path: Path) -> None:
    shop = Shop(tmp_path)  # without any version yet
    dagster_run, made = shop.materialise()
    assert (made["version"], made["champion_version"], made["promoted"]) == (1, 1, True)
    run_id = shop.run_id
    experiment = shop.tracking.experiment_id()
    run_page = f"http://mlflow.example/#/experiments/{experiment}/runs/{run_id}"
    assert made["mlflow_run_page"] == run_page
    assert made["version_page"] == "http://mlflow.example/#/models/avatar-generator/versions/1"
    assert (shop.home / "champion.png").exists()

    version = shop.tracking.holder(CHAMPION)
    assert version is not None
    assert {name.removeprefix("omokage."): text for name, text in version.tags.items()} == {
        "generator": "one",
        "weights": "a" * 64,
        "folder": "generators/one",
        "family": "dcgan64",
        "config": "c" * 64,
        "manifest": "m" * 64,
        "measured_on": "m" * 64,
        "protocol": "p" * 64,
        "commit": "abc1234",
        "dagster_run": dagster_run,
        "metric": "fid",
        "fid": "42.5000",
        "resolution_px": "64",
        "label_ap": "0.6100",
        "recall": "0.4000",
        "coverage": "0.6000",
        "spread": "0.9500",
        "spread_within_labels": "0.9000",
        "memory_ratio": "1.1000",
        "decision": "version 1 is the first: there was no champion",
        "decided_by": "gate",
        "decided_on": f"{'m' * 12}-{'p' * 12}",
    }
    page = version.description or ""
    for words in (
        "64 x 64 pixels",
        "3 labels",
        "1,234 faces",
        "42.50 ± 0.50",
        "0.04321 ± 0.0012",
        "0.610",
        "load_model",
    ):
        assert words in page, words
    for link in (f"http://dagster.example/runs/{dagster_run}", "/assets/champion", run_page):
        assert f"({link}" in page or f"{link})" in page, link
    model = shop.tracking.registered()
    assert model is not None
    assert "omokage rollback" in model.description
    names = [file.path for file in shop.tracking.client().list_artifacts(run_id)]
    assert "labels.png" in names

    (logged,) = shop.tracking.client().search_logged_models([experiment])
    numbers = {one.key: (one.value, one.step) for one in logged.metrics or []}
    assert numbers["eval/fid"] == (42.5, 40_000)
    assert numbers["eval/spread"] == (0.95, 40_000)
    history = shop.tracking.client().get_metric_history(run_id, "eval/fid")
    assert [(one.value, one.step) for one in history] == [(42.5, 40_000)]  # once, not twice

    signature = mlflow.models.get_model_info(f"models:/{shop.tracking.model}/1").signature
    params = {one["name"]: one["type"] for one in json.loads(signature.to_dict()["params"])}
    assert params == {"seed": "long", "psi": "double", "n": "long", "labels": "string"}


@pytest.mark.ci
def test_another_home_draws_a_version_as_the_registry_keeps_it(shop: Shop, tmp_path: Path) -> None:
    shop.materialise()
    version = wanted_version(shop.tracking, "1")
    here = swap_sheet(str(shop.home / "generators/one/generator"))
    assert champion_sheet(Store(tmp_path), shop.tracking, version) == here
    assert (tmp_path / "champion.png").read_bytes() == here


@pytest.mark.ci
def test_materialised_again_nothing_changes_even_after_a_rollback(tmp_path: Path) -> None:
    shop = Shop(tmp_path)  # without any version yet
    shop.materialise()
    before = shop.everything()
    _, again = shop.materialise()
    assert (again["reused"], again["promoted"], again["champion_version"]) == (True, False, 1)
    assert shop.everything() == before

    shop.tracking.register(  # an older champion, to which a person goes back
        "file:///model", run_id=shop.run_id, tags={}, description="", model_page=""
    )
    shop.tracking.set_alias("previous", "2")
    assert rollback(shop.tracking, shop.home, reason="green skin").champion == "2"
    before = shop.everything()
    _, again = shop.materialise()
    assert (again["promoted"], again["champion_version"]) == (False, 2)
    assert again["reason"] == "version 1 is the first: there was no champion"
    assert shop.everything() == before


@pytest.mark.ci
def test_an_evaluation_of_an_older_protocol_is_not_decided_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(MEASURED, "kid_se")
    with pytest.raises(dg.Failure, match=r"evaluated by an older protocol.*materialise evaluation"):
        Shop(tmp_path).materialise()


def test_a_description_that_was_changed_is_set_right(shop: Shop) -> None:
    shop.materialise()
    shop.tracking.client().update_registered_model(shop.tracking.model, "something")
    shop.materialise()
    model = shop.tracking.registered()
    assert model is not None
    assert f"`{NAMES[0]}" in model.description


def test_a_version_that_is_none_is_not_found(shop: Shop) -> None:
    assert shop.tracking.version("77") is None
    assert shop.tracking.version("first") is None
    with pytest.raises(RegistryError, match="did not answer"):
        shop.tracking.drop_alias("no alias has spaces")


@pytest.mark.ci
def test_a_version_registered_after_a_takedown_bears_its_mark_and_is_no_champion(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path)
    row = {"face_id": "0-0", "board": "demo", "post_id": 5, "sha256": "0"}
    store = Store(tmp_path)
    store.write_json(f"manifest/{'m' * 64}/takedown.json", {"removed": [row]})
    for _ in range(2):  # registered, and found again
        _, metadata = shop.materialise()
        version = wanted_version(shop.tracking, str(metadata["version"]))
        assert version.tags[TAKEDOWN] == "demo/5"
        assert (version.description or "").startswith("> **Taken down:** ")
        assert "learnt from pictures that were taken down (demo/5)" in metadata["reason"]
    assert shop.tracking.holder(CHAMPION) is None
