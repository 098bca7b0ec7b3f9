"""Comparison: entrants trained and measured alike on one manifest, and the report of them.

The key `comparison` has no way to be materialised by itself: the job `compare` reports to it, so
that "Materialize all" never starts hours of training.
"""

import io
import json
from typing import TYPE_CHECKING, Any

import dagster as dg
from PIL import Image

from assets.evaluation import evaluate
from assets.reporting import OWNERS, inline, plain_failures, tags_of
from assets.resources import INTERRUPTS, ChildProcess, StoreResource
from dataset.errors import ConfigError, TrainingError
from dataset.manifest import load_manifest, read_split
from dataset.store import Store
from models.registry.client import TrackingClient

if TYPE_CHECKING:
    from models.comparison.plan import Plan
    from models.labels import Rows

COMPARISON = dg.AssetKey("comparison")
FOLDER = "comparisons"
PLAN, RESULTS, REPORT = "plan.json", "results.json", "report.md"
PARENT = "mlflow.parentRunId"  # MLflow shows a run with this tag below the one that it names
NOTE = "mlflow.note.content"  # and this one as the run's description
LABELS_SHEET = "labels.png"
SIGNALLED = 128  # exit codes from here on are of a child that a signal stopped
PROTOCOL = ("fakes", "repeats", "extractor", "psi")  # the rest of it has its defaults
LASTING = (ConfigError.exit_code, TrainingError.exit_code)  # the same settings would end so again

comparison = dg.AssetSpec(
    COMPARISON,
    deps=["manifest"],
    group_name="comparison",
    kinds={"pytorch", "mlflow"},
    owners=OWNERS,
    tags=tags_of("evaluation", needs="gpu"),
    description="Families and settings, trained at equal time or on equally many pictures of one "
    "manifest, and measured alike.\n\n"
    "**From** the `manifest`, by the job `compare` (*Jobs*, *compare*, *Launchpad*): an asset "
    "without *Materialize*, so that *Materialize all* never starts hours of training.\n\n"
    "**Lies in** `comparisons/<id>/`: `report.md`, `results.json`, and a folder per entrant.\n\n"
    "**If it is wrong:** an entrant that failed is a row of the report with its error. Launch the "
    "job again: what is done is not done twice; `measure_again` measures and tries anew.",
)


def prepared(
    store: Store,
    tracking: TrackingClient,
    plan: "Plan",
    *,
    manifest: str,
    facts: dict[str, Any],
    dagster_run: str,
) -> str:
    """Writes the plan of a comparison, finds its MLflow run, and returns its folder.

    manifest: a digest, "" for the newest. facts: what else the plan is to say (fakes, repeats,
    extractor, psi, measure_again, sets, seed).
    Raises ConfigError if the manifest's labels do not suit an entrant.
    """
    from models.comparison.plan import comparison_id

    found = load_manifest(store, manifest or None)
    plan.check_labels(found.labels)
    name = comparison_id(found.digest, plan)
    folder = f"{FOLDER}/{name}"
    about = {
        "id": name,
        "manifest": found.digest,
        "train_rows": found.train_rows,
        "eval_rows": found.eval_rows,
        **facts,
    }
    run_id = tracking.run_for(
        f"comparison-{name}",
        name=f"comparison of {len(plan.entrants)}, {plan.budget}",
        tags={
            "omokage.comparison": name,
            "omokage.manifest": found.digest,
            "omokage.plan": plan.digest,
            "omokage.dagster_run": dagster_run,
        },
    )
    store.write_json(f"{folder}/{PLAN}", {**plan.to_json(), **about, "mlflow_run": run_id})
    return folder


