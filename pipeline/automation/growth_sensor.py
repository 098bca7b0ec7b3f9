"""The sensor that asks for a training when the manifest has grown enough; off until switched on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import dagster as dg

from assets.generator import CURRENT
from assets.resources import StoreResource
from dataset.manifest import CURRENT_PATH, Manifest, load_manifest
from dataset.store import Store
from pipeline.automation.automatic_config import automatic_run_config
from pipeline.automation.blocking import unpassed_checks
from pipeline.automation.growth import growth_since
from pipeline.automation.threshold import Threshold, parse_threshold
from pipeline.automation.unfinished import in_words, unfinished_run
from pipeline.jobs import train_and_judge
from pipeline.settings import Settings

EVERY_S = 60
DIGEST_TAG = "omokage/manifest"
REASON_TAG = "omokage/reason"
MANIFEST = dg.AssetKey("manifest")


def growth_sensor(
    settings: Settings, *, checks: Sequence[dg.AssetCheckKey], jobs: Collection[str]
) -> dg.SensorDefinition:
    """Returns the sensor `train_when_grown`.

    checks: the blocking checks of the manifest and of all that it is made from. jobs: names of the
    jobs that change the training set or train; while a run of theirs is at work it waits.
    """
    threshold = parse_threshold(settings.grow)

    @dg.sensor(
        name="train_when_grown",
        job=train_and_judge,
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Asks for a training when the manifest has grown beyond what the current "
        f"generator learnt from (OMOKAGE_GROW: {threshold.words}), once a digest, and only when "
        "all blocking checks have passed on what is there now.",
    )
    def train_when_grown(
        context: dg.SensorEvaluationContext, store: StoreResource
    ) -> dg.RunRequest | dg.SkipReason:
        asked = wish(context.instance, store.open(), threshold, checks=checks, jobs=jobs)
        if asked.manifest is None:
            return dg.SkipReason(f"{asked.reason[0].upper()}{asked.reason[1:]}.")
        return dg.RunRequest(
            run_key=asked.manifest,
            run_config=automatic_run_config(settings, train_and_judge.name),
            tags={DIGEST_TAG: asked.manifest, REASON_TAG: asked.reason},
        )

    return train_when_grown


@dataclass(frozen=True)
class Wish:
    """Whether to train, and why: `manifest` is the digest to train on, None for none."""

    manifest: str | None
    reason: str


def wish(
    instance: dg.DagsterInstance,
    store: Store,
    threshold: Threshold,
    *,
    checks: Sequence[dg.AssetCheckKey],
    jobs: Collection[str],
) -> Wish:
    """Decides whether the manifest that stands in the store is to be trained on now.

    Raises OmokageError if the manifest or generators/current.json is damaged.
    """
    if not store.exists(CURRENT_PATH):
        return Wish(None, "there is no manifest yet; run a refresh of a site, or refresh_dataset")
    manifest = load_manifest(store, None)
    learnt = store.read_json(CURRENT)["manifest"] if store.exists(CURRENT) else None
    if learnt == manifest.digest:
        faces = manifest.train_rows + manifest.eval_rows
        return Wish(
            None,
            f"the generator learnt from this very manifest ({manifest.digest[:12]}, {faces:,} "
            "faces): nothing is new",
        )
    hindrance = (
        _at_work(instance, jobs)
        or _not_materialised(instance, manifest)
        or _unpassed(instance, checks)
        or _asked_before(instance, manifest)
    )
    if hindrance:
        return Wish(None, hindrance)
    return _by_growth(store, threshold, manifest, learnt=learnt)


def _by_growth(
    store: Store, threshold: Threshold, manifest: Manifest, *, learnt: str | None
) -> Wish:
    if learnt is None:
        faces = manifest.train_rows + manifest.eval_rows
        return Wish(
            manifest.digest, f"there is no generator yet, and the manifest has {faces:,} faces"
        )
    growth = growth_since(store, learnt, manifest)
    if not growth.known or threshold.reached(growth.new, growth.learnt):
        return Wish(manifest.digest, f"{growth.words}, {threshold.words}")
    return Wish(None, f"{growth.words}, {threshold.words}")


def _at_work(instance: dg.DagsterInstance, jobs: Collection[str]) -> str:
    run = unfinished_run(instance, jobs)
    if run is None:
        return ""
    return (
        f"{in_words(run)} has not ended; the manifest is looked at after it (terminate it on its "
        "page if it hangs or was killed)"
    )


def _not_materialised(instance: dg.DagsterInstance, manifest: Manifest) -> str:
    """Says so if the manifest in the store is not the one that Dagster and its checks know."""
    event = instance.get_latest_materialization_event(MANIFEST)
    made = event.asset_materialization if event else None
    known = made.metadata.get("digest") if made else None
    if known is not None and known.value == manifest.digest:
        return ""
    of_dagster = f"that of the last materialisation ({str(known.value)[:12]})" if known else "one"
    return (
        f"the manifest in the home ({manifest.digest[:12]}) is not {of_dagster} that Dagster has "
        "checked; materialise manifest, so that its checks run"
    )


def _unpassed(instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> str:
    faults = unpassed_checks(instance, checks)
    if not faults:
        return ""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{faults[0]}{more}; nothing is trained past a blocking check"


def _asked_before(instance: dg.DagsterInstance, manifest: Manifest) -> str:
    tags = {DIGEST_TAG: manifest.digest}
    runs = instance.get_runs(dg.RunsFilter(job_name=train_and_judge.name, tags=tags), limit=1)
    if not runs:
        return ""
    run, of = runs[0], f"a training on this manifest ({manifest.digest[:12]})"
    return (
        f"{of} was asked for before: run {run.run_id[:8]} ended as {run.status.value.lower()}. It "
        "is asked for once; re-execute that run to try again"
    )
