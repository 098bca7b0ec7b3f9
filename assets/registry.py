"""Registry: the generator as a version of the registered model, and the champion's alias."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from PIL import Image

from assets.faults import plain_failures
from assets.generator import CURRENT
from assets.measuring import PROTOCOL, WEIGHTS, Measuring, Terms
from assets.model_page import METRIC, NUMBERS, Links, model_page, version_page
from assets.previews import inline
from assets.promotion import (
    CHAMPION,
    Outcome,
    evidence_of,
    lock_folder,
    promote,
)
from assets.resources import ChildProcess, StoreResource, TrackingResource
from assets.sheets import LABELS_SHEET, SHEET, swap_sheet
from assets.stopwatch import Stopwatch
from assets.tables import OWNERS
from assets.version_files import FOLDER
from dataset.errors import EmptyStageError
from dataset.store import Store
from models.promotion import Measured

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

GENERATOR = "omokage.generator"
DAGSTER_RUN = "omokage.dagster_run"


@dg.asset(deps=["generator", "evaluation"], group_name="registry", kinds={"mlflow"}, owners=OWNERS)
def champion(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    child: ChildProcess,
    tracking: TrackingResource,
) -> dg.MaterializeResult:
    """The best generator: `models:/avatar-generator@champion` in MLflow's registry.

    Every generator becomes a version. The alias moves only if its distance beats the champion's on
    the same manifest by the same protocol, and labels, recall and memorisation are no worse; an
    older champion is measured again for that. Asked again about the same generator, what was
    decided stands.
    """
    watch = Stopwatch()
    opened = store.open()
    with plain_failures():
        current = opened.read_json(CURRENT)
        if "evaluation" not in current:
            raise EmptyStageError(
                f"generator {current['id']} has not been judged; materialise evaluation first"
            )
        measured = opened.read_json(current["evaluation"])
        entry = _Entry.of(opened, current, measured)
        version, is_new = _registered(context, opened, tracking, entry)
        number = str(version.version)
        measuring = Measuring(context, child, opened, tracking, Terms.of(measured))
        outcome = promote(
            tracking,
            lock_folder(opened),
            number,
            measure=lambda one: measured if str(one.version) == number else measuring(one),
            settled_on=evidence_of(measured),
        )
        sheet = _sheet(opened, tracking, current, is_new=is_new)
        if outcome.champion == number:
            opened.write_bytes(SHEET, sheet)
    context.log.info(outcome.reason)
    candidate = Measured.of(number, measured)
    return dg.MaterializeResult(
        metadata={
            "model": f"models:/{tracking.model}@{CHAMPION}",
            "version": int(number),
            "reason": outcome.reason,
            "reused": not is_new,
            "seconds": watch.seconds,
            candidate.metric: candidate.distance,
            "manifest": candidate.manifest,
            "mlflow_run": current["mlflow_run"],
            "digest": current["id"],
            "preview": inline(Image.open(io.BytesIO(sheet))),
            **_standing(tracking, outcome),
            "mlflow_run_page": dg.MetadataValue.url(tracking.run_url(current["mlflow_run"])),
            "version_page": dg.MetadataValue.url(tracking.version_url(number)),
        },
        data_version=dg.DataVersion(f"{current['id']}-{number}"),
    )


def _standing(tracking: TrackingResource, outcome: Outcome) -> dict[str, Any]:
    """Returns who is champion now, and whether that came about just now."""
    found: dict[str, Any] = {"promoted": outcome.moved}
    if outcome.champion:
        found["champion_version"] = int(outcome.champion)
        found["champion_page"] = dg.MetadataValue.url(tracking.version_url(outcome.champion))
    return found


@dataclass(frozen=True)
class _Entry:
    """What the registry says of a generator: what it is, what it was measured at, what made it."""

    current: Mapping[str, Any]
    measured: Mapping[str, Any]
    facts: Mapping[str, Any]  # of its train.json, with side_px and labels

    @classmethod
    def of(cls, store: Store, current: Mapping[str, Any], measured: Mapping[str, Any]) -> "_Entry":
        """Reads the facts beside the weights."""
        folder = f"{current['folder']}/generator"
        spec = store.read_json(f"{folder}/spec.json")
        side = {"side_px": spec["resolution_px"], "labels": spec["labels"]}
        return cls(current, measured, store.read_json(f"{folder}/train.json") | side)

    @property
    def tags(self) -> dict[str, str]:
        """The version's tags; a number that was not measured has none."""
        metric = Measured.of("", self.measured).metric
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

    def page(self, tracking: TrackingResource, dagster_run: str) -> str:
        """The version's description; dagster_run: the run that registered it, "" if unknown."""
        run_page = f"{tracking.dagster_url}/runs/{dagster_run}" if dagster_run else ""
        links = Links(
            dagster_run=run_page,
            asset=f"{tracking.dagster_url}/assets/champion",
            mlflow_run=tracking.run_url(self.current["mlflow_run"]),
        )
        return version_page(tracking.model, facts=self.facts, evaluation=self.measured, links=links)


def _registered(
    context: dg.AssetExecutionContext, store: Store, tracking: TrackingResource, entry: _Entry
) -> tuple["ModelVersion", bool]:
    """Returns the version of this generator, and whether it was registered just now."""
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
    from models.registered.log import log_generator  # imports torch

    tracking.client()  # sets the address that MLflow's own functions use
    run_id = entry.current["mlflow_run"]
    uri = log_generator(store.url(f"{entry.current['folder']}/generator"), run_id=run_id)
    made = tracking.register(
        uri,
        run_id=run_id,
        tags=entry.tags | {DAGSTER_RUN: context.run.run_id},
        description=entry.page(tracking, context.run.run_id),
        model_page=model_page(tracking.model),
    )
    return made, True


def _sheet(
    store: Store, tracking: TrackingResource, current: Mapping[str, Any], *, is_new: bool
) -> bytes:
    """Returns the generator's sheet, drawn and logged once."""
    path = f"{current['folder']}/{LABELS_SHEET}"
    if not is_new and store.exists(path):
        return store.read_bytes(path)
    sheet = swap_sheet(store.url(f"{current['folder']}/generator"))
    tracking.log_picture(current["mlflow_run"], LABELS_SHEET, sheet)
    store.write_bytes(path, sheet)  # last: where it stands, it is logged too
    return sheet