def carried_out(
    context: dg.OpExecutionContext,
    store: StoreResource,
    child: ChildProcess,
    *,
    tracking: TrackingClient,
    folder: str,
    name: str,
) -> dict[str, Any]:
    """Trains and measures one entrant of the comparison in `folder`; returns its outcome.

    What was done before is not done again. An entrant that fails has an outcome that says so, and
    its MLflow run fails; one that a signal stopped raises dagster.Failure, and goes on next time.
    """
    from models.comparison.report import OUTCOME, stands

    opened = store.open()
    plan = opened.read_json(f"{folder}/{PLAN}")
    out = f"{folder}/entrants/{name}"
    path, protocol = f"{out}/{OUTCOME}", {name: plan[name] for name in PROTOCOL}
    if opened.exists(path):
        before: dict[str, Any] = opened.read_json(path)
        if stands(before, **protocol) and not plan["measure_again"]:
            context.log.info(f"{name} is done: {opened.url(path)}")
            return before
    entrant = plan["entrants"][name]
    run_id = tracking.run_for(
        f"comparison-{plan['id']}/{name}",
        name=name,
        tags={
            PARENT: plan["mlflow_run"],
            "omokage.comparison": plan["id"],
            "omokage.entrant": name,
            "omokage.family": entrant["family"],
            "omokage.manifest": plan["manifest"],
            "omokage.config": entrant["config_digest"],
            "omokage.dagster_run": context.run.run_id,
        },
    )
    with tracking.open_run(plan["mlflow_run"], interrupts=INTERRUPTS):
        outcome = _worked(
            context, store, child, tracking=tracking, plan=plan, run_id=run_id, out=out, name=name
        )
    about = {"preset": entrant["preset"], "own": entrant["own"], "asked": protocol}
    outcome |= {"name": name, "family": entrant["family"], "mlflow_run": run_id, **about}
    opened.write_json(path, outcome)
    return outcome


def _worked(
    context: dg.OpExecutionContext,
    store: StoreResource,
    child: ChildProcess,
    *,
    tracking: TrackingClient,
    plan: dict[str, Any],
    run_id: str,
    out: str,
    name: str,
) -> dict[str, Any]:
    """Runs the two children in the entrant's MLflow run; returns the outcome without its name."""
    from models.comparison.report import failed, measured

    opened, trained = store.open(), False
    try:
        with tracking.open_run(run_id, interrupts=INTERRUPTS):
            made = child.run(
                context,
                _training(opened.state.root, plan, out, name),
                environment={
                    "MLFLOW_RUN_ID": run_id,
                    "MLFLOW_TRACKING_URI": tracking.uri,
                    **opened.variables(),
                },
            )
            trained = True
            evaluation = evaluate(
                context,
                child,
                store=opened,
                generator=out,
                manifest=plan["manifest"],
                protocol={name: plan[name] for name in PROTOCOL},
            )
            with plain_failures():
                outcome = measured(opened, out, evaluation)
                tracking.log_evaluation(run_id, evaluation, step=made["images_seen"])
                _log_labels(opened, tracking, plan, run_id, out=out)
            return outcome
    except dg.Failure as failure:
        code = _exit_code(failure)
        if code >= SIGNALLED:
            raise
        words = failure.description or "no message"
        context.log.warning(f"{name} failed, and the others go on: {words}")
        return failed(opened, out, words, lasting=not trained and code in LASTING)


def _training(home: str, plan: dict[str, Any], out: str, name: str) -> list[str]:
    entrant = plan["entrants"][name]
    arguments = ["-m", "models.train", "--home", home, "--manifest", plan["manifest"]]
    arguments += ["--out", out, "--preset", entrant["preset"], "--clock", plan["budget"]["clock"]]
    return arguments + [part for text in entrant["overrides"] for part in ("--set", text)]


def _exit_code(failure: dg.Failure) -> int:
    value = failure.metadata.get("exit_code")
    return int(value.value) if isinstance(value, dg.IntMetadataValue) and value.value else 0


def _log_labels(
    store: Store, tracking: TrackingClient, plan: dict[str, Any], run_id: str, *, out: str
) -> None:
    """Draws one hair colour after the other; into the entrant's folder and its MLflow run."""
    from models.comparison.report import label_table

    labels, rows = _eval_rows(store, plan["manifest"])
    table = label_table(store.url(f"{out}/generator"), rows, labels)
    if table is not None:
        buffer = io.BytesIO()
        table.quantize(160).save(buffer, "PNG", optimize=True)  # a page's picture, below 200 kB
        store.write_bytes(f"{out}/{LABELS_SHEET}", buffer.getvalue(), durable=False)
        tracking.log_picture(run_id, LABELS_SHEET, buffer.getvalue())


