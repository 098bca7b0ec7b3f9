"""Champion: the generator as a version of the registered model, and the champion's alias."""

import functools
import io
from typing import Any

import dagster as dg
from PIL import Image

from assets.evaluation import evaluate, evaluation_of_run
from assets.reporting import OWNERS, Stopwatch, inline, plain_failures, tags_of
from assets.resources import ChildProcess, StoreResource, TrackingResource
from models.registry.client import TrackingClient
from models.registry.gate import OLD_METRIC
from models.registry.pages import SHEET, generator_sheet
from models.registry.promotion import CHAMPION, Outcome, evidence_of, lock_folder, promote
from models.registry.versions import Measuring, Terms, VersionEntry, register_version


@dg.asset(
    deps=["generator", "evaluation"],
    group_name="registry",
    kinds={"mlflow"},
    owners=OWNERS,
    tags=tags_of("registry", needs="cpu"),
)
def champion(
    context: dg.AssetExecutionContext,
    store: StoreResource,
    child: ChildProcess,
    tracking: TrackingResource,
) -> dg.MaterializeResult:
    """The best generator: `models:/avatar-generator@champion` in MLflow's registry.

    **From** the `generator` and its `evaluation`: every generator becomes a version. The alias
    moves only if its kernel distance beats the champion's on the same manifest by the same protocol
    by more than the noise, and labels, recall, spread and memorisation are no worse than the best
    of all champions there; a champion of other terms is measured again for that. Materialised again
    for the same generator, the decision stands.

    **Lies in** MLflow's registry; `champion.png` shows the champion's characters.

    **If it is wrong:** `reason` below says why the alias moved or not. The job `rollback` gives it
    back to the version before, `promote` with `force` and a reason makes any version champion.
    """
    watch = Stopwatch()
    opened, registry = store.open(), tracking.open()
    with plain_failures():
        current, measured = evaluation_of_run(context.instance, context.run, opened)
        entry = VersionEntry.of(opened, current, measured)
        version, is_new = register_version(opened, registry, entry, dagster_run=context.run.run_id)
        number = str(version.version)
        measuring = Measuring(
            functools.partial(evaluate, context, child), opened, registry, Terms.of(measured)
        )
        outcome = promote(
            registry,
            lock_folder(opened),
            number,
            measure=lambda one: measured if str(one.version) == number else measuring(one),
            settled_on=evidence_of(measured),
        )
        sheet = generator_sheet(opened, registry, current, is_new=is_new)
        if outcome.champion == number:
            opened.write_bytes(SHEET, sheet)
    context.log.info(outcome.reason)
    names: tuple[Any, ...] = (measured.get("metric", OLD_METRIC), measured.get("kernel_metric"))
    return dg.MaterializeResult(
        metadata={
            "model": f"models:/{registry.model}@{CHAMPION}",
            "version": int(number),
            "reason": outcome.reason,
            "reused": not is_new,
            "seconds": watch.seconds,
            **{name: measured[name] for name in names if measured.get(name) is not None},
            "manifest": measured["manifest_digest"],
            "mlflow_run": current["mlflow_run"],
            "digest": current["id"],
            "preview": inline(Image.open(io.BytesIO(sheet))),
            **_standing(registry, outcome),
            "mlflow_run_page": dg.MetadataValue.url(registry.run_url(current["mlflow_run"])),
            "version_page": dg.MetadataValue.url(registry.version_url(number)),
        },
        data_version=dg.DataVersion(f"{current['id']}-{number}"),
    )


def _standing(registry: TrackingClient, outcome: Outcome) -> dict[str, Any]:
    """Returns who is champion now, and whether that came about just now."""
    found: dict[str, Any] = {"promoted": outcome.moved}
    if outcome.champion:
        found["champion_version"] = int(outcome.champion)
        found["champion_page"] = dg.MetadataValue.url(registry.version_url(outcome.champion))
    return found
