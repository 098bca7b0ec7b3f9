"""Registry: the generator as a version of the registered model, and the champion's alias."""

import io
from typing import TYPE_CHECKING, Any

import dagster as dg
from PIL import Image

from assets.evaluation import METRIC, evaluate
from assets.faults import plain_failures
from assets.generator import CURRENT
from assets.previews import inline
from assets.resources import ChildProcess, StoreResource, TrackingResource
from assets.stopwatch import Stopwatch
from assets.tables import OWNERS
from dataset.errors import EmptyStageError, RegistryError
from dataset.labels import appearance
from dataset.store import Store
from models.promotion import Decision, Measured, decide

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
SHEET = "champion.png"  # at the home's top, for people
LABELS_SHEET = "labels.png"
SHEET_COLUMNS = 10
SHEET_ROWS = 10
SHEET_PSI = 0.75  # for people: a little less variety, cleaner faces
HAIR_COLOUR = "hair_colour"


@dg.asset(deps=["generator", "evaluation"], group_name="registry", kinds={"mlflow"}, owners=OWNERS)
def champion(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    child: ChildProcess,
    tracking: TrackingResource,
) -> dg.MaterializeResult:
    """The best generator: `models:/avatar-generator@champion` in MLflow's registry.

    Every generator becomes a version. The alias moves only if its distance beats the champion's on
    the same manifest by the same protocol; an older champion is measured again for that.
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
        version, is_new = _registered(context, opened, tracking, current=current, measured=measured)
        candidate = _measured(str(version.version), measured)
        holder = tracking.holder(CHAMPION)
        incumbent = None
        if holder is not None:
            incumbent = _incumbent(context, store, child, holder=holder, measured=measured)
        decision = decide(candidate, incumbent)
        champion_version = version.version if decision.moves or holder is None else holder.version
        _carry_out(tracking, version=version, holder=holder, decision=decision)
        sheet = _sheet(opened, current)
        opened.write_bytes(f"{current['folder']}/{LABELS_SHEET}", sheet)
        if champion_version == version.version:
            opened.write_bytes(SHEET, sheet)
        tracking.log_picture(current["mlflow_run"], LABELS_SHEET, sheet)
    context.log.info(decision.reason)
    return dg.MaterializeResult(
        metadata={
            "model": f"models:/{tracking.model}@{CHAMPION}",
            "version": int(version.version),
            "champion_version": int(champion_version),
            "promoted": decision.moves,
            "reason": decision.reason,
            "reused": not is_new,
            "seconds": watch.seconds,
            METRIC: candidate.distance,
            "manifest": candidate.manifest,
            "mlflow_run": current["mlflow_run"],
            "digest": current["id"],
            "preview": inline(Image.open(io.BytesIO(sheet))),
        },
        data_version=dg.DataVersion(f"{current['id']}-{version.version}"),
    )


def _registered(
    context: dg.AssetExecutionContext,
    store: Store,
    tracking: TrackingResource,
    *,
    current: dict[str, Any],
    measured: dict[str, Any],
) -> tuple["ModelVersion", bool]:
    """Returns the version of this generator, and whether it was registered just now."""
    known = tracking.versions({"omokage.generator": current["id"]})
    if known:
        return known[0], False
    from models.registered.log import log_generator  # imports torch

    folder = store.url(current["folder"] + "/generator")
    tracking.client()  # sets the address that MLflow's own functions use
    uri = log_generator(folder, run_id=current["mlflow_run"])
    tags = {
        "omokage.generator": current["id"],
        "omokage.folder": current["folder"],
        "omokage.manifest": current["manifest"],
        "omokage.protocol": measured["protocol_digest"],
        f"omokage.{METRIC}": f"{measured[METRIC]:.4f}",
        "omokage.dagster_run": context.run.run_id,
    }
    return tracking.register(uri, run_id=current["mlflow_run"], tags=tags), True


def _incumbent(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    child: ChildProcess,
    *,
    holder: "ModelVersion",
    measured: dict[str, Any],
) -> Measured:
    """Measures the champion by the candidate's protocol on its manifest, or finds that number."""
    folder = holder.tags.get("omokage.folder", "")
    if not folder or not store.open().exists(folder):
        raise RegistryError(
            f"champion version {holder.version} cannot be measured again: its folder "
            f"{folder or '(no tag omokage.folder)'} is not under {store.root}. Put it back, or "
            f"take the alias {CHAMPION} away in MLflow to let the next generator have it."
        )
    again = evaluate(
        context,
        child,
        home=store.root,
        generator=folder,
        manifest=measured["manifest_digest"],
        fakes=measured["fakes"],
    )
    return _measured(str(holder.version), again)


def _measured(version: str, evaluation: dict[str, Any]) -> Measured:
    return Measured(
        version=version,
        distance=evaluation[METRIC],
        sigma=evaluation["sigma"],
        manifest=evaluation["manifest_digest"],
        protocol=evaluation["protocol_digest"],
    )


def _carry_out(
    tracking: TrackingResource,
    *,
    version: "ModelVersion",
    holder: "ModelVersion | None",
    decision: Decision,
) -> None:
    """Tags the version with the decision and moves the aliases; twice changes nothing."""
    if holder is not None and holder.version == version.version:
        return  # it was decided before, and why stands on the version
    tracking.tag_version(version.version, {"omokage.decision": decision.reason})
    if decision.moves:
        if holder is not None:
            tracking.set_alias(PREVIOUS, holder.version)
        tracking.set_alias(CHAMPION, version.version)
    else:
        tracking.set_alias(CHALLENGER, version.version)


def _sheet(store: Store, current: dict[str, Any]) -> bytes:
    """Draws the same characters with one hair colour after the other; returns the PNG's bytes.

    Without hair colours it is the first labels; without labels, characters as they come.
    """
    from models.generators import load_generator, typical_rows  # these import torch
    from models.sampling import draw, grid
    from models.tables import swap_table

    folder = store.url(f"{current['folder']}/generator")
    network = load_generator(folder)
    # A family may know a part of the manifest's labels, in an order of its own, or none of them.
    known = network.spec.labels
    rows = typical_rows(folder, known)
    hair = [name for name in known if appearance().groups.get(name) == HAIR_COLOUR]
    if known:
        swapped, seeds = hair or known[:SHEET_ROWS], range(SHEET_COLUMNS)
        sheet = swap_table(network, rows, swapped, seeds=seeds, psi=SHEET_PSI)
    else:
        seeds = range(SHEET_COLUMNS * SHEET_ROWS)
        pictures = draw(network, rows[:1].repeat(len(seeds), axis=0), seeds, psi=SHEET_PSI)
        sheet = grid(pictures, SHEET_COLUMNS)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