def reported(
    context: dg.OpExecutionContext, store: Store, tracking: TrackingClient, folder: str
) -> dict[str, Any]:
    """Writes the report of a comparison, hands it to MLflow and Dagster, and returns the results.

    Raises dagster.Failure, after that, if no entrant could be measured.
    """
    from models.comparison.report import MEASURED, OUTCOME, markdown, results

    plan = store.read_json(f"{folder}/{PLAN}")
    outcomes = [store.read_json(f"{folder}/entrants/{one}/{OUTCOME}") for one in plan["order"]]
    result = results(plan, outcomes)
    with plain_failures(), tracking.open_run(plan["mlflow_run"], interrupts=INTERRUPTS):
        pictures = _pictures(store, folder, result)
        text = markdown(result, pictures={name: name for name in pictures})
        store.write_json(f"{folder}/{RESULTS}", result)
        store.write_bytes(f"{folder}/{REPORT}", text.encode())
        _log_report(tracking, result, text, pictures)
    context.log_event(_materialisation(store, folder, result, pictures))
    if not any(one["state"] == MEASURED for one in outcomes):
        faults = "\n".join(f"{one['name']}: {one['fault']}" for one in outcomes)
        raise dg.Failure(description=f"no entrant could be measured:\n{faults}")
    return result


def _pictures(store: Store, folder: str, result: dict[str, Any]) -> dict[str, bytes]:
    """Draws and writes curves and grids; leaves out what there is nothing to show of."""
    from assets.charts import comparison_png
    from models.comparison.report import CURVES, GRIDS, MEASURED, side_by_side

    made = {}
    if any(one["curve"] for one in result["entrants"]):
        made[CURVES] = comparison_png(result["entrants"])
    done = [one["name"] for one in result["entrants"] if one["state"] == MEASURED]
    if done:
        labels, rows = _eval_rows(store, result["plan"]["manifest"])
        folders = {name: store.url(f"{folder}/entrants/{name}/generator") for name in done}
        made[GRIDS] = side_by_side(folders, rows, labels, psi=result["plan"]["psi"])
    for name, content in made.items():
        store.write_bytes(f"{folder}/{name}", content, durable=False)
    return made


def _eval_rows(store: Store, manifest: str) -> tuple[list[str], "Rows"]:
    """Returns a manifest's labels and the rows [M,L] of its eval split."""
    import numpy as np

    found = load_manifest(store, manifest)
    table = read_split(store, found, "eval")
    columns = [table[label].to_numpy(zero_copy_only=False) for label in found.labels]
    rows = np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0))
    return list(found.labels), rows.astype(np.float32)


def _log_report(
    tracking: TrackingClient, result: dict[str, Any], text: str, pictures: dict[str, bytes]
) -> None:
    """Puts the report onto the comparison's own MLflow run: files, best distance, description."""
    run_id, client = result["plan"]["mlflow_run"], tracking.client()
    for name, content in pictures.items():
        tracking.log_picture(run_id, name, content)
    client.log_text(run_id, text, REPORT)
    client.log_text(run_id, json.dumps(result, indent=2, sort_keys=True), RESULTS)
    client.set_tag(run_id, NOTE, text.split("\n![")[0])  # no picture is found from there
    best = result["entrants"][0]
    if result["best"] is not None:
        client.set_tag(run_id, "omokage.best", best["name"])
        client.log_metric(run_id, f"eval/{best['metric']}", float(best["distance"]))


def _materialisation(
    store: Store, folder: str, result: dict[str, Any], pictures: dict[str, bytes]
) -> dg.AssetMaterialization:
    from models.comparison.report import CURVES, GRIDS, MEASURED, table

    plan, entrants = result["plan"], result["entrants"]
    facts: dict[str, Any] = {
        "entrants": len(entrants),
        "failed": sum(one["state"] != MEASURED for one in entrants),
        "best": result["best"] or "none",
        "budget": plan["budget_text"],
        "table": dg.MetadataValue.md(table(entrants)),
        "manifest": plan["manifest"],
        "digest": plan["id"],
        "mlflow_run": plan["mlflow_run"],
        "path": dg.MetadataValue.path(store.url(f"{folder}/{REPORT}")),
    }
    for name, key in ((CURVES, "curves"), (GRIDS, "grids")):
        if name in pictures:
            facts[key] = inline(Image.open(io.BytesIO(pictures[name])))
    return dg.AssetMaterialization(COMPARISON, metadata=facts)
