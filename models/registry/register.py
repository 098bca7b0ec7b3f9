"""Registers a generator as a version of the registered model, with its tags and description."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset.store import Store
from models.registry.client import TrackingClient
from models.registry.evaluations import PROTOCOL, WEIGHTS
from models.registry.gate import MeasuredVersion
from models.registry.load import FOLDER
from models.registry.model_page import METRIC, NUMBERS, Links, model_page, version_page

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

GENERATOR = "omokage.generator"
DAGSTER_RUN = "omokage.dagster_run"


@dataclass(frozen=True)
class VersionEntry:
    """What the registry says of a generator: what it is, what it was measured at, what made it."""

    current: Mapping[str, Any]
    measured: Mapping[str, Any]
    facts: Mapping[str, Any]  # of its train.json, with side_px and labels

    @classmethod
    def of(
        cls, store: Store, current: Mapping[str, Any], measured: Mapping[str, Any]
    ) -> "VersionEntry":
        """Reads the facts beside the weights."""
        folder = f"{current['folder']}/generator"
        spec = store.read_json(f"{folder}/spec.json")
        side = {"side_px": spec["resolution_px"], "labels": spec["labels"]}
        return cls(current, measured, store.read_json(f"{folder}/train.json") | side)

    @property
    def tags(self) -> dict[str, str]:
        """The version's tags; a number that was not measured has none."""
        metric = MeasuredVersion.of("", self.measured).metric
        numbers = {name: self.measured.get(name) for name in (metric, *NUMBERS)}
        texts = {
            GENERATOR: self.current["id"],
            WEIGHTS: self.measured["generator_sha256"],
            FOLDER: self.current["folder"],
            "omokage.family": self.facts["family"],
            "omokage.config": self.measured["config_digest"],
            "omokage.manifest": self.current["manifest"],
            "omokage.measured_on": self.measured["manifest_digest"],
            PROTOCOL: self.measured["protocol_digest"],
            "omokage.commit": self.facts.get("commit", ""),
            METRIC: metric,
        }
        found = {f"omokage.{name}": f"{n:.4f}" for name, n in numbers.items() if n is not None}
        return {name: text for name, text in texts.items() if text} | found

    def page(self, tracking: TrackingClient, dagster_run: str) -> str:
        """The version's description; dagster_run: the run that registered it, "" if unknown."""
        run_page = f"{tracking.dagster_url}/runs/{dagster_run}" if dagster_run else ""
        links = Links(
            dagster_run=run_page,
            asset=f"{tracking.dagster_url}/assets/champion",
            mlflow_run=tracking.run_url(self.current["mlflow_run"]),
        )
        return version_page(tracking.model, facts=self.facts, evaluation=self.measured, links=links)


def register_version(
    store: Store, tracking: TrackingClient, entry: VersionEntry, *, dagster_run: str
) -> tuple["ModelVersion", bool]:
    """Returns the version of this generator, and whether it was registered just now.

    A version that is there already gets the tags and the description of today. dagster_run: id of
    the run that registers it.
    """
    tracking.describe(model_page(tracking.model))
    known = [
        version
        for version in tracking.versions({GENERATOR: entry.current["id"]})
        # The same training, gone on for longer, is another generator.
        if version.tags.get(WEIGHTS, entry.tags[WEIGHTS]) == entry.tags[WEIGHTS]
    ]
    if known:
        tracking.tag_version(known[0], entry.tags)
        made_by = known[0].tags.get(DAGSTER_RUN, "")
        tracking.describe_version(known[0], entry.page(tracking, made_by))
        return known[0], False
    from models.registry.export import log_generator  # imports torch

    tracking.client()  # sets the address that MLflow's own functions use
    run_id = entry.current["mlflow_run"]
    uri = log_generator(store.url(f"{entry.current['folder']}/generator"), run_id=run_id)
    made = tracking.register(
        uri,
        run_id=run_id,
        tags=entry.tags | {DAGSTER_RUN: dagster_run},
        description=entry.page(tracking, dagster_run),
        model_page=model_page(tracking.model),
    )
    return made, True
